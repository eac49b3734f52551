import JSON
import LinearAlgebra
import Platform

// TSVM: the leading singular vectors of all tasks, made orthogonal to one another.
//
//   delta_i = weight_i (w_i - w_0);  U_i, S_i, V_i: its k leading triplets, k = floor(r / N), r = min(m, n)
//   U = [U_1 .. U_N], S, V the same;  w = w_0 + lambda * polar(U) diag(S) polar(V)ᵀ
//
// Inputs: base and N >= 1 models, matrices as in IsoC.swift. N = 1 gives w_0 + lambda delta_1. N > r leaves no triplet for anyone: the
// mean of the task vectors, with a warning. variant lossless: k = r for every task.
// polar(X) is X (XᵀX)^(-1/2) with the pseudo-inverse over eigenvalues above 1e-12 times the largest; triplets with S <= 1e-12 times the
// largest S are left out. So tasks that share directions share them, where the public code has an arbitrary result: N equal task
// vectors give the top k of that task vector. The eigen variant computes polar(X) by the eigendecomposition of XᵀX: the same here.
// compat fusion_bench: k = floor(r (1 / N)) in floating point, triplets of zero kept, null spaces completed by LAPACK, and a zero
// task vector when N > r.
// Arithmetic, rounding, NaN rule and zeros: as in IsoC.swift.
// Sweeps: N + 1, each over all inputs. Two tasks are decomposed at once where there are workers for both, and both polar factors are.
// Memory: three matrices in binary64, N k triplets of both sides, and twice the workspace of TruncatedSVD.swift.
// Source: Gargiulo et al., "Task singular vectors: reducing task interference in model merging", arXiv:2412.00081.

/// Merging of task singular vectors.
struct Tsvm: MergeMethod {
  static let variantParameter = ParameterSchema(
    "variant", .choice(["standard", "eigen", "lossless"]), default: "standard",
    summary:
      "How many triplets of each task are kept: min(m, n) / N (standard, eigen), or all (lossless). standard and eigen are two "
      + "ways to compute the same result.",
    source:
      "standard, eigen (_2), lossless: task_singular_vectors. Its lossless eigen variant divides by zero, and is not offered.")

  static let schema = MethodSchema(
    name: "tsvm", title: "TSVM",
    summary: "The leading singular vectors of all task matrices, decorrelated, with the tasks' singular values.",
    family: "spectral", citation: "Gargiulo et al., Task singular vectors: reducing task interference, arXiv:2412.00081",
    base: .required,
    parameters: SpectralOptions.parameters + [
      variantParameter,
      ParameterSchema(
        "compat", .choice(["none", "fusion_bench"]), default: "none",
        summary: "Reproduce the public code where its result depends on LAPACK's choice or on rounding.",
        source: "fusion_bench: also task_singular_vectors and iso-merging."),
    ],
    reports: ["rank", "singular_value_sum", "condition", "residual", "excluded"], makesTaskVector: true)

  private let options: SpectralOptions
  private let vectors: TaskSingularVectors

  init(_ parameters: Parameters) throws(Failure) {
    options = SpectralOptions(parameters)
    vectors = TaskSingularVectors(
      isLossless: parameters.choice("variant") == "lossless", isCompatible: parameters.choice("compat") != "none")
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    guard let (m, n) = options.matrix(tensor), tensor.modelCount > 1 else { return 0 }
    return 2 * DenseMatrix.bytes(rows: m, columns: n) + vectors.scratchBytes(rows: m, columns: n, models: tensor.modelCount)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    guard let (m, n) = options.matrix(tensor) else { return try options.plain(tensor) }
    if tensor.modelCount == 1 { return try options.plain(tensor) }
    let matrices = StoredTaskMatrices(rows: m, columns: n, weights: try options.weights(tensor))
    return try vectors.merge(matrices, tensor) { options.write($0, tensor, $1) }
  }
}

/// The algorithm, on task matrices from anywhere.
struct TaskSingularVectors {
  let isLossless: Bool
  let isCompatible: Bool

  /// Triplets of each task.
  func rank(side r: Int, models: Int) -> Int {
    if isLossless { return r }
    return isCompatible ? Int(Double(r) * (1 / Double(models))) : r / models
  }

