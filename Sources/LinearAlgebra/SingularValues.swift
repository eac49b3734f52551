import COpenBLAS

// Thin singular value decomposition: A = U diag(sigma) Vᵀ, r = min(m, n).
//
// Shapes: A [m, n] row-major, destroyed; U as `left` [r, m], one row per left vector; sigma [r], largest first; Vᵀ as `right` [r, n].
// Arithmetic: binary64, LAPACK's divide and conquer (dgesdd), which scales very large and very small matrices itself.
// NaN: refused (nil) before LAPACK sees it. Sign: `SingularTriplets.fixSigns`.
// Cost: about 20 m n r on one thread; 2.4 s for 1536 x 1536.
// Source: Gu and Eisenstat, SIAM J. Matrix Anal. Appl. 16(1), 1995; LAPACK.

/// Singular values and vectors, as rows.
public struct SingularTriplets {
  /// [k, m].
  public let left: DenseMatrix
  public let sigma: [Double]
  /// [k, n].
  public let right: DenseMatrix

  public init(left: DenseMatrix, sigma: [Double], right: DenseMatrix) {
    (self.left, self.sigma, self.right) = (left, sigma, right)
  }

  /// Make the largest component of each right vector positive (the first of equals), and turn the left one with it.
  func fixSigns() {
    for j in 0..<sigma.count {
      let vector = right.view.row(j)
      var peak = 0.0
      for i in 0..<right.columns where vector[i].magnitude > peak.magnitude { peak = vector[i] }
      guard peak < 0 else { continue }
      right.rows(j..<j + 1).scale(by: -1)
      left.rows(j..<j + 1).scale(by: -1)
    }
  }
}

public enum SingularValues {
  /// All r triplets of `a`, which is destroyed. Nil when an element is not finite, LAPACK does not converge, or it has no elements.
  public static func thin(_ a: MatrixView) -> SingularTriplets? {
    guard a.isAddressable, a.peak != nil else { return nil }
    return decompose(a)
  }

  /// The same for elements that are known to be finite; signs as LAPACK gives them.
  static func decompose(_ a: MatrixView) -> SingularTriplets? {
    let r = a.side
    guard a.isAddressable, let lengthNeeded = workCount(a.rows, a.columns) else { return nil }
    // Row-major rows x columns is column-major columns x rows: LAPACK's U is our V and its Vᵀ our Uᵀ transposed, so the left
    // vectors come out as columns and are turned into rows here.
    var (m, n, rank) = (Int32(a.columns), Int32(a.rows), Int32(r))
    let right = DenseMatrix(rows: r, columns: a.columns)
    let columnsOfLeft = DenseMatrix(rows: a.rows, columns: r)
    var sigma = [Double](repeating: 0, count: r)
    var integers = [Int32](repeating: 0, count: 8 * r)
    var (length, info) = (Int32(lengthNeeded), Int32(0))
    let scratch = DenseMatrix(rows: 1, columns: lengthNeeded)
    let work = scratch.values
    defer { withExtendedLifetime(scratch) {} }
    OpenBLAS.call {
      dgesdd_(
        "S", &m, &n, a.values, &m, &sigma, right.values, &m, columnsOfLeft.values, &rank, work, &length, &integers, &info, 1)
    }
    guard info == 0, sigma[0].isFinite else { return nil }
    let left = DenseMatrix(rows: r, columns: a.rows)
    transpose(columnsOfLeft.view, into: left.view)
    let triplets = SingularTriplets(left: left, sigma: sigma, right: right)
    triplets.fixSigns()
    return triplets
  }

  /// Bytes that `thin` allocates: the triplets, a copy of the left vectors, and LAPACK's workspace.
  public static func workspaceBytes(rows: Int, columns: Int) -> Int {
    guard rows > 0, columns > 0, rows <= Int(Int32.max), columns <= Int(Int32.max) else { return 0 }
    let r = min(rows, columns)
    return ((workCount(rows, columns) ?? 0) + r * (2 * rows + columns) + 2 * r) * 8 + 32 * r
  }

  private static func workCount(_ rows: Int, _ columns: Int) -> Int? {
    var (m, n) = (Int32(columns), Int32(rows))
    var rank = min(m, n)
    var (length, info, integer) = (Int32(-1), Int32(0), Int32(0))
    return withUnsafeTemporaryAllocation(of: Double.self, capacity: 1) { number -> Int? in
      let query = number.baseAddress!
      query.initialize(to: 0)
      // Only the length is asked for: no array is looked at.
      dgesdd_("S", &m, &n, query, &m, query, query, &m, query, &rank, query, &length, &integer, &info, 1)
      guard info == 0, query[0] >= 0, query[0] < Double(Int32.max) else { return nil }
      return max(1, Int(query[0]))
    }
  }

  private static func transpose(_ a: MatrixView, into b: MatrixView) {
    let tile = 32
    for top in stride(from: 0, to: a.rows, by: tile) {
      for left in stride(from: 0, to: a.columns, by: tile) {
        for i in top..<min(top + tile, a.rows) {
          for j in left..<min(left + tile, a.columns) { b.values[j * a.rows + i] = a.values[i * a.columns + j] }
        }
      }
    }
  }
}
