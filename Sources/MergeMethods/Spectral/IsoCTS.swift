import JSON
import LinearAlgebra
import Platform

// Iso-CTS: Iso-C in the c leading directions of the sum, and n_t further directions of every task.
//
//   r = min(m, n), c_0 = floor(r f), T = N round((r - c_0) / N) but at most N floor(r / N), c = r - T, n_t = T / N
//   U_c, V_c: the c leading triplets of sum_i delta_i;  P_i = delta_i - U_c U_cᵀ delta_i;  U_i, V_i: the n_t leading triplets of P_i
//   A = [U_c, U_1 .. U_N], B the same of V;  w = w_0 + lambda * (sum of all these sigma / r) * polar(A) polar(B)ᵀ
//
// Inputs: base and N >= 1 models, matrices as in IsoC.swift; round is half to even. n_t = 0 is Iso-C. The U_i are orthogonal to U_c, so
// polar(A) = [U_c, polar([U_1 .. U_N])]. Where m <= n the decomposition of the sum also gives U_r, the rest of a basis, and P_i is
// U_r (U_rᵀ delta_i), so that only the r - c rows of U_rᵀ delta_i are decomposed. Under null_space: drop, triplets and directions up to tolerance are left out; complete keeps
// all r, and the polar factor of A is taken as a whole.
// Arithmetic, rounding, NaN rule and zeros: as in IsoC.swift.
// Sweeps: N + 2, each over all inputs. Memory: two matrices in binary64, the r triplets of both sides, and the workspace of
// TruncatedSVD.swift or PolarFactor.swift; the delta_i are read again rather than held.
// Source: Marczak et al., arXiv:2502.04959, algorithm 2.

/// Isotropic merging in common and task-specific subspaces.
struct IsoCTS: MergeMethod {
  static let fraction = ParameterSchema(
    "common_space_fraction", .number, default: 0.8, minimum: 0, maximum: 1,
    summary: "Share of the directions that is taken from the sum; the rest is divided among the tasks.",
    source: "0.8: iso-merging, FusionBench.")

  static let schema = MethodSchema(
    name: "iso_cts", title: "Iso-CTS",
    summary:
      "Leading directions of the sum of the task matrices and further ones of each task, made orthogonal, with one singular "
      + "value.",
    family: "spectral", citation: "Marczak et al., No task left behind: isotropic model merging, arXiv:2502.04959",
    base: .required, parameters: SpectralOptions.parameters + [fraction] + IsoC.nullSpaceParameters,
    reports: ["rank", "common_rank", "task_rank", "singular_value_sum", "condition", "residual", "excluded"],
    makesTaskVector: true)

  private let options: SpectralOptions
  private let subspaces: CommonAndTaskSubspaces

  init(_ parameters: Parameters) throws(Failure) {
    options = SpectralOptions(parameters)
    subspaces = CommonAndTaskSubspaces(parameters)
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    guard let (m, n) = options.matrix(tensor) else { return 0 }
    return 2 * DenseMatrix.bytes(rows: m, columns: n) + subspaces.scratchBytes(rows: m, columns: n)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    guard let (m, n) = options.matrix(tensor) else { return try options.plain(tensor) }
    let matrices = StoredTaskMatrices(rows: m, columns: n, weights: try options.weights(tensor))
    return try subspaces.merge(matrices, tensor) { options.write($0, tensor, Decision($1)) }
  }
}

/// The algorithm, on task matrices from anywhere.
struct CommonAndTaskSubspaces {
  private let fraction: Double
  private let isotropy: Isotropy

  init(fraction: Double, isotropy: Isotropy) {
    self.fraction = fraction
    self.isotropy = isotropy
  }

  init(_ parameters: Parameters) {
    self.init(fraction: parameters.number("common_space_fraction"), isotropy: Isotropy(parameters))
  }

  /// c and n_t.
  func sizes(side r: Int, models: Int) -> (common: Int, task: Int) {
    let common = Int(Double(r) * fraction)
    let wanted = Int((Double(r - common) / Double(models)).rounded(.toNearestOrEven))
    let task = min(wanted, r / models)
    return (r - task * models, task)
  }

  /// Bytes beside the task matrices.
  func scratchBytes(rows: Int, columns: Int) -> Int {
    let r = min(rows, columns)
    return TripletStack.bytes(capacity: r, rows: rows, columns: columns) + r * columns * 8 + r * r * 8
      + max(
        TruncatedSVD.workspaceBytes(rows: rows, columns: columns, rank: r), PolarFactor.workspaceBytes(rows: rows, columns: r),
        PolarFactor.workspaceBytes(rows: r, columns: columns), PolarFactor.workspaceBytes(rows: rows, columns: columns))
  }

