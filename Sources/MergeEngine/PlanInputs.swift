import Checkpoints
import JSON
import MergeMethods
import Platform

/// The checkpoints of a recipe, opened and checked, and its composition in their terms.
struct PlanInputs {
  /// An input, or some of its layers.
  struct Source {
    let input: Int
    /// nil: all of it.
    let layers: Range<Int>?
    let parameters: Composition.Settings
  }

  struct Slice {
    let place: String
    /// The models that are merged, in the recipe's order.
    let sources: [Source]
    let base: Source?
    /// Whose tensors are the output's.
    let names: Source
    /// The slice's parameters, its module's and the recipe's: the first that has a value counts.
    let parameters: [Composition.Settings]

    /// Does no parameter depend on the tensor's name or layer?
    let isUniform: Bool

    init(place: String, sources: [Source], base: Source?, names: Source, parameters: [Composition.Settings]) {
      (self.place, self.sources, self.base, self.names, self.parameters) = (place, sources, base, names, parameters)
      isUniform = (parameters + sources.map(\.parameters)).allSatisfy { $0.allSatisfy(\.setting.isConstant) }
    }
  }

  struct Module {
    let name: String?
    let slices: [Slice]
    var isWhole: Bool { slices.count == 1 && slices[0].names.layers == nil }
  }

  private(set) var inputs: [Plan.Input] = []
  private(set) var modules: [Module] = []
  /// Index of the base; nil: there is none.
  private(set) var base: Int?
  /// Indices of the models that are merged, in the recipe's order.
  private(set) var models: [Int] = []
  /// Index of the input whose tensors are the output's.
  private(set) var names = 0
  private(set) var donor = 0
  private(set) var warnings: [String] = []
  /// Heads that are left out, because the model that gives the names ties them.
  private(set) var tiedHeads: Set<String> = []
  private let schema: MethodSchema
  private var opened: [String: Opened] = [:]
  /// What an input is: a base or a model, and how often a slice has named it before.
  private var known: [Key: Int] = [:]

  private typealias Opened = Result<(model: Checkpoint, adapter: Adapter?), Failure>

  private struct Key: Hashable {
    let path: String
    let statistics: String?
    let isBase: Bool
    let repetition: Int
  }

  /// - Parameter threads: at most so many read headers.
  init(_ recipe: Recipe, threads: Int) throws(Failure) {
    schema = recipe.schema
    opened = Self.open(recipe, threads: threads)
    if let path = recipe.base { base = try input(path, nil, isBase: true, 0) }
    for module in recipe.composition.modules {
      var slices: [Slice] = []
      for slice in module.slices {
        slices.append(try self.slice(slice, [slice.parameters, module.parameters, recipe.parameters], recipe))
      }
      modules.append(Module(name: module.name, slices: slices))
    }
    models = inputs.indices.filter { !inputs[$0].isBase }
    base = base ?? inputs.indices.first { inputs[$0].isBase }
    for input in inputs where input.isTaskVector {
      guard !input.isBase, base != nil, schema.base != .donor else {
        throw Failure(
          .method,
          "\(input.path) is a task vector, merged minus base: give it as a model beside its base_model, to task_arithmetic or another "
            + "method that adds task vectors")
      }
    }
    for input in inputs {
      if let failure = try Quantization.failure(of: input.checkpoint) { throw failure }
    }
    names = recipe.base == nil ? modules[0].slices[0].names.input : 0
    let ties = try TiedWeights(&inputs, names: names)
    tiedHeads = ties.left
    warnings += ties.warnings
    donor = names
    if let source = recipe.configSource, let index = inputs.firstIndex(where: { $0.path == source }) { donor = index }
    if inputs[donor].checkpoint.folder == nil, inputs.contains(where: { $0.checkpoint.folder != nil }) {
      warnings.append(
        "\(inputs[donor].path) is a single file, so no config or tokenizer is carried along: set config_source to a folder")
    }
  }

