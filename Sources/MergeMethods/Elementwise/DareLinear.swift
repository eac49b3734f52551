import JSON
import Platform
import TensorKernels

// DARE with a linear merge: w = w_0 + lambda * sum_i b_i r_i (m_i * d_i).
//
// m_i: a random mask that keeps each element with probability density_i (Philox.swift); r_i: the rescale. normalize divides by
// sum b_i (a sum below 1e-8 counts as 1). Inputs: base and K >= 1 models, any shape. density 1 is task arithmetic.
// Sweeps: one, and one before it for the L1 ratios. Traffic of each: (K + 1) * size bytes per element.
// Source: Yu et al., "Language Models are Super Mario", arXiv:2311.03099; mergekit `dare_linear` (L1 ratio), MergeLM (1 / density).

/// Random drop and rescale of the task vectors, then their weighted sum.
struct DareLinear: MergeMethod {
  static let schema = MethodSchema(
    name: "dare_linear", title: "DARE, linear",
    summary: "Drops elements of each task vector at random, rescales what is left, and adds up.", family: "elementwise",
    citation: "Yu et al., Language Models are Super Mario, arXiv:2311.03099", base: .required,
    parameters: [
      .weight("Weight of the model's task vector."),
      .density("Probability with which an element is kept.", source: "1.0: mergekit's default."),
      .rescale(default: "l1"),
      .normalize(default: false, "Divide by the sum of the weights (a sum below 1e-8 counts as 1)."),
      .lambda("Factor of the merged task vector. FusionBench's default is 0.3."), .drop, .epsilon, .randomSeed,
      .int8Mask,
      ParameterSchema(
        "compat", .choice(["none", "mergekit"]), default: "none",
        summary: "mergekit: no L1 rescale where a sum of magnitudes is below 1e-7.", source: "mergekit."),
    ],
    reports: ["kept", "conflicts", "rescale"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: try parameters.perModel("weight", count: models))
    try parameters.setDrop(&settings)
    if parameters.choice("compat") == "mergekit" { settings.smallestSum = 1e-7 }
    return settings
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? settings(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let settings = try settings(tensor.modelCount)
    var lambda = parameters.number("lambda")
    if parameters.boolean("normalize") {
      let sum = settings.weights.reduce(0, +)
      if sum.magnitude >= 1e-8 { lambda /= sum }
    }
    let stages = TaskVectorStages(settings, tensor)
    let output = parameters.choice("output", as: OutputKind.self)
    let scale = lambda
    return try stages.begin { () throws(Failure) in stages.write(lambda: scale, output: output) }
  }
}
