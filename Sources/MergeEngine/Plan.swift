import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// Everything about a merge that is known before any tensor is read: inputs, what is made of which tensor and where each byte
/// of the output goes. A value: it can be printed, compared and run in parts.
public struct Plan {
  /// A checkpoint that is read.
  struct Input {
    let path: String
    let isBase: Bool
    /// With the tensors that an adapter has in place of its own.
    var checkpoint: Checkpoint
    /// What is added to its tensors while they are read.
    var adapter: Adapter?
    /// Its activation statistics: name to [channels].
    var statistics: Checkpoint?

    /// Bytes that are read of a tensor, an adapter's factors with them.
    func bytes(at index: Int) -> Int {
      let bytes = checkpoint.tensors[index].byteCount
      guard let update = adapter?.updates[checkpoint.tensors[index].name] else { return bytes }
      return bytes + update.first.byteCount + update.second.byteCount
    }

    /// Does it hold differences from a base, rather than weights?
    var isTaskVector: Bool { checkpoint.metadata.contains { $0.key == Plan.contentKey && $0.value == Plan.taskVector } }
  }

  /// What `output: task_vector` writes into the metadata.
  static let contentKey = "stockpot.content"
  static let taskVector = "task_vector"

  /// What is made of one tensor: an object, so that looking at one of thousands does not copy what it lists.
  final class Tensor {
    enum Action {
      /// By the method, with the parameters of this number in `settings`.
      case merge(Int)
      /// Taken over from an input, for this reason.
      case copy(reason: String)
    }

    let name: String
    let shape: [Int]
    let dtype: DType
    let action: Action
    /// Indices of inputs, the base first if the method uses it; one for a copy.
    let inputs: [Int]
    /// For each of the inputs, the position among its checkpoint's tensors.
    let indices: [Int]
    /// What each of the inputs calls it, where layers are restacked or one answers for another; nil: `name`.
    let stored: [String]?
    /// Is the first input the base of the method?
    let hasBase: Bool
    /// Columns to which the inputs' rows are cropped; nil: none.
    let croppedColumns: Int?
    let group: Int?
    let warnings: [String]
    /// Where the rows come from, for each of the inputs; nil: they are as they are stored.
    let rowMaps: [RowMap]?

    init(
      name: String, shape: [Int], dtype: DType, action: Action, inputs: [Int], indices: [Int], stored: [String]?, hasBase: Bool,
      croppedColumns: Int? = nil, group: Int?, warnings: [String] = [], rowMaps: [RowMap]? = nil
    ) {
      (self.name, self.shape, self.dtype, self.action) = (name, shape, dtype, action)
      (self.inputs, self.indices, self.stored, self.hasBase) = (inputs, indices, stored, hasBase)
      (self.croppedColumns, self.group, self.warnings, self.rowMaps) = (croppedColumns, group, warnings, rowMaps)
    }

    /// The same with other rows.
    init(_ other: Tensor, shape: [Int], rowMaps: [RowMap]) {
      (name, dtype, action) = (other.name, other.dtype, other.action)
      (inputs, indices, stored, hasBase) = (other.inputs, other.indices, other.stored, other.hasBase)
      (croppedColumns, group, warnings) = (other.croppedColumns, other.group, other.warnings)
      (self.shape, self.rowMaps) = (shape, rowMaps)
    }

    /// Positions in `inputs` of the models.
    var models: Range<Int> { (hasBase ? 1 : 0)..<inputs.count }

    /// Of a tensor that is merged, the number of its parameters.
    var settings: Int? {
      // Not inlined: Swift 6.3 fails to compile that.
      @inline(never) get { if case .merge(let settings) = action { settings } else { nil } }
    }

    func stored(_ position: Int) -> String { stored?[position] ?? name }
  }

