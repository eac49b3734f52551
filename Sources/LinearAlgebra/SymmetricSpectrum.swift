import COpenBLAS

/// Eigendecomposition of a large symmetric matrix, by LAPACK's divide and conquer (dsyevd).
///
/// `SymmetricEigen` is for the small ones, whose bits must not depend on the CPU.
enum SymmetricSpectrum {
  /// Replace a symmetric matrix by its eigenvectors, one row each, and return the eigenvalues, both largest first.
  ///
  /// Only one triangle is read. Nil when LAPACK does not converge or the size is above 32766. Cost: about 9 n³.
  static func decompose(_ matrix: MatrixView) -> [Double]? {
    _ = OpenBLAS.oneThread
    let n = matrix.rows
    precondition(n == matrix.columns)
    guard n > 0, n <= 32766 else { return nil }
    var size = Int32(n)
    var values = [Double](repeating: 0, count: n)
    var integers = [Int32](repeating: 0, count: 3 + 5 * n)
    var (length, integerLength, info) = (Int32(workCount(n)), Int32(3 + 5 * n), Int32(0))
    let scratch = DenseMatrix(rows: 1, columns: workCount(n))
    let work = scratch.values
    defer { withExtendedLifetime(scratch) {} }
    dsyevd_("V", "L", &size, matrix.values, &size, &values, work, &length, &integers, &integerLength, &info, 1, 1)
    guard info == 0, values.allSatisfy(\.isFinite) else { return nil }
    // LAPACK's order is ascending; its columns are our rows.
    for low in 0..<n / 2 {
      let (first, second) = (matrix.row(low), matrix.row(n - 1 - low))
      for j in 0..<n { swap(&first[j], &second[j]) }
    }
    return values.reversed()
  }

  private static func workCount(_ n: Int) -> Int { 1 + 6 * n + 2 * n * n }

  /// What `decompose` allocates.
  static func workspaceBytes(size n: Int) -> Int { workCount(n) * 8 + (3 + 5 * n) * 4 + 16 * n }
}
