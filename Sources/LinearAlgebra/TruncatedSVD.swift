// Truncated singular value decomposition: the k largest sigma_j of A with u_j and v_j, A v_j = sigma_j u_j, Aᵀ u_j = sigma_j v_j.
//
// Shapes: A [m, n] row-major, kept unless the full decomposition is needed; results as in SingularValues.swift with k <= r rows.
// Route: the eigenvectors of the smaller Gram matrix are one side; the other is one product with A, normalised, whose lengths are
// the sigma_j. Squaring costs digits: sigma_j loses all of them below 1e-8 sigma_1, and the second side is orthogonal only to
// eps (sigma_1 / sigma_k)². So the result is tested: every |A v - sigma u| and |Aᵀ u - sigma v| at most 1e-9 sigma_1, and the second
// side orthonormal to 1e-8. What fails (small sigma_k / sigma_1), small matrices, and those near the ends of the range of
// binary64 go to the full decomposition.
// NaN: refused (nil). Sign: `SingularTriplets.fixSigns`. Deterministic.
// Cost: m n r + 5 r³ + 2 r² k (SymmetricSpectrum.swift) + 4 m n k, against 20 m n r of the full one; all products are shared with idle
// workers (Crew.swift).
// Source: Golub and Van Loan, Matrix Computations, 8.6; the test is that of the definition.

public enum TruncatedSVD {
  /// Below this side the full decomposition is as fast, and more accurate.
  static let smallSide = 64
  static let residualTolerance = 1e-9
  static let orthogonalityTolerance = 1e-8

  public struct Result {
    public let triplets: SingularTriplets
    /// Largest |A v - sigma u| or |Aᵀ u - sigma v| over sigma_1; 0 where the full decomposition was taken.
    public let residual: Double
    /// Was the full decomposition needed?
    public let isFull: Bool
    /// Rows that complete the left vectors to an orthonormal basis, where they were asked for and a is not tall.
    public let leftRest: DenseMatrix?
  }

  enum Route { case automatic, gram, full }

  /// The `rank` largest triplets; all r when there are fewer.
  /// - Parameters:
  ///   - a: may be destroyed.
  ///   - rest: complete the left vectors too, if a is not tall.
  /// - Returns: nil when an element is not finite or LAPACK does not converge.
  public static func largest(_ rank: Int, of a: MatrixView, rest: Bool = false) -> Result? {
    largest(rank, of: a, route: .automatic, rest: rest)
  }

  static func largest(_ rank: Int, of a: MatrixView, route: Route, rest: Bool = false) -> Result? {
    let rest = rest && a.rows <= a.columns
    let k = min(max(0, rank), a.side)
    guard k > 0 else {
      let none = SingularTriplets(
        left: DenseMatrix(rows: 0, columns: a.rows), sigma: [], right: DenseMatrix(rows: 0, columns: a.columns))
      return Result(triplets: none, residual: 0, isFull: false, leftRest: nil)
    }
    guard a.isAddressable, let peak = a.peak else { return nil }
    if route == .gram || (route == .automatic && a.side > smallSide), GramRange.contains(peak), let result = byGram(k, a, rest)
    {
      return result
    }
    if route == .gram { return nil }
    guard let all = SingularValues.decompose(a) else { return nil }
    return Result(
      triplets: k == a.side ? all : all.prefix(k), residual: 0, isFull: true,
      leftRest: rest ? copy(all.left.rows(k..<a.side)) : nil)
  }

  private static func byGram(_ k: Int, _ a: MatrixView, _ rest: Bool) -> Result? {
    let isTall = a.rows > a.columns
    let gram = DenseMatrix(rows: a.side, columns: a.side)
    gram.view.gram(of: a, columns: isTall)
    guard let values = SymmetricSpectrum.decompose(gram.view, wanted: rest ? a.side : k), values[0] > 0,
      values[k - 1] > 1e-10 * values[0]
    else { return nil }
    let first = copy(gram.rows(0..<k))
    let second = DenseMatrix(rows: k, columns: max(a.rows, a.columns))
    second.view.product(first.view, a, secondTransposed: isTall)
    var sigma = [Double](repeating: 0, count: k)
    for j in 0..<k {
      var length = norm(second.view.row(j), second.columns)
      second.rows(j..<j + 1).scale(by: 1 / length)
      // Lengths fall like the eigenvalues, but for rounding.
      if j > 0 { length = min(length, sigma[j - 1]) }
      sigma[j] = length
    }
    // One side holds by construction: the second was made with it.
    let back = DenseMatrix(rows: k, columns: a.side)
    back.view.product(second.view, a, secondTransposed: !isTall)
    var residual = 0.0
    for j in 0..<k {
      let (row, vector) = (back.view.row(j), first.view.row(j))
      for i in 0..<a.side { row[i] -= sigma[j] * vector[i] }
      residual = max(residual, norm(row, a.side) / sigma[0])
    }
    guard residual <= residualTolerance, defect(second.view) <= orthogonalityTolerance else { return nil }
    let triplets = SingularTriplets(left: isTall ? second : first, sigma: sigma, right: isTall ? first : second)
    triplets.fixSigns()
    return Result(
      triplets: triplets, residual: residual, isFull: false, leftRest: rest ? copy(gram.rows(k..<a.side)) : nil)
  }

  private static func copy(_ rows: MatrixView) -> DenseMatrix {
    let result = DenseMatrix(rows: rows.rows, columns: rows.columns)
    result.values.update(from: rows.values, count: rows.count)
    return result
  }

  /// Largest element of X Xᵀ - I.
  private static func defect(_ x: MatrixView) -> Double {
    let gram = DenseMatrix(rows: x.rows, columns: x.rows)
    gram.view.gram(of: x, columns: false)
    var defect = 0.0
    for i in 0..<x.rows {
      for j in 0..<x.rows { defect = max(defect, (gram.values[i * x.rows + j] - (i == j ? 1 : 0)).magnitude) }
    }
    return defect
  }

  private static func norm(_ x: UnsafePointer<Double>, _ count: Int) -> Double {
    var sum = 0.0
    for i in 0..<count { sum += x[i] * x[i] }
    return sum.squareRoot()
  }

  /// Bytes that `largest` allocates at most, its result included.
  public static func workspaceBytes(rows: Int, columns: Int, rank: Int) -> Int {
    let (r, k) = (min(rows, columns), min(rank, min(rows, columns)))
    let gram = (2 * r * r + k * (rows + columns) + k * r + k * k) * 8 + SymmetricSpectrum.workspaceBytes(size: r)
    return max(gram, SingularValues.workspaceBytes(rows: rows, columns: columns) + (k * (rows + columns) + r * r) * 8)
  }
}

/// Magnitudes whose squares, and sums of them, stay far inside binary64.
enum GramRange {
  static func contains(_ peak: Double) -> Bool { peak > 1e-120 && peak < 1e120 }
}

extension SingularTriplets {
  /// The first `count`.
  func prefix(_ count: Int) -> SingularTriplets {
    let left = DenseMatrix(rows: count, columns: self.left.columns)
    let right = DenseMatrix(rows: count, columns: self.right.columns)
    left.values.update(from: self.left.values, count: left.count)
    right.values.update(from: self.right.values, count: right.count)
    return SingularTriplets(left: left, sigma: Array(sigma[..<count]), right: right)
  }
}
