import JSON
import Platform
import TensorKernels

// RAM+ (tensor-local): RAM, the changes of model i alone times l_i = 1 + r * min(alpha, shared_i / unique_i).
//
// unique_i, shared_i: in how many elements of the tensor model i is the only one to differ from the base by more than epsilon, and
// in how many others do, too; a model with nothing of its own has no use for l_i. Formula: ReinforcedMerge.swift.
// Inputs: base and K >= 1 models, any shape. Two sweeps: one counts, one writes. Traffic: (2 (K + 1) + 1) * size bytes per element.
// Source: Reinforced Agent Merging, arXiv:2601.13572; mergekit `ramplus_tl`.

/// RAM, with what is a model's alone amplified where it shares much with others.
struct RamplusTl: MergeMethod {
  static let schema = MethodSchema(
    name: "ramplus_tl", title: "RAM+ (tensor-local)",
    summary: "RAM, with each model's own changes amplified by how much of the tensor it shares with others.",
    family: "elementwise", citation: "Reinforced Agent Merging, arXiv:2601.13572", base: .required,
    parameters: [
      .activity,
      ParameterSchema(
        "r", .number, default: 0.1, minimum: 0, summary: "How much the share counts.", source: "0.1: mergekit."),
      ParameterSchema(
        "alpha", .number, default: 0.2, minimum: 0, summary: "Largest ratio of shared to own changes that counts.",
        source: "0.2: mergekit."),
      .lambda("Factor of the merged task vector."),
    ],
    reports: ["unique", "shared", "factors"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = ReinforcedStages(parameters, tensor)
    let (r, alpha) = (parameters.number("r"), parameters.number("alpha"))
    return stages.count { unique, shared in
      let factors = zip(unique, shared).map { own, others in 1 + r * (own > 0 ? min(others / own, alpha) : 0) }
      return stages.write(factors, [.init(key: "factors", value: .array(factors.map { .double($0) }))])
    }
  }
}
