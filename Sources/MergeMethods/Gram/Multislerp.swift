import JSON
import LinearAlgebra
import Platform

// Multi-SLERP: w = (sum_i b_i n_i) * mu / |mu|, mu = sum_i b_i x_i / n_i: the weighted mean direction, with the weighted mean length.
//
// x_i: the models, or with a base their differences from it, the result then being added to the base; n_i = |x_i|; b_i: the
// weights, divided by their sum. mergekit writes it as a step in the tangent space at mu / |mu|: map the directions to it, take
// their mean there, map back. But the tangent parts u_i - <u_i, m> m of the directions have the weighted mean 0, m being that of
// the directions themselves, so the step stays where it is, and what is above is left.
// |mu| < eps, or all x_i zero: there is no mean direction, and w = sum_i b_i x_i.
// Inputs: K >= 1 models, and a base or none; any shape; K = 1 gives the model. A zero vector counts in the mean length only.
// Sweeps: Gram, Combine. Traffic: (2 (K + 1) + 1) * size bytes per element.
// compat mergekit: eps is added to the norms, which shrinks tensors whose norm is not large against it; without a mean direction
// more than two models are refused.
// Source: mergekit `multislerp`; Goddard, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea.

/// Weighted mean direction on the sphere, with the weighted mean length.
struct Multislerp: MergeMethod {
  static let schema = MethodSchema(
    name: "multislerp", title: "Multi-SLERP",
    summary: "The weighted mean direction of the models, or of their task vectors, with their weighted mean length.",
    family: "gram", citation: "Goddard, Multi-SLERP, goddard.blog 2025; mergekit (arcee-ai/mergekit)", base: .optional,
    parameters: [
      .weight("Weight of the model."),
      ParameterSchema(
        "normalize_weights", .boolean, default: true, summary: "Divide the weights by their sum.", source: "true: mergekit."),
      ParameterSchema(
        "eps", .number, default: 1e-8, minimum: 0,
        summary: "A mean of unit vectors shorter than this has no direction.", source: "1e-8: mergekit."),
      .compatMergekit("mergekit: eps is added to every norm as well; no mean direction of three models or more is an error."),
    ],
    reports: ["weights", "coefficients", "mean_length", "linear"])

  private let parameters: Parameters
  private let eps: Double

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    eps = parameters.number("eps")
  }

  private func weights(_ count: Int) throws(Failure) -> [Double] {
    let weights = try parameters.perModel("weight", count: count)
    guard parameters.boolean("normalize_weights") else { return weights }
    let total = weights.reduce(0, +)
    guard total.magnitude > 1e-12 else {
      throw Failure(
        .parameter,
        "the weights of multislerp sum to 0 and cannot be normalised: change them, or set normalize_weights: false")
    }
    return weights.map { $0 / total }
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let weights = try weights(tensor.modelCount)
    if tensor.modelCount == 1 { return .copy(input: tensor.firstModel, Decision([.init(key: "weights", value: [1])])) }
    let hasBase = tensor.hasBase
    let finish = { (gram: GramMatrix) throws(Failure) -> Step in
      let span = hasBase ? VectorSpan(differences: gram) : VectorSpan(crossTerms: gram)
      return try self.finish(span, weights, tensor)
    }
    if hasBase { return .sweep(.gramOfDifferences(from: 0, inputs: tensor.inputCount, next: finish)) }
    return .sweep(.gramWithCrossTerms(about: 0, inputs: tensor.inputCount, next: finish))
  }

  private func finish(_ span: VectorSpan, _ weights: [Double], _ tensor: TensorContext) throws(Failure) -> Step {
    let norms = (0..<span.count).map { span.norm(span.vector($0)) }
    let total = parameters.boolean("normalize_weights") ? 1 : weights.reduce(0, +)
    let isMergekit = parameters.isMergekit
    let inverses = norms.map { norm in isMergekit ? 1 / (norm + eps) : norm > 0 ? 1 / norm : 0 }
    let shares = zip(weights, inverses).map { $0 * $1 }
    let length = span.norm(span.combination(shares))
    let isZero = norms.allSatisfy { $0 == 0 }
    let hasDirection = length >= eps && length > 0 && !isZero
    if isMergekit, !hasDirection, span.count > 2 {
      throw Failure(
        .method,
        "the unit vectors of '\(tensor.name)' cancel, so multislerp has no mean direction: change the weights, or leave compat out"
      )
    }
    let meanNorm = zip(weights, norms).reduce(0.0) { $0 + $1.0 * $1.1 }
    // Where all directions are one, so is the line: to rounding, and bit for bit for equal models.
    let isParallel = !isMergekit && total > 0 && length >= total * (1 - 0x1p-50)
    let isLinear = !hasDirection || isParallel
    let coefficients = isLinear ? weights : shares.map { $0 * meanNorm / length }
    var decision = Decision([
      .init(key: "weights", value: .array(weights.map { .double($0) })),
      .init(key: "coefficients", value: .array(coefficients.map { .double($0) })),
      .init(key: "mean_length", value: .double(length)), .init(key: "linear", value: .bool(!hasDirection)),
    ])
    if !hasDirection, !isZero {
      decision.warnings.append("the unit vectors cancel, and multislerp has no mean direction: their weighted sum is taken")
    }
    if tensor.hasBase {
      return AffineCombination(lambdas: coefficients, output: .weights, sum: isLinear ? total : nil).step(decision)
    }
    return AffineCombination(coefficients, total: isLinear ? total : span.total(coefficients)).step(decision)
  }
}
