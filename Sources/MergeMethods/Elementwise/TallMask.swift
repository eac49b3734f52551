import Platform
import TensorKernels

// TALL masks: one merged model and, per model, the bits that say where it follows the merged one. A model comes back as
//
//   w_0 + m_i * (w_merged - w_0) / lambda          (stockpot reconstruct)
//
// so K models cost two checkpoints and K bits per element. On disk: OUT/merged, and OUT/masks/<model> with a U8 tensor
// [(n + 7) / 8] per merged tensor, bit j of byte b for element 8 b + j (docs/masks.md).
// Formula, sweeps and source: MultiTaskVector.swift.

/// The multi-task vector, and a mask per model that finds its own part in it.
struct TallMask: MergeMethod {
  static let collection = "masks"
  static let artifactFormat = "tall_mask"

  static let schema = MethodSchema(
    name: "tall_mask", title: "TALL masks",
    summary: "Adds all task vectors up and writes, per model, the bits that tell its part apart: compression, not one model.",
    family: "elementwise",
    citation: "Wang et al., Localizing Task Information for Improved Model Merging and Compression, arXiv:2405.07813",
    base: .required, parameters: MultiTaskVector.parameters(ties: false), reports: MultiTaskVector.reports,
    makesTaskVector: true)

  private let vector: MultiTaskVector
  var scope: Scope { vector.scope }

  init(_ parameters: Parameters) throws(Failure) { vector = MultiTaskVector(parameters) }

  func artifacts(_ tensor: TensorContext, dtype: DType) -> [Artifact] {
    (0..<tensor.modelCount).map {
      Artifact(collection: Self.collection, model: $0, dtype: .u8, shape: [(tensor.count + 7) / 8])
    }
  }

  func scratchBytes(_ tensor: TensorContext) -> Int { vector.scratchBytes(tensor) }
  func begin(_ tensor: TensorContext) throws(Failure) -> Step { try vector.begin(tensor, consensus: nil) }
}
