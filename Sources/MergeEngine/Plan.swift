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
    let checkpoint: Checkpoint
    let parameters: [(name: String, setting: Setting)]
  }

  /// What is made of one tensor.
  struct Tensor {
    enum Action {
      /// By the method, with these parameters.
      case merge([JSON.Member])
      /// Taken over from an input, for this reason.
      case copy(reason: String)
    }

    let name: String
    let shape: [Int]
    let dtype: DType
    let action: Action
    /// Indices of inputs, the base first if the method uses it; one for a copy.
    let inputs: [Int]
    /// Columns to which the inputs' rows are cropped; nil: none.
    let croppedColumns: Int?
    let group: Int?
    var warnings: [String] = []
  }

  let recipe: Recipe
  let inputs: [Input]
  /// Index of the input that gives the names.
  let names: Int
  /// Index of the input that gives config, tokenizer and other files.
  let donor: Int
  let sideFiles: SideFiles
  private(set) var tensors: [Tensor]
  let layout: CheckpointLayout
  let outputPath: String?
  private(set) var threads: Int
  /// Bytes for buffers and methods' scratch; nil: the default.
  let memory: Int?
  private(set) var warnings: [String]

  var isSingleFile: Bool { outputPath?.hasSuffix(".safetensors") ?? false }

  /// Read the inputs' headers and decide everything.
  init(_ recipe: Recipe, outputPath: String?, options: JobOptions) throws(Failure) {
    self.recipe = recipe
    self.outputPath = outputPath.map { FileSystem.trimmingSlashes($0) }
    threads = options.threads > 0 ? options.threads : Machine.usableCPUs()
    memory = options.maxMemory
    let opened = try PlanInputs(recipe)
    inputs = opened.inputs
    names = opened.names
    donor = opened.donor
    warnings = recipe.warnings + opened.warnings
    sideFiles = try SideFiles(of: inputs[donor].checkpoint)

    var planner = TensorPlanner(recipe, opened)
    tensors = try planner.plan()
    warnings += planner.warnings
    var metadata: [(key: String, value: String)] = []
    var naming = CheckpointLayout.Naming.folder
    if let path = self.outputPath, path.hasSuffix(".safetensors") {
      naming = .file(FileSystem.name(of: path))
      metadata = [("stockpot.recipe", recipe.json.serialized(indent: 0))]
    }
    layout = try CheckpointLayout(
      tensors: tensors.map { ($0.name, $0.dtype, $0.shape) }, shardSize: options.shardSize ?? CheckpointLayout.defaultShardSize,
      naming: naming, metadata: metadata)
    try checkMemory()
    try checkMethod()
    if let path = self.outputPath, let free = FileSystem.freeBytes(near: path), free < layout.totalBytes {
      warnings.append("the output needs \(layout.totalBytes) bytes, but the file system has \(free) free")
    }
  }

  /// Begin every combination of parameters once, so that a contradiction or a wrong number of models is found before anything
  /// is written.
  private func checkMethod() throws(Failure) {
    var seen: Set<String> = []
    for tensor in tensors {
      guard case .merge(let parameters) = tensor.action else { continue }
      let key = JSON.object(parameters).serialized(indent: 0) + "\(tensor.inputs.count)"
      guard seen.insert(key).inserted else { continue }
      let task = try makeTask(tensor, output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!))
      _ = try task.method!.begin(task.context)
    }
  }

  /// Refuse beforehand what one thread could not do within the limit: a block of one chunk, or of one row where a method needs
  /// whole rows. Where several threads could not, plan fewer.
  private mutating func checkMemory() throws(Failure) {
    guard let memory else { return }
    var (scratch, buffers) = (0, 1)
    for tensor in tensors {
      let task = try makeTask(tensor, output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!))
      let cost = BlockBuffers.cost(task)
      var least = KernelGeometry.chunk
      if let method = task.method, case .sweep(let sweep) = try method.begin(task.context) { least = max(least, sweep.granule) }
      let bytes = cost.fixed + cost.perElement * least + task.scratchBytes
      scratch = max(scratch, task.scratchBytes)
      buffers = max(buffers, bytes - task.scratchBytes)
      guard bytes <= memory else {
        throw Failure(
          .memory,
          "'\(tensor.name)' needs \(bytes) bytes on one thread, more than max_memory = \(memory): raise it, or drop the option")
      }
    }
    threads = min(threads, max(1, (memory - scratch) / buffers))
  }

  /// Bytes of buffers and scratch at most.
  var plannedMemory: Int {
    if let memory { return memory }
    var (blocks, scratch) = (0, 0)
    for tensor in tensors {
      guard let task = try? makeTask(tensor, output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!)) else { continue }
      let cost = BlockBuffers.cost(task)
      let block = Partition(count: task.context.count, granule: 1).block(
        bytesPerElement: cost.perElement, budget: max(0, Executor.defaultMemory / threads - cost.fixed))
      blocks = max(blocks, cost.fixed + cost.perElement * min(block, task.context.count))
      scratch = max(scratch, task.scratchBytes)
    }
    return blocks * threads + scratch
  }

  // MARK: - Tasks

  /// The executor's task for a tensor.
  func makeTask(_ tensor: Tensor, output: TensorOutput) throws(Failure) -> TensorTask {
    var method: (any MergeMethod)?
    var hasBase = false
    var policy = NonFinitePolicy.error
    if case .merge(let parameters) = tensor.action {
      let values = try Parameters(recipe.schema, parameters)
      method = try recipe.method.init(values)
      hasBase = inputs[tensor.inputs[0]].isBase && method!.usesBase(given: true)
      policy = values.choice("on_non_finite", as: NonFinitePolicy.self)
    }
    let sources = tensor.inputs.map { index -> TensorInput in
      let checkpoint = inputs[index].checkpoint
      let record = checkpoint.tensor(named: tensor.name)!
      guard let columns = tensor.croppedColumns, record.shape[1] != columns else { return .stored(checkpoint, record) }
      return .cropped(checkpoint, record, columns: columns, storedColumns: record.shape[1])
    }
    return TensorTask(
      context: TensorContext(
        name: tensor.name, shape: tensor.shape, modelCount: tensor.inputs.count - (hasBase ? 1 : 0), hasBase: hasBase),
      inputs: sources, inputNames: tensor.inputs.map { inputs[$0].path }, output: output, outputType: tensor.dtype,
      method: method, policy: policy, group: method == nil ? nil : tensor.group)
  }

  var bytesToRead: Int {
    tensors.reduce(0) { total, tensor in
      total + tensor.inputs.reduce(0) { $0 + (inputs[$1].checkpoint.tensor(named: tensor.name)?.byteCount ?? 0) }
    }
  }
}
