import JSON
import Platform

// Linear: w = sum_i b_i w_i / sum_i b_i, or without the division.
//
// Inputs: K >= 1 models, any shape. One sweep: Combine (its page has types, rounding and NaN rule).
// Weights that sum to 0 cannot be normalised and are refused (mergekit divides, and gives NaN).
// Traffic: (K + 1) * size bytes per element.
// Source: Wortsman et al., "Model soups", arXiv:2203.05482; mergekit `linear`, FusionBench simple and weighted average.

/// Weighted average of the models.
struct Linear: MergeMethod {
  static let schema = MethodSchema(
    name: "linear", title: "Linear (model soup)", summary: "Weighted average of the models.", family: "gram",
    citation: "Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without "
      + "increasing inference time, arXiv:2203.05482",
    base: .donor,
    parameters: [
      .weight("Weight of the model."),
      ParameterSchema(
        "normalize", .boolean, default: true, summary: "Divide by the sum of the weights.",
        source: "true: mergekit, FusionBench, sd-mecha n_average."),
    ],
    reports: ["weights"])

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  static func scalesEqualInputs(_ parameters: Parameters) -> Bool { !parameters.boolean("normalize") }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    var weights = try parameters.perModel("weight", count: tensor.modelCount)
    var total = weights.reduce(0, +)
    if parameters.boolean("normalize") {
      guard total.magnitude > 1e-12 else {
        throw Failure(
          .parameter, "the weights of linear sum to 0 and cannot be normalised: change them, or set normalize: false")
      }
      weights = weights.map { $0 / total }
      total = 1
    }
    let decision = Decision([.init(key: "weights", value: .array(weights.map { .double($0) }))])
    return AffineCombination(weights, total: total).step(decision)
  }
}
