import Checkpoints
import MergeMethods
import Platform

/// The checkpoints of a recipe, opened and checked.
struct PlanInputs {
  private(set) var inputs: [Plan.Input] = []
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

  init(_ recipe: Recipe) throws(Failure) {
    let schema = recipe.schema
    // A method that subtracts the base has nothing to gain from it as a model; mergekit leaves it out as well.
    let merged = recipe.models.filter { model in
      recipe.base.map { schema.base == .donor || !Self.isSame(model.path, $0) } ?? true
    }
    try schema.check(models: merged.count, hasBase: recipe.base != nil)
    if let path = recipe.base {
      base = 0
      let opened = try Self.open(path)
      inputs.append(
        Plan.Input(path: path, isBase: true, checkpoint: opened.model, adapter: opened.adapter, parameters: []))
    }
    for model in merged {
      models.append(inputs.count)
      let opened = try Self.open(model.path)
      inputs.append(
        Plan.Input(
          path: model.path, isBase: false, checkpoint: opened.model, adapter: opened.adapter, parameters: model.parameters,
          statistics: try model.statistics.map { (path) throws(Failure) in try Checkpoint(path: path) }))
    }
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
    names = base ?? models[0]
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

  /// The checkpoint of a model reference, and its adapter.
  private static func open(_ text: String) throws(Failure) -> (model: Checkpoint, adapter: Adapter?) {
    let reference = try ModelReference(text)
    let model = try Checkpoint(path: try reference.model.resolved())
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
