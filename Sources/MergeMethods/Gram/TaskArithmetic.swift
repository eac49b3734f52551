import JSON
import Platform

// Task arithmetic: w = w_0 + lambda * sum_i b_i (w_i - w_0)
//
// Inputs: base and K >= 1 models, any shape. One sweep: Combine. With normalize the b_i are divided by their sum; a sum below
// 1e-8 counts as 1 (mergekit's rule, which keeps weights that cancel).
// Traffic: (K + 2) * size bytes per element.
// Source: Ilharco et al., "Editing models with task arithmetic", arXiv:2212.04089; mergekit `task_arithmetic`.

/// Base plus the scaled sum of the task vectors.
struct TaskArithmetic: MergeMethod {
  static let schema = MethodSchema(
    name: "task_arithmetic", title: "Task arithmetic", summary: "Base plus the scaled, weighted sum of the task vectors.",
    family: "gram", citation: "Ilharco et al., Editing models with task arithmetic, arXiv:2212.04089", base: .required,
    parameters: [
      .weight("Weight of the model's task vector."),
      .lambda("Factor of the merged task vector. FusionBench's default is 0.3."),
      ParameterSchema(
        "normalize", .boolean, default: false, summary: "Divide by the sum of the weights (a sum below 1e-8 counts as 1).",
        source: "false: mergekit, FusionBench, task vectors reference."),
      ParameterSchema(
        "density", .number, default: 1.0, minimum: 0, maximum: 1, perModel: true,
        summary: "Accepted, and changes nothing: this method trims nothing, in mergekit neither.", source: "mergekit."),
      ParameterSchema(
        "rescale", .boolean, default: false,
        summary: "Accepted, and changes nothing: there is nothing to make up for, in mergekit neither.", source: "mergekit."),
      .int8Mask,
    ],
    reports: ["coefficients"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let weights = try parameters.perModel("weight", count: tensor.modelCount)
    var scale = parameters.number("lambda")
    if parameters.boolean("normalize") {
      let sum = weights.reduce(0, +)
      if sum.magnitude >= 1e-8 { scale /= sum }
    }
    let coefficients = weights.map { $0 * scale }
    let decision = Decision([.init(key: "coefficients", value: .array(coefficients.map { .double($0) }))])
    return AffineCombination(lambdas: coefficients, output: parameters.choice("output", as: OutputKind.self)).step(decision)
  }
}