  let recipe: Recipe
  let inputs: [Input]
  /// Index of the input that gives the names.
  let names: Int
  /// Index of the input that gives config, tokenizer and other files.
  let donor: Int
  let sideFiles: SideFiles
  let tokenizerFiles: TokenizerFiles
  let tensors: [Tensor]
  /// One of each kind of them: see `kinds(_:_:)`.
  let kinds: [Int]
  let settings: PlannedSettings
  let vocabulary: PlannedVocabulary?
  /// The stacks of layers that the output has.
  let stacks: [PlannedStack]
  /// What becomes of the donor's config beside its dtype.
  let configChanges: [ConfigLayers.Change]
  let layout: CheckpointLayout
  let artifacts: ArtifactCheckpoints
  /// Folder of the output that holds the merged checkpoint; "": the output itself. Only a method without artifacts uses that.
  let mergedFolder: String
  /// Is the output a task vector?
  let makesTaskVector: Bool
  /// Are merged tensors written, and not only artifacts?
  let makesMerged: Bool
  let outputPath: String?
  private(set) var threads: Int
  /// Bytes for this plan, buffers and methods' scratch; nil: the default.
  let memory: Int?
  private(set) var warnings: [String]

  /// Rows of the output's embeddings, where they are others than the donor's config says.
  var vocabularySize: Int? {
    if let vocabulary { return vocabulary.vocabulary.size }
    return tensors.lazy.filter { $0.croppedColumns != nil }.map { $0.shape[0] }.min()
  }

  var isSingleFile: Bool { outputPath?.hasSuffix(".safetensors") ?? false }

  /// Read the inputs' headers and decide everything.
  init(_ recipe: Recipe, outputPath: String?, options: JobOptions) throws(Failure) {
    self.recipe = recipe
    self.outputPath = outputPath.map { FileSystem.trimmingSlashes($0) }
    threads = options.threads > 0 ? options.threads : Machine.usableCPUs()
    memory = options.maxMemory
    let opened = try PlanInputs(recipe, threads: threads)
    inputs = opened.inputs
    names = opened.names
    donor = opened.donor
    warnings = recipe.warnings + opened.warnings
    tokenizerFiles = try TokenizerFiles(recipe, opened)
    sideFiles = try SideFiles(of: inputs[donor].checkpoint).replacing(
      tokenizerFiles.names, tokenizer: tokenizerFiles.replacesDonor || !recipe.copiesTokenizer)
    warnings += tokenizerFiles.warnings

    var planner = try TensorPlanner(recipe, opened)
    tensors = try planner.plan()
    kinds = Self.kinds(inputs, tensors)
    settings = planner.settings
    vocabulary = planner.vocabulary
    stacks = planner.stacks
    configChanges = planner.configChanges
    warnings += planner.warnings
    var metadata: [(key: String, value: String)] = []
    var naming = CheckpointLayout.Naming.folder
    if let path = self.outputPath, path.hasSuffix(".safetensors") {
      naming = .file(FileSystem.name(of: path))
      metadata = [("stockpot.recipe", recipe.json.serialized(indent: 0))]
    }
    let makers = settings.entries.map { entry in
      entry.parameters.contains { $0.key == "output" && $0.value.string == Self.taskVector }
    }
    makesTaskVector = tensors.contains { tensor in tensor.settings.map { makers[$0] } ?? false }
    if makesTaskVector { metadata.append((Self.contentKey, Self.taskVector)) }
    let shardSize = options.shardSize ?? CheckpointLayout.defaultShardSize
    layout = try CheckpointLayout(
      tensors: tensors.map { ($0.name, $0.dtype, $0.shape) }, shardSize: shardSize, naming: naming, metadata: metadata,
      workers: threads)
    let wanted = Self.artifacts(of: tensors, settings)
    makesMerged = settings.entries.allSatisfy(\.method.makesMerged)
    let notes = Self.artifactNotes(recipe, inputs, tensors, settings)
    artifacts = try ArtifactCheckpoints(
      wanted: wanted, inputs: inputs.map(\.path), shardSize: shardSize, metadata: notes)
    mergedFolder = artifacts.entries.isEmpty ? "" : "merged"
    if naming != .folder, !artifacts.entries.isEmpty {
      throw Failure(
        .argument, "\(recipe.schema.name) writes several checkpoints: give the output a folder's name, not a file's")
    }
    threads = try fittingThreads()
    try checkMethod()
    if let path = self.outputPath, let free = FileSystem.freeBytes(near: path), free < bytesToWrite {
      warnings.append("the output needs \(bytesToWrite) bytes, but the file system has \(free) free")
    }
  }

