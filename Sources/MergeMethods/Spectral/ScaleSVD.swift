import JSON
import LinearAlgebra
import Platform
import TensorKernels

// Scale-SVD: every task matrix is replaced by a low-rank and a sparse part, and these are merged by another method (`then`).
//
//   delta_i = weight_i (w_i - w_0) ~ U_i V_i + S_i (LowRankPlusSparse.swift);  w = w_0 + lambda * then(U_i V_i + S_i)
//
// Inputs: base and N >= 1 models. Matrices [m, n], and with reshape_conv tensors of rank > 2; all others, and exclude_keys, are not
// decomposed and go to `then` as they are: sum, ties, and for all others the mean.
// Activation statistics d [n], one per model, weight the columns: a model's own (TensorContext.statistics, or the parameter), ones
// where it has none, and with a warning where its length is not n.
// compat awrank: iso_c, iso_cts and tsvm complete null spaces as the public code does.
// Arithmetic, rounding, NaN rule and zeros: as in IsoC.swift.
// Sweeps: N + 1, each over all inputs. Two models are decomposed at once where there are workers for both. Memory: their matrices, their
// parts and LowRankPlusSparse's workspace, the merged matrix, and what `then` needs; iso_cts and ties hold all N processed matrices.
// Source: seed document "Scale-SVD" (ArkNightmaster/AwRank-Merging); Zhang and Papyan, OATS, arXiv:2409.13652.

/// Low rank plus sparse task matrices, merged.
struct ScaleSVD: MergeMethod {
  private enum Then: String { case sum, mean, isoC = "iso_c", isoCTS = "iso_cts", tsvm, ties, extract }

  static let schema = MethodSchema(
    name: "scale_svd", title: "Scale-SVD",
    summary:
      "Replaces every task matrix by the sum of a low-rank and a sparse matrix, weighted by activation statistics, and merges "
      + "these.",
    family: "spectral",
    citation: "ArkNightmaster, AwRank-Merging; Zhang and Papyan, OATS: outlier-aware pruning, arXiv:2409.13652",
    base: .required,
    parameters: SpectralOptions.parameters + compression + [
      ParameterSchema(
        "then", .choice(["sum", "mean", "iso_c", "iso_cts", "tsvm", "ties", "extract"]), default: "sum",
        summary:
          "How the processed task matrices are merged. extract: they are not; each model's parts against the base, here the "
          + "merged model, are written as a correction.",
        source: "iso_c, iso_cts, tsvm: AwRank's use_scale_svd. sum: the seed's list of processed task vectors, added up."),
      IsoCTS.fraction,
    ] + IsoC.nullSpaceParameters + [
      Tsvm.variantParameter,
      ParameterSchema(
        "density", .number, default: 0.2, minimum: 0, maximum: 1, summary: "then: ties: the share of elements that stays."),
      ParameterSchema(
        "compat", .choice(["none", "awrank"]), default: "none",
        summary: "awrank: complete null spaces and keep zero triplets in iso_c, iso_cts and tsvm, as the public code does.",
        source: "awrank: AwRank-Merging 20e9926."),
    ],
    reports: [
      "low_rank", "dropped", "stored", "residuals", "kept", "rank", "common_rank", "task_rank", "singular_value_sum",
      "condition", "residual",
      "excluded",
    ], makesTaskVector: true)

