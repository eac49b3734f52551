import JSON
import LinearAlgebra
import Platform

// Iso-C: w = w_0 + lambda * mean(sigma) * polar(sum_i delta_i), delta_i = weight_i (w_i - w_0)
//
// Inputs: base and N >= 1 models. Matrices [m, n], and with reshape_conv tensors of rank > 2; all others, and exclude_keys, take the
// mean of the delta_i. mean(sigma) is over r = min(m, n) singular values of the sum, zeros counted, so the merged task vector has
// the same nuclear norm in every direction. The polar factor needs no singular value decomposition (PolarFactor.swift).
// null_space: directions with sigma_j <= tolerance * sigma_1 carry no information. drop leaves them out; complete gives them the mean
// as well, in whatever directions LAPACK chooses, as the public code does.
// Arithmetic: binary64; one rounding to the output's type. All task vectors zero, or a sum of zero: the base, bit for bit.
// NaN rule: an input that is not finite is refused, or the tensor copied from the base (on_non_finite).
// Sweeps: 2; 2 (N + 1) + 2 reads and writes of size bytes per element. Memory: the sum in binary64 and PolarFactor's workspace.
// Source: Marczak et al., "No task left behind: isotropic model merging with common and task-specific subspaces", arXiv:2502.04959.

/// Isotropic merging in the common subspace.
struct IsoC: MergeMethod {
  static let nullSpaceParameters: [ParameterSchema] = [
    ParameterSchema(
      "null_space", .choice(["drop", "complete"]), default: "drop",
      summary: "What becomes of directions whose singular value is zero: left out, or given the mean singular value, which "
        + "directions being up to LAPACK.", source: "complete: iso-merging, FusionBench, AwRank."),
    ParameterSchema(
      "tolerance", .number, default: 1e-6, minimum: 0, maximum: 1,
      summary: "Singular values up to this fraction of the largest count as zero under null_space: drop."),
  ]

  static let schema = MethodSchema(
    name: "iso_c", title: "Iso-C",
    summary: "The sum of the task matrices with all its singular values replaced by their mean.", family: "spectral",
    citation: "Marczak et al., No task left behind: isotropic model merging, arXiv:2502.04959", base: .required,
    parameters: SpectralOptions.parameters + nullSpaceParameters,
    reports: ["rank", "singular_value_sum", "condition", "excluded"], makesTaskVector: true)

  private let options: SpectralOptions
  private let isotropy: Isotropy

  init(_ parameters: Parameters) throws(Failure) {
    options = SpectralOptions(parameters)
    isotropy = Isotropy(parameters)
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    guard let (m, n) = options.matrix(tensor) else { return 0 }
    return DenseMatrix.bytes(rows: m, columns: n) + PolarFactor.workspaceBytes(rows: m, columns: n)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    guard let (m, n) = options.matrix(tensor) else { return try options.plain(tensor) }
    let matrices = StoredTaskMatrices(rows: m, columns: n, weights: try options.weights(tensor))
    return try matrices.sum { (sum) throws(Failure) in
      guard let sum else { return options.write(nil, tensor, Decision([.init(key: "rank", value: 0)])) }
      return options.write(sum, tensor, Decision(try isotropy.equalize(sum, tensor)))
    }
  }
}

/// All singular values replaced by their mean.
struct Isotropy {
  let nullSpace: PolarFactor.NullSpace
  let tolerance: Double

  init(nullSpace: PolarFactor.NullSpace, tolerance: Double) {
    self.nullSpace = nullSpace
    self.tolerance = tolerance
  }

  init(_ parameters: Parameters) {
    self.init(
      nullSpace: parameters.choice("null_space", as: PolarFactor.NullSpace.self), tolerance: parameters.number("tolerance"))
  }

  /// Replace a matrix by mean(sigma) times its polar factor.
  func equalize(_ matrix: DenseMatrix, _ tensor: TensorContext) throws(Failure) -> [JSON.Member] {
    let polar = try PolarFactor.replace(matrix.view, nullSpace, tolerance, tensor)
    matrix.view.scale(by: polar.sum / Double(matrix.view.side))
    return [
      .init(key: "rank", value: .int(polar.rank)), .init(key: "singular_value_sum", value: .double(polar.sum)),
      .init(key: "condition", value: .double(polar.condition)),
    ]
  }
}
