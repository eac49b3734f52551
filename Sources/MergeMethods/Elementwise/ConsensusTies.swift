import Platform
import TensorKernels

// Consensus merging over TIES: w = w_0 + lambda * tau where at least k models' TALL masks are on, else w_0.
//
// k = 0 is plain merging, k = 1 leaves out what serves no model, k above K gives the base. Formula, sweeps and source:
// MultiTaskVector.swift.

/// The multi-task vector of TIES, kept where enough models want it.
struct ConsensusTies: MergeMethod {
  static let schema = MethodSchema(
    name: "consensus_ties", title: "Consensus TIES",
    summary: "The multi-task vector of TIES, kept where the TALL masks of at least k models want it.",
    family: "elementwise",
    citation: "Wang et al., Localizing Task Information for Improved Model Merging and Compression, arXiv:2405.07813",
    base: .required,
    parameters: [
      ParameterSchema(
        "k", .integer, default: 2, minimum: 0, summary: "How many models' masks must be on.",
        source: "2: tall_masks (prun_thre_k).")
    ] + MultiTaskVector.parameters(ties: true), reports: MultiTaskVector.reports, makesTaskVector: true)

  private let vector: MultiTaskVector
  private let consensus: Int
  var scope: Scope { vector.scope }

  init(_ parameters: Parameters) throws(Failure) {
    vector = MultiTaskVector(parameters)
    consensus = parameters.integer("k")
  }

  func scratchBytes(_ tensor: TensorContext) -> Int { vector.scratchBytes(tensor) }
  func begin(_ tensor: TensorContext) throws(Failure) -> Step { try vector.begin(tensor, consensus: consensus) }
}
