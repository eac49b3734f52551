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

  init(_ recipe: Recipe) throws(Failure) {
    let schema = recipe.schema
    // A method that subtracts the base has nothing to gain from it as a model; mergekit leaves it out as well.
    let merged = recipe.models.filter { model in
      recipe.base.map { schema.base == .donor || !Self.isSame(model.path, $0) } ?? true
    }
    try schema.check(models: merged.count, hasBase: recipe.base != nil)
    if let path = recipe.base {
      base = 0
      inputs.append(Plan.Input(path: path, isBase: true, checkpoint: try Self.open(path), parameters: []))
    }
    for model in merged {
      models.append(inputs.count)
      inputs.append(
        Plan.Input(
          path: model.path, isBase: false, checkpoint: try Self.open(model.path), parameters: model.parameters,
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
    donor = names
    if let source = recipe.configSource, let index = inputs.firstIndex(where: { $0.path == source }) { donor = index }
    if inputs[donor].checkpoint.folder == nil, inputs.contains(where: { $0.checkpoint.folder != nil }) {
      warnings.append(
        "\(inputs[donor].path) is a single file, so no config or tokenizer is carried along: set config_source to a folder")
    }
  }

  private static func open(_ text: String) throws(Failure) -> Checkpoint { try Checkpoint(reference: text) }

  private static func isSame(_ a: String, _ b: String) -> Bool {
    if a == b { return true }
    guard let first = try? ModelReference(a), let second = try? ModelReference(b) else { return false }
    return first.isSame(second)
  }
}
