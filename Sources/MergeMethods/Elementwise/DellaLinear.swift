import JSON
import Platform
import TensorKernels

// DELLA with a linear merge: w = w_0 + lambda * sum_i b_i r_i (m_i * d_i), m_i by rank within rows (DellaStages.swift).
//
// r_i: the rescale. normalize divides by sum b_i (a sum below 1e-8 counts as 1). Inputs: base and K >= 1 models, any shape.
// Source: Deep et al., arXiv:2406.11617; mergekit `della_linear`.

/// Drop by rank within each row, rescale, then the weighted sum.
struct DellaLinear: MergeMethod {
  static let schema = MethodSchema(
    name: "della_linear", title: "DELLA, linear",
    summary: "Drops elements at random, small ones of each row more often, rescales what is left, and adds up.",
    family: "elementwise", citation: "Deep et al., DELLA-Merging, arXiv:2406.11617", base: .required,
    parameters: [
      .weight("Weight of the model's task vector."),
      .density("Mean probability with which an element is kept.", source: "1.0: mergekit."), .dellaEpsilon,
      .rescale(default: "l1"), .normalize(default: false, "Divide by the sum of the weights (a sum below 1e-8 counts as 1)."),
      .lambda("Factor of the merged task vector."), .randomSeed, .int8Mask, .dellaCompat,
    ],
    reports: ["kept", "conflicts", "rescale"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    DellaStages.scratchBytes(tensor, rescale: parameters.choice("rescale", as: TaskVectorSettings.Rescale.self))
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = try DellaStages(
      parameters, tensor, rescale: parameters.choice("rescale", as: TaskVectorSettings.Rescale.self))
    var lambda = parameters.number("lambda")
    if parameters.boolean("normalize"), stages.sumOfWeights.magnitude >= 1e-8 { lambda /= stages.sumOfWeights }
    let scale = lambda
    return stages.begin { stages.write($0, elect: .none, zeroSign: 1, merge: .sum, lambda: scale) }
  }
}