  private mutating func slice(
    _ slice: Composition.Slice, _ parameters: [Composition.Settings], _ recipe: Recipe
  ) throws(Failure) -> Slice {
    let path = slice.base ?? recipe.base
    // A method that subtracts the base has nothing to gain from it as a model; mergekit leaves it out as well.
    let schema = schema
    let isLeftOut = { (source: Composition.Source) -> Bool in
      schema.base != .donor && path.map { Self.isSame(source.model.path, $0) } ?? false
    }
    let merged = slice.sources.filter { !isLeftOut($0) }
    // A slice of the base alone has nothing to merge: it is taken over.
    let isBaseOnly = merged.isEmpty && !slice.isWhole
    do throws(Failure) { if !isBaseOnly { try schema.check(models: merged.count, hasBase: path != nil) } } catch {
      throw slice.isWhole ? error : Failure(error.status, "\(slice.place): \(error.message)")
    }
    var base: Source?
    if let path {
      base = Source(
        input: try input(path, nil, isBase: true, 0), layers: try baseLayers(slice, path, isLeftOut), parameters: [])
    }
    var sources: [Source] = []
    var seen: [String: Int] = [:]
    for source in merged {
      let model = source.model
      let index = try input(model.path, model.statistics, isBase: false, seen[model.path, default: 0])
      seen[model.path, default: 0] += 1
      sources.append(Source(input: index, layers: source.layers, parameters: model.parameters))
    }
    var names = base ?? sources[0]
    if !slice.isWhole, schema.base == .donor, let path {
      names = zip(merged, sources).first { Self.isSame($0.0.model.path, path) }?.1 ?? sources[0]
    }
    return Slice(place: slice.place, sources: sources, base: base, names: names, parameters: parameters)
  }

  /// The base's layers: as it is listed among the sources, else those that all sources take.
  private func baseLayers(
    _ slice: Composition.Slice, _ path: String, _ isListed: (Composition.Source) -> Bool
  ) throws(Failure) -> Range<Int>? {
    guard !slice.isWhole else { return nil }
    if let own = slice.sources.first(where: isListed) { return own.layers }
    guard schema.base == .donor || slice.sources.allSatisfy({ $0.layers == slice.sources[0].layers }) else {
      throw Failure(
        .recipe,
        "\(slice.place) takes different layers of its sources, so it is open which of the base \(path) belong to them: list the base "
          + "among the sources")
    }
    return slice.sources[0].layers
  }

  /// The index of an input, opened when it is first asked for.
  private mutating func input(
    _ path: String, _ statistics: String?, isBase: Bool, _ repetition: Int
  ) throws(Failure) -> Int {
    let key = Key(path: path, statistics: statistics, isBase: isBase, repetition: repetition)
    if let index = known[key] { return index }
    if opened[path] == nil { opened[path] = Self.open(path) }
    let found = try opened[path]!.get()
    known[key] = inputs.count
    inputs.append(
      Plan.Input(
        path: path, isBase: isBase, checkpoint: found.model, adapter: found.adapter,
        statistics: try statistics.map { (path) throws(Failure) in try Checkpoint(path: path) }))
    return inputs.count - 1
  }

  /// All models that the recipe names: one alone, and those that may be like it side by side. What is wrong with one is said when
  /// its turn comes.
  private static func open(_ recipe: Recipe, threads: Int) -> [String: Opened] {
    let known = KnownContents()
    let first = recipe.base ?? recipe.models[0].path
    let others = Array(Set(recipe.models.map(\.path)).subtracting([first]))
    var opened = [first: open(first, known)]
    let rest = WorkerPool.map(others.count, workers: threads) { open(others[$0], known) }
    for (path, one) in zip(others, rest) { opened[path] = one }
    return opened
  }

  private static func open(_ text: String, _ known: KnownContents? = nil) -> Opened {
    Result { () throws(Failure) in try pair(text, known) }
  }

  /// The checkpoint of a model reference, and its adapter.
  private static func pair(
    _ text: String, _ known: KnownContents?
  ) throws(Failure) -> (model: Checkpoint, adapter: Adapter?) {
    let reference = try ModelReference(text)
    let model = try Checkpoint(path: try reference.model.resolved(), known: known)
    guard let part = reference.adapter else {
      if let folder = model.folder, FileSystem.exists(folder + "/adapter_config.json"),
        model.tensors.contains(where: { $0.name.containsText(".lora_") })
      {
        throw Failure(.format, "\(text) is a LoRA adapter, not a model: write MODEL+\(text), with the model it was trained on")
      }
      return (model, nil)
    }
    let adapter = try Adapter(path: try part.resolved(), of: model)
    return (adapter.replacing(in: model), adapter)
  }

  private static func isSame(_ a: String, _ b: String) -> Bool {
    if a == b { return true }
    guard let first = try? ModelReference(a), let second = try? ModelReference(b) else { return false }
    return first.isSame(second)
  }
}