  /// - Parameter finish: what to do with the merged matrix (nil: zero) and the decision's entries.
  func merge(
    _ matrices: any TaskMatrices, _ tensor: TensorContext, finish: @escaping (DenseMatrix?, [JSON.Member]) -> Step
  ) throws(Failure) -> Step {
    let size = sizes(side: min(matrices.rows, matrices.columns), models: matrices.modelCount)
    return try matrices.sum { (sum) throws(Failure) in
      // A sum of zero leaves nothing in common, but the tasks may still have something.
      guard size.task > 0 else {
        guard let sum else { return finish(nil, [.init(key: "rank", value: 0)]) }
        return finish(sum, try isotropy.equalize(sum, tensor) + entries(size, residual: 0))
      }
      let state = State(
        stack: TripletStack(
          capacity: size.common + size.task * matrices.modelCount, rows: matrices.rows, columns: matrices.columns),
        size: size)
      if size.common > 0 {
        if let sum {
          guard let result = TruncatedSVD.largest(size.common, of: sum.view, rest: isotropy.nullSpace == .drop) else {
            throw notDecomposed(tensor)
          }
          state.append(result)
          state.rest = result.leftRest
        } else if isotropy.nullSpace == .complete {
          let zero = DenseMatrix(rows: matrices.rows, columns: matrices.columns)
          state.append(try TruncatedSVD.largest(size.common, of: zero, tensor))
        }
      }
      state.common = state.stack.count
      return try task(0, state, matrices, tensor, finish)
    }
  }

  private final class State {
    let stack: TripletStack
    let size: (common: Int, task: Int)
    var common = 0
    var residual = 0.0
    /// Rows that complete U_c to a basis; nil: not known.
    var rest: DenseMatrix?

    init(stack: TripletStack, size: (common: Int, task: Int)) {
      self.stack = stack
      self.size = size
    }

    func append(_ triplets: SingularTriplets, residual worst: Double) {
      stack.append(triplets)
      residual = max(residual, worst)
    }

    func append(_ result: TruncatedSVD.Result) { append(result.triplets, residual: result.residual) }
  }

  /// The triplets of one task outside the common space, then of those after it.
  private func task(
    _ index: Int, _ state: State, _ matrices: any TaskMatrices, _ tensor: TensorContext,
    _ finish: @escaping (DenseMatrix?, [JSON.Member]) -> Step
  ) throws(Failure) -> Step {
    guard index < matrices.modelCount else { return try combine(state, matrices, tensor, finish) }
    return try matrices.model(index) { (matrix) throws(Failure) in
      if let matrix = matrix
        ?? (isotropy.nullSpace == .complete ? DenseMatrix(rows: matrices.rows, columns: matrices.columns) : nil)
      {
        if let rest = state.rest {
          try appendOutside(rest.view, matrix, state, tensor)
          return try task(index + 1, state, matrices, tensor, finish)
        }
        let common = state.stack.leftRows(0..<state.common)
        let shares = DenseMatrix(rows: state.common, columns: matrices.columns)
        shares.view.product(common, matrix.view)
        matrix.view.product(common, shares.view, firstTransposed: true, factor: -1, keeping: 1)
        state.append(try TruncatedSVD.largest(state.size.task, of: matrix, tensor))
      }
      return try task(index + 1, state, matrices, tensor, finish)
    }
  }

  /// The triplets of U_r U_rᵀ delta from those of the smaller U_rᵀ delta, for rows U_rᵀ that complete the common space.
  private func appendOutside(_ rest: MatrixView, _ matrix: DenseMatrix, _ state: State, _ tensor: TensorContext) throws(Failure)
  {
    let shares = DenseMatrix(rows: rest.rows, columns: matrix.columns)
    shares.view.product(rest, matrix.view)
    let result = try TruncatedSVD.largest(state.size.task, of: shares, tensor)
    let left = DenseMatrix(rows: result.triplets.sigma.count, columns: rest.columns)
    left.view.product(result.triplets.left.view, rest)
    state.append(
      SingularTriplets(left: left, sigma: result.triplets.sigma, right: result.triplets.right), residual: result.residual)
  }

  private func combine(
    _ state: State, _ matrices: any TaskMatrices, _ tensor: TensorContext,
    _ finish: @escaping (DenseMatrix?, [JSON.Member]) -> Step
  ) throws(Failure) -> Step {
    let stack = state.stack
    guard stack.sigma.contains(where: { $0 > 0 }) else { return finish(nil, [.init(key: "rank", value: 0)]) }
    var common = state.common
    if isotropy.nullSpace == .drop {
      let cutoff = isotropy.tolerance * (stack.sigma.max() ?? 0)
      common = stack.sigma[..<common].count { $0 > cutoff }
      stack.drop(atMost: isotropy.tolerance)
    }
    let sum = stack.sigma.reduce(0, +)
    // In a completed null space the task vectors need not be orthogonal to the common ones.
    let tasks = stack.leftRows((isotropy.nullSpace == .drop ? common : 0)..<stack.count)
    if tasks.rows > 0 { _ = try PolarFactor.replace(tasks, isotropy.nullSpace, isotropy.tolerance, tensor) }
    let right = try PolarFactor.replace(stack.rightRows, isotropy.nullSpace, isotropy.tolerance, tensor)
    let delta = DenseMatrix(rows: matrices.rows, columns: matrices.columns)
    let mean = sum / Double(min(matrices.rows, matrices.columns))
    delta.view.product(stack.leftRows, stack.rightRows, firstTransposed: true, factor: mean)
    return finish(
      delta,
      [
        .init(key: "rank", value: .int(right.rank)), .init(key: "singular_value_sum", value: .double(sum)),
        .init(key: "condition", value: .double(right.condition)),
      ] + entries(state.size, residual: state.residual))
  }

  private func entries(_ size: (common: Int, task: Int), residual: Double) -> [JSON.Member] {
    [
      .init(key: "common_rank", value: .int(size.common)), .init(key: "task_rank", value: .int(size.task)),
      .init(key: "residual", value: .double(residual)),
    ]
  }
}