  /// The artifacts of every tensor, by the method with the tensor's parameters.
  private static func artifacts(
    of tensors: [Tensor], _ settings: PlannedSettings
  ) -> [(name: String, artifacts: [Artifact], models: [Int])] {
    tensors.map { tensor in
      guard let number = tensor.settings else { return (tensor.name, [], []) }
      let context = TensorContext(
        name: tensor.name, shape: tensor.shape, modelCount: tensor.models.count, hasBase: tensor.hasBase)
      let artifacts = settings.entries[number].method.artifacts(context, dtype: tensor.dtype)
      return (tensor.name, artifacts, artifacts.isEmpty ? [] : tensor.models.map { tensor.inputs[$0] })
    }
  }

  /// What a model's artifacts say of themselves (docs/masks.md).
  private static func artifactNotes(
    _ recipe: Recipe, _ inputs: [Input], _ tensors: [Tensor], _ settings: PlannedSettings
  ) -> (Int) -> [(key: String, value: String)] {
    { model in
      let standard = recipe.schema.parameter("lambda")?.defaultValue ?? 1
      var lambdas: [JSON.Member] = []
      for tensor in tensors {
        guard let parameters = tensor.settings.map({ settings.entries[$0].parameters }) else { continue }
        lambdas.append(.init(key: tensor.name, value: parameters.first { $0.key == "lambda" }?.value ?? standard))
      }
      let isOne = lambdas.allSatisfy { $0.value.double == lambdas.first?.value.double }
      let lambda = isOne ? lambdas.first?.value ?? standard : JSON.object(lambdas)
      return [
        ("stockpot.format", recipe.method.artifactFormat), ("stockpot.version", "1"), ("stockpot.method", recipe.schema.name),
        ("stockpot.base", inputs.first { $0.isBase }?.path ?? ""), ("stockpot.lambda", lambda.serialized(indent: 0)),
        ("stockpot.model", inputs[model].path),
      ]
    }
  }

