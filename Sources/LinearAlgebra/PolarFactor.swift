// Polar factor: Q = U Vᵀ of the thin singular value decomposition A = U diag(sigma) Vᵀ, in the place of A.
//
// Shapes: A [m, n] row-major, r = min(m, n). Arithmetic: binary64.
// Null space: `drop` gives the partial isometry of the sigma_j > tolerance * sigma_1 (the others are zeros of Q); `complete` keeps all
// r directions, those of zero singular values as LAPACK happens to choose them.
// Route: with the smaller Gram matrix G (AᵀA or A Aᵀ), Q = A G^(-1/2) or G^(-1/2) A, from the eigenvalues of G. Squaring costs
// digits: Q is wrong by about eps (sigma_1 / sigma_k)², sigma_k the smallest that is kept. That ratio is known from the eigenvalues;
// where the error would be above `precision`, where a sigma_j is too near to the tolerance to be told from it, and for small
// matrices, the singular value decomposition (dgesdd) is taken.
// From a `precision` of 1e-5 on, large matrices of full rank go another way first, by iteration (PolarIteration.swift).
// NaN: refused (nil), the matrix untouched. A zero matrix gives zeros (drop), rank 0.
// Cost: 3 m n r + 9 r³ by the Gram matrix; 20 m n r by the decomposition.
// Source: Higham, Functions of Matrices, 2008, chapter 8.

public enum PolarFactor {
  public enum NullSpace: String, Sendable { case drop, complete }

  public struct Result {
    /// Directions of Q.
    public let rank: Int
    /// sigma_1.
    public let largest: Double
    /// Sum of the singular values whose directions Q has.
    public let sum: Double
    /// sigma_1 over the smallest of those; 1 for rank 0, infinite where `complete` filled a null space.
    public let condition: Double
  }

  enum Route { case automatic, iteration, gram, decomposition }
  /// A `precision` from which on binary32 may be used.
  public static let single = 1e-5

  /// - Parameters:
  ///   - a: replaced by its polar factor.
  ///   - tolerance: relative to sigma_1; for `drop`.
  ///   - precision: the relative error that the faster route may have.
  /// - Returns: nil when an element is not finite (`a` is untouched) or LAPACK does not converge (`a` is undefined).
  public static func replace(
    _ a: MatrixView, nullSpace: NullSpace = .drop, tolerance: Double = 1e-6, precision: Double = 1e-6
  ) -> Result? {
    replace(a, nullSpace, tolerance, precision, route: .automatic)
  }

  static func replace(
    _ a: MatrixView, _ nullSpace: NullSpace, _ tolerance: Double, _ precision: Double, route: Route
  ) -> Result? {
    guard a.isAddressable, let peak = a.peak else { return nil }
    if peak == 0, nullSpace == .drop { return Result(rank: 0, largest: 0, sum: 0, condition: 1) }
    if route == .iteration || (route == .automatic && precision >= single), GramRange.contains(peak),
      let result = PolarIteration.replace(a, tolerance: tolerance, peak: peak)
    {
      return result
    }
    if route == .iteration { return nil }
    if route == .gram || (route == .automatic && a.side > TruncatedSVD.smallSide), GramRange.contains(peak),
      let result = byGram(a, nullSpace, tolerance, precision)
    {
      return result
    }
    if route == .gram { return nil }
    return byDecomposition(a, nullSpace, tolerance)
  }

  // MARK: - Gram matrix

  private static func byGram(_ a: MatrixView, _ nullSpace: NullSpace, _ tolerance: Double, _ precision: Double) -> Result? {
    let isTall = a.rows > a.columns
    let gram = DenseMatrix(rows: a.side, columns: a.side)
    gram.view.gram(of: a, columns: isTall)
    guard let values = SymmetricSpectrum.decompose(gram.view), values[0] > 0 else { return nil }
    let cutoff = tolerance * tolerance * values[0]
    let rank = nullSpace == .complete ? a.side : values.firstIndex { $0 <= cutoff } ?? a.side
    let smallest = values[rank - 1]
    guard smallest > 0, 0x1p-52 * values[0] / smallest <= precision else { return nil }
    // An eigenvalue is known to a few eps times the largest.
    let noise = 32 * 0x1p-52 * values[0]
    if nullSpace == .drop, values.contains(where: { ($0 - cutoff).magnitude <= noise }) { return nil }
    let root = inverseSquareRoot(values, gram.view, rank: rank)
    multiply(a, by: root.view, fromLeft: !isTall)
    var sum = 0.0
    for value in values[..<rank] { sum += value.squareRoot() }
    return Result(
      rank: rank, largest: values[0].squareRoot(), sum: sum, condition: (values[0] / smallest).squareRoot())
  }

  /// The pseudo-inverse square root of a matrix from the `rank` largest of its eigenvalues and eigenvectors (rows, destroyed).
  static func inverseSquareRoot(_ values: [Double], _ vectors: MatrixView, rank: Int) -> DenseMatrix {
    let kept = vectors.rows(0..<rank)
    for j in 0..<rank { kept.rows(j..<j + 1).scale(by: 1 / values[j].squareRoot().squareRoot()) }
    let root = DenseMatrix(rows: vectors.columns, columns: vectors.columns)
    root.view.gram(of: kept, columns: true)
    return root
  }

  /// a = a * factor, or factor * a, panel by panel, so that only a panel is copied.
  private static func multiply(_ a: MatrixView, by factor: MatrixView, fromLeft: Bool) {
    let side = factor.rows
    let scratch = DenseMatrix(rows: side, columns: panelWidth)
    let panel = scratch.values
    defer { withExtendedLifetime(scratch) {} }
    let long = fromLeft ? a.columns : a.rows
    for start in stride(from: 0, to: long, by: panelWidth) {
      let width = min(panelWidth, long - start)
      if fromLeft {
        for i in 0..<side { (panel + i * width).update(from: a.row(i) + start, count: width) }
        StridedProduct(
          rows: side, columns: width, inner: side, a: factor.values, aStride: side, b: panel, bStride: width,
          c: a.values + start, cStride: a.columns
        ).run()
      } else {
        panel.update(from: a.row(start), count: width * side)
        StridedProduct(
          rows: width, columns: side, inner: side, a: panel, aStride: side, b: factor.values, bStride: side,
          c: a.row(start), cStride: side
        ).run()
      }
    }
  }

  private static let panelWidth = 512

  // MARK: - Singular value decomposition

  private static func byDecomposition(_ a: MatrixView, _ nullSpace: NullSpace, _ tolerance: Double) -> Result? {
    guard let all = SingularValues.decompose(a) else { return nil }
    let cutoff = tolerance * all.sigma[0]
    let rank = nullSpace == .complete ? a.side : all.sigma.firstIndex { $0 <= cutoff } ?? a.side
    a.product(all.left.rows(0..<rank), all.right.rows(0..<rank), firstTransposed: true)
    let smallest = rank > 0 ? all.sigma[rank - 1] : 1
    return Result(
      rank: rank, largest: all.sigma[0], sum: all.sigma[..<rank].reduce(0, +),
      condition: rank > 0 ? all.sigma[0] / smallest : 1)
  }

  /// Bytes that `replace` allocates at most.
  public static func workspaceBytes(rows: Int, columns: Int) -> Int {
    let r = min(rows, columns)
    let gram = (2 * r * r + r * panelWidth) * 8 + SymmetricSpectrum.workspaceBytes(size: r)
    return max(
      gram, SingularValues.workspaceBytes(rows: rows, columns: columns),
      PolarIteration.workspaceBytes(rows: rows, columns: columns))
  }
}
