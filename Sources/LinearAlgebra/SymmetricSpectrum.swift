import COpenBLAS
import Platform

// Eigendecomposition of a large symmetric matrix: A = V diag(values) Vᵀ, of which the leading vectors may be enough.
//
// Shapes: A [n, n], replaced by V, one row per vector; values [n]. Arithmetic: binary64. Only one triangle is read.
// Route: tridiagonal form (dsytrd) and its divide and conquer (dstedc), as in LAPACK's dsyevd; then the reflectors are applied to the
// vectors that are wanted, in blocks of 64 reflectors and stretches of vectors that idle workers may take. dsyevd applies all to all, in
// blocks of 32, on one thread.
// NaN: the caller has looked. Cost: 4/3 n³, half of it in matrix times vector, 2 to 4 n³ for dstedc, 2 n² k for k vectors.
// Source: Golub and Van Loan, Matrix Computations, 8.3; Schreiber and Van Loan, "A storage-efficient WY representation", 1989.
//
// `SymmetricEigen` is for the small ones, whose bits must not depend on the CPU.

enum SymmetricSpectrum {
  private static let block = 64

  /// Replace the first `wanted` rows (nil: all) by eigenvectors and return all eigenvalues, both largest first.
  ///
  /// The other rows are undefined. Nil when LAPACK does not converge or the size is above 32766.
  static func decompose(_ matrix: MatrixView, wanted: Int? = nil) -> [Double]? {
    let n = matrix.rows
    precondition(n == matrix.columns)
    guard n > 0, n <= 32766 else { return nil }
    let count = min(wanted ?? n, n)
    var size = Int32(n)
    var integers = [Int32](repeating: 0, count: 3 + 5 * n)
    var (length, integerLength, info) = (Int32(workCount(n)), Int32(3 + 5 * n), Int32(0))
    let vectors = DenseMatrix(rows: n, columns: n)
    let scratch = DenseMatrix(rows: 1, columns: workCount(n))
    var values = [Double](repeating: 0, count: n)
    var (beside, factors) = (values, values)
    OpenBLAS.call {
      dsytrd_("L", &size, matrix.values, &size, &values, &beside, &factors, scratch.values, &length, &info, 1)
    }
    guard info == 0, values.allSatisfy(\.isFinite), beside.allSatisfy(\.isFinite) else { return nil }
    OpenBLAS.call {
      dstedc_(
        "I", &size, &values, &beside, vectors.values, &size, scratch.values, &length, &integers, &integerLength, &info, 1)
    }
    guard info == 0, values.allSatisfy(\.isFinite) else { return nil }
    withExtendedLifetime(scratch) {}
    // LAPACK's order is ascending; its columns are our rows.
    turnBack(vectors.rows(n - count..<n), reflectors: matrix, factors)
    Cut.each(count * n) { range in
      for row in range.lowerBound / n..<(range.upperBound + n - 1) / n {
        let (first, last) = (max(range.lowerBound, row * n), min(range.upperBound, (row + 1) * n))
        let source = vectors.view.row(n - 1 - row)
        for i in first..<last { matrix.values[i] = source[i - row * n] }
      }
    }
    withExtendedLifetime(vectors) {}
    return values.reversed()
  }

  /// Rows x = Q x for the product Q of the reflectors below the diagonal.
  private static func turnBack(_ rows: MatrixView, reflectors: MatrixView, _ factors: [Double]) {
    let n = reflectors.rows
    guard n > 1 else { return }
    let starts = Array(stride(from: 0, to: n - 1, by: block))
    let triangles = DenseMatrix(rows: starts.count, columns: block * block)
    factors.withUnsafeBufferPointer { factors in
      for (index, start) in starts.enumerated() {
        var (length, count, gap, edge) = (Int32(n - 1 - start), Int32(min(block, n - 1 - start)), Int32(n), Int32(block))
        OpenBLAS.call {
          dlarft_(
            "F", "C", &length, &count, reflectors.row(start) + start + 1, &gap, factors.baseAddress! + start,
            triangles.view.row(index), &edge, 1, 1)
        }
      }
    }
    let ranges = Cut.ranges(rows.rows, work: rows.rows * n * n)
    Crew.each(ranges.count) { part in
      let own = rows.rows(ranges[part])
      let work = DenseMatrix(rows: block, columns: own.rows)
      for index in starts.indices.reversed() {
        let start = starts[index]
        var (length, columns, count) = (Int32(n - 1 - start), Int32(own.rows), Int32(min(block, n - 1 - start)))
        var (gap, edge) = (Int32(n), Int32(block))
        OpenBLAS.call {
          dlarfb_(
            "L", "N", "F", "C", &length, &columns, &count, reflectors.row(start) + start + 1, &gap, triangles.view.row(index),
            &edge, own.values + start + 1, &gap, work.values, &columns, 1, 1, 1, 1)
        }
      }
      withExtendedLifetime(work) {}
    }
    withExtendedLifetime(triangles) {}
  }

  private static func workCount(_ n: Int) -> Int { max(1 + 4 * n + n * n, 64 * n) }

  /// What `decompose` allocates.
  static func workspaceBytes(size n: Int) -> Int {
    (workCount(n) + n * n + 2 * block * n + block * block) * 8 + (3 + 5 * n) * 4 + 40 * n
  }
}