  /// Begin every combination of parameters once, so that a contradiction or a wrong number of models is found before anything
  /// is written.
  private func checkMethod() throws(Failure) {
    var seen: Set<[Int]> = []
    for tensor in tensors {
      guard let number = tensor.settings, seen.insert([number, tensor.inputs.count]).inserted else { continue }
      let task = try makeTask(tensor, output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!))
      _ = try task.method!.begin(task.context)
    }
  }

  // MARK: - Tasks

  /// The executor's task for a tensor.
  /// - Parameters:
  ///   - run: what the tensors of one run share, and where their artifacts go; nil while planning.
  func makeTask(_ tensor: Tensor, output: TensorOutput, run: RunContext? = nil) throws(Failure) -> TensorTask {
    var method: (any SweepProgram)?
    var (policy, equalInputs) = (NonFinitePolicy.error, EqualInputs.input)
    if let number = tensor.settings {
      let entry = settings.entries[number]
      (method, policy, equalInputs) = (entry.method, entry.policy, entry.equalInputs)
    } else if makesTaskVector, tensor.dtype.isFloat {
      // What is taken over as it is adds nothing to a task vector.
      (method, policy) = (CombineProgram(coefficients: [0]), .ignore)
    }
    let sources = tensor.inputs.indices.map { position -> TensorInput in
      let index = tensor.inputs[position]
      let record = inputs[index].checkpoint.tensors[tensor.indices[position]]
      guard let map = tensor.rowMaps?[position], !map.isIdentity(input: index, height: record.shape[0]) else {
        return source(tensor, index, record)
      }
      let gathered = map.inputs.map { ($0, source(tensor, $0, inputs[$0].checkpoint.tensor(named: tensor.name)!)) }
      return .gathered(
        RowGather(
          map, sources: Dictionary(uniqueKeysWithValues: gathered), columns: tensor.shape.dropFirst().reduce(1, *)))
    }
    var context = TensorContext(
      name: tensor.name, shape: tensor.shape, modelCount: tensor.models.count, hasBase: tensor.hasBase)
    let group = tensor.group
    if let run {
      context.group = group.map { run.storage(of: $0) }
      context.statistics = try statistics(of: tensor)
    }
    return TensorTask(
      context: context, inputs: sources, inputNames: tensor.inputs.map { inputs[$0].path }, output: output,
      outputType: tensor.dtype, method: method, policy: policy, equalInputs: equalInputs, group: group,
      artifacts: run?.artifacts(of: tensor.name))
  }

  /// A tensor of an input, as its method wants it: of a task vector, the weights.
  private func source(_ tensor: Tensor, _ index: Int, _ record: TensorRecord) -> TensorInput {
    let own = stored(tensor, inputs[index], record)
    guard inputs[index].isTaskVector, tensor.dtype.isFloat else { return own }
    let base = tensor.hasBase ? tensor.inputs[0] : inputs.firstIndex { $0.isBase }!
    let below = inputs[base].checkpoint.tensor(named: tensor.stored(0))!
    return .sum(base: stored(tensor, inputs[base], below), vector: own)
  }

  private func stored(_ tensor: Tensor, _ input: Input, _ record: TensorRecord) -> TensorInput {
    var source = TensorInput.stored(input.checkpoint, record)
    if let adapter = input.adapter, let update = adapter.updates[record.name] {
      source = .adapted(AdaptedTensor(source, shape: record.shape, update, of: adapter.checkpoint))
    }
    // Cropped rows alone are the beginning of what is stored.
    guard let columns = tensor.croppedColumns, record.shape.count == 2, record.shape[1] != columns else { return source }
    return .cropped(source, columns: columns, storedColumns: record.shape[1])
  }

  /// What one run of a plan shares between its tasks.
  struct RunContext {
    private let groups: [Int: GroupStorage]
    private let sinks: [String: TensorArtifacts]

    init(_ plan: Plan, artifactFiles: [[File]]) {
      groups = Dictionary(uniqueKeysWithValues: Set(plan.tensors.compactMap(\.group)).map { ($0, GroupStorage()) })
      var sinks: [String: TensorArtifacts] = [:]
      for (tensor, places) in zip(plan.tensors, plan.artifacts.places) where !places.isEmpty {
        let targets = places.map { place in
          let slot = plan.artifacts.entries[place.entry].layout.slots[place.slot]
          return (file: artifactFiles[place.entry][slot.file], offset: slot.offset, byteCount: slot.byteCount)
        }
        sinks[tensor.name] = TensorArtifacts(dtype: tensor.dtype, targets: targets)
      }
      self.sinks = sinks
    }

    func storage(of group: Int) -> GroupStorage { groups[group]! }
    func artifacts(of tensor: String) -> TensorArtifacts? { sinks[tensor] }
  }

  /// The activation statistics of a tensor's models; empty when none has any.
  private func statistics(of tensor: Tensor) throws(Failure) -> [[Double]?] {
    guard tensor.models.contains(where: { inputs[tensor.inputs[$0]].statistics != nil }) else { return [] }
    var all: [[Double]?] = []
    for model in tensor.models {
      guard let source = inputs[tensor.inputs[model]].statistics, let record = source.tensor(named: tensor.stored(model)) else {
        all.append(nil)
        continue
      }
      guard record.dtype.isFloat, record.shape.count == 1 else {
        throw Failure(
          .format, "'\(tensor.stored(model))' of the statistics \(source.path) is no list of numbers: collect them again")
      }
      let count = record.shape[0]
      let raw = UnsafeMutableRawPointer.allocate(byteCount: max(1, record.byteCount), alignment: 64)
      defer { raw.deallocate() }
      try source.read(record, bytes: 0..<record.byteCount, into: raw)
      var values = [Double](repeating: 0, count: count)
      values.withUnsafeMutableBytes { Cast.convert(raw, record.dtype, count: count, into: $0.baseAddress!, .f64) }
      all.append(values)
    }
    return all
  }

  var bytesToWrite: Int { (makesMerged ? layout.totalBytes : 0) + artifacts.totalBytes }

  var bytesToRead: Int {
    tensors.reduce(0) { total, tensor in
      total + zip(tensor.inputs, tensor.indices).reduce(0) { $0 + inputs[$1.0].bytes(at: $1.1) }
    }
  }
}
