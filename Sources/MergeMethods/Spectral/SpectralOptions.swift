import JSON
import Platform

/// What all spectral methods share: their common parameters, and which tensors are matrices.
struct SpectralOptions {
  static let parameters: [ParameterSchema] = [
    .weight("Scales the model's task vector before anything else. FusionBench's list of alphas."),
    .lambda("Factor of the merged task vector. The public tools' alpha, tuned over 0.1 to 3."),
    ParameterSchema(
      "exclude_keys", .strings, default: [],
      summary: "Names or globs of matrices that are not decomposed, but merged as all other tensors are.",
      source: "[]: FusionBench. [\"*text_projection*\"]: iso-merging, task_singular_vectors, AwRank."),
    ParameterSchema(
      "reshape_conv", .boolean, default: false,
      summary: "Treat a tensor of more than two dimensions as a matrix of shape[0] rows.", source: "false: all public tools."),
  ]

  let lambda: Double
  let output: OutputKind
  private let excluded: [Glob]
  private let reshapeConv: Bool
  private let parameters: Parameters

  init(_ parameters: Parameters) {
    lambda = parameters.number("lambda")
    output = parameters.choice("output", as: OutputKind.self)
    excluded = parameters.strings("exclude_keys").map { Glob($0) }
    reshapeConv = parameters.boolean("reshape_conv")
    self.parameters = parameters
  }

  func weights(_ tensor: TensorContext) throws(Failure) -> [Double] {
    try parameters.perModel("weight", count: tensor.modelCount)
  }

  func isExcluded(_ tensor: TensorContext) -> Bool { excluded.contains { $0.matches(tensor.name) } }

  /// Rows and columns of a tensor that is to be decomposed; nil: it is merged without.
  func matrix(_ tensor: TensorContext) -> (rows: Int, columns: Int)? {
    guard tensor.shape.count == 2 || (reshapeConv && tensor.shape.count > 2), tensor.count > 0, !isExcluded(tensor) else {
      return nil
    }
    return (tensor.shape[0], tensor.count / tensor.shape[0])
  }

  /// lambda times the sum, or the mean, of the weighted task vectors.
  func plain(_ tensor: TensorContext, mean: Bool = true, _ decision: Decision = Decision()) throws(Failure) -> Step {
    let weights = try weights(tensor)
    let factor = mean ? lambda / Double(weights.count) : lambda
    var decision = decision
    if isExcluded(tensor) { decision.entries.append(.init(key: "excluded", value: true)) }
    // A weight of 1 each: the mean has coefficients whose sum is known exactly.
    let isPlainMean = mean && weights.allSatisfy { $0 == 1 }
    return AffineCombination(lambdas: weights.map { $0 * factor }, output: output, sum: isPlainMean ? lambda : nil)
      .step(decision)
  }
}