  /// Bytes beside the task matrices.
  func scratchBytes(rows: Int, columns: Int, models: Int) -> Int {
    let k = rank(side: min(rows, columns), models: models)
    // Two models at once, and both polar factors.
    return TripletStack.bytes(capacity: k * models, rows: rows, columns: columns)
      + max(
        DenseMatrix.bytes(rows: rows, columns: columns)
          + 2 * TruncatedSVD.workspaceBytes(rows: rows, columns: columns, rank: k),
        PolarFactor.workspaceBytes(rows: k * models, columns: rows)
          + PolarFactor.workspaceBytes(rows: k * models, columns: columns))
  }

  /// - Parameter finish: what to do with the merged matrix (nil: zero).
  func merge(
    _ matrices: any TaskMatrices, _ tensor: TensorContext, finish: @escaping (DenseMatrix?, Decision) -> Step
  ) throws(Failure) -> Step {
    let n = matrices.modelCount
    let k = rank(side: min(matrices.rows, matrices.columns), models: n)
    if n == 1 { return try matrices.model(0) { (matrix) throws(Failure) in finish(matrix, Decision()) } }
    if k == 0 {
      let warning = "tsvm of \(n) models has no singular vector for each of '\(tensor.name)'"
      if isCompatible {
        return finish(nil, Decision([.init(key: "rank", value: 0)], warnings: [warning + ": its task vector is 0"]))
      }
      return try matrices.sum { (sum) throws(Failure) in
        sum?.view.scale(by: 1 / Double(n))
        return finish(sum, Decision([.init(key: "rank", value: 0)], warnings: [warning + ": it is averaged"]))
      }
    }
    let stack = TripletStack(capacity: n * k, rows: matrices.rows, columns: matrices.columns)
    return try task(0, k, stack, 0, matrices, tensor, finish)
  }

  private func task(
    _ index: Int, _ rank: Int, _ stack: TripletStack, _ residual: Double, _ matrices: any TaskMatrices, _ tensor: TensorContext,
    _ finish: @escaping (DenseMatrix?, Decision) -> Step
  ) throws(Failure) -> Step {
    guard index < matrices.modelCount else { return try combine(stack, residual, matrices, tensor, finish) }
    let range = matrices.together(from: index)
    return try matrices.models(range) { (found) throws(Failure) in
      var worst = residual
      let wanted = found.compactMap {
        $0 ?? (isCompatible ? DenseMatrix(rows: matrices.rows, columns: matrices.columns) : nil)
      }
      for result in Crew.map(wanted.count, { TruncatedSVD.largest(rank, of: wanted[$0].view) }) {
        guard let result else { throw notDecomposed(tensor) }
        stack.append(result.triplets)
        worst = max(worst, result.residual)
      }
      return try task(range.upperBound, rank, stack, worst, matrices, tensor, finish)
    }
  }

  private func combine(
    _ stack: TripletStack, _ residual: Double, _ matrices: any TaskMatrices, _ tensor: TensorContext,
    _ finish: @escaping (DenseMatrix?, Decision) -> Step
  ) throws(Failure) -> Step {
    guard stack.sigma.contains(where: { $0 > 0 }) else { return finish(nil, Decision([.init(key: "rank", value: 0)])) }
    if !isCompatible { stack.drop(atMost: 1e-12) }
    // Equal task vectors leave about 1e-8 of a singular value; random ones go down to 1e-4 and are kept.
    let nullSpace: PolarFactor.NullSpace = isCompatible ? .complete : .drop
    let sides = [stack.leftRows, stack.rightRows]
    let factors = Crew.map(2) {
      PolarFactor.replace(sides[$0], nullSpace: nullSpace, tolerance: 1e-6, precision: PolarFactor.precision(tensor))
    }
    guard let left = factors[0], let right = factors[1] else { throw notDecomposed(tensor) }
    for j in 0..<stack.count { stack.rightRows.rows(j..<j + 1).scale(by: stack.sigma[j]) }
    let delta = DenseMatrix(rows: matrices.rows, columns: matrices.columns)
    delta.view.product(stack.leftRows, stack.rightRows, firstTransposed: true)
    return finish(
      delta,
      Decision([
        .init(key: "rank", value: .int(min(left.rank, right.rank))),
        .init(key: "singular_value_sum", value: .double(stack.sigma.reduce(0, +))),
        .init(key: "condition", value: .double(max(left.condition, right.condition))),
        .init(key: "residual", value: .double(residual)),
      ]))
  }
}