  private let options: SpectralOptions
  private let compression: LowRankPlusSparse.Options
  private let then: Then
  private let isotropy: Isotropy
  private let subspaces: CommonAndTaskSubspaces
  private let vectors: TaskSingularVectors
  private let density: Double
  let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) {
    options = SpectralOptions(parameters)
    compression = try Self.compression(parameters)
    then = parameters.choice("then", as: Then.self)
    let isCompatible = parameters.choice("compat") == "awrank"
    let given = Isotropy(parameters)
    isotropy = Isotropy(nullSpace: isCompatible ? .complete : given.nullSpace, tolerance: given.tolerance)
    subspaces = CommonAndTaskSubspaces(fraction: parameters.number("common_space_fraction"), isotropy: isotropy)
    vectors = TaskSingularVectors(isLossless: parameters.choice("variant") == "lossless", isCompatible: isCompatible)
    density = parameters.number("density")
    self.parameters = parameters
    guard then != .extract || options.output == .weights else {
      throw Failure(.parameter, "then: extract writes corrections, no task vector: drop output: task_vector")
    }
  }

  // MARK: - Corrections

  static let artifactFormat = "correction"
  private var extraction: CorrectionExtraction { CorrectionExtraction(options: options, compression: compression) }
  var makesMerged: Bool { then != .extract }

  func artifacts(_ tensor: TensorContext, dtype: DType) -> [Artifact] {
    then == .extract ? extraction.artifacts(tensor, dtype: dtype) : []
  }

  // MARK: - Memory

  func scratchBytes(_ tensor: TensorContext) -> Int {
    guard let (m, n) = options.matrix(tensor) else {
      if then == .extract { return 2 * tensor.count * 8 }
      return then == .ties ? (tensor.modelCount + 1) * tensor.count * 8 + TiesInMemory.scratchBytes(count: tensor.count) : 0
    }
    let matrix = DenseMatrix.bytes(rows: m, columns: n)
    // While two models are decomposed: their matrices, the next one's, the processed one, and the sum.
    let decomposing = 5 * matrix + 2 * LowRankPlusSparse.workspaceBytes(rows: m, columns: n, compression)
    switch then {
    case .sum, .mean: return decomposing
    case .extract: return decomposing + 2 * m * n
    case .isoC: return max(decomposing, 2 * matrix + PolarFactor.workspaceBytes(rows: m, columns: n))
    case .isoCTS:
      return tensor.modelCount * matrix + max(decomposing, 2 * matrix + subspaces.scratchBytes(rows: m, columns: n))
    case .tsvm: return decomposing + matrix + vectors.scratchBytes(rows: m, columns: n, models: tensor.modelCount)
    case .ties: return tensor.modelCount * matrix + max(decomposing, TiesInMemory.scratchBytes(count: m * n))
    }
  }

  // MARK: - Steps

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    guard let (m, n) = options.matrix(tensor) else { return try plain(tensor) }
    let (statistics, warnings) = try statistics(tensor, columns: n)
    let stored = StoredTaskMatrices(rows: m, columns: n, weights: try options.weights(tensor))
    let matrices = CompressedTaskMatrices(stored, statistics, compression, tensor, holds: then == .isoCTS)
    if then == .extract { return try extraction.begin(tensor, matrices) }
    let rank = compression.rank(rows: m, columns: n)
    return try merge(matrices, tensor) { merged, decision in
      var decision = decision
      decision.warnings = warnings + decision.warnings
      decision.entries =
        [
          .init(key: "low_rank", value: .int(rank)), .init(key: "dropped", value: .double(dropped(columns: n))),
          .init(key: "residuals", value: list(matrices.residuals)),
        ] + decision.entries
      return options.write(merged, tensor, decision)
    }
  }

  private func merge(
    _ matrices: CompressedTaskMatrices, _ tensor: TensorContext, finish: @escaping (DenseMatrix?, Decision) -> Step
  ) throws(Failure) -> Step {
    switch then {
    case .sum, .mean:
      return try matrices.sum { (sum) throws(Failure) in
        if then == .mean { sum?.view.scale(by: 1 / Double(matrices.modelCount)) }
        return finish(sum, Decision())
      }
    case .isoC:
      return try matrices.sum { (sum) throws(Failure) in
        guard let sum else { return finish(nil, Decision([.init(key: "rank", value: 0)])) }
        return finish(sum, Decision(try isotropy.equalize(sum, tensor)))
      }
    case .extract: preconditionFailure("corrections are not merged")
    case .isoCTS: return try subspaces.merge(matrices, tensor) { finish($0, Decision($1)) }
    case .tsvm: return try vectors.merge(matrices, tensor, finish: finish)
    case .ties:
      return try matrices.all { (all) throws(Failure) in
        let kept = TiesInMemory.merge(all, density: density)
        return finish(all[0], Decision([.init(key: "kept", value: .double(kept))]))
      }
    }
  }

  /// A tensor that is not decomposed.
  private func plain(_ tensor: TensorContext) throws(Failure) -> Step {
    if then == .extract { return try extraction.begin(tensor, nil) }
    guard then == .ties, tensor.count > 0 else { return try options.plain(tensor, mean: then != .sum) }
    let vectors = StoredTaskMatrices(rows: 1, columns: tensor.count, weights: try options.weights(tensor))
    return try gather([], vectors) { (all) throws(Failure) in
      var entries: [JSON.Member] = [.init(key: "kept", value: .double(TiesInMemory.merge(all, density: density)))]
      if options.isExcluded(tensor) { entries.append(.init(key: "excluded", value: true)) }
      return options.write(all[0], tensor, Decision(entries))
    }
  }

  private func gather(
    _ done: [DenseMatrix], _ vectors: StoredTaskMatrices, _ next: @escaping ([DenseMatrix]) throws(Failure) -> Step
  ) throws(Failure) -> Step {
    guard done.count < vectors.modelCount else { return try next(done) }
    return try vectors.model(done.count) { (vector) throws(Failure) in
      try gather(done + [vector ?? DenseMatrix(rows: 1, columns: vectors.columns)], vectors, next)
    }
  }

  /// The fraction of the sparse part that the mask takes away.
  private func dropped(columns: Int) -> Double {
    guard case .nOfM(let keep, let group) = compression.mask else { return compression.dropped }
    let kept = (0..<columns).count { $0 % group < keep }
    return 1 - Double(kept) / Double(columns)
  }
}
