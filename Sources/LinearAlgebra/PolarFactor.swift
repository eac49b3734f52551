import COpenBLAS

/// OpenBLAS as this library uses it.
public enum OpenBLAS {
  /// Always one thread: its bits depend on the number of threads, and the parallelism is ours.
  static let oneThread: Void = openblas_set_num_threads(1)

  /// "OpenBLAS 0.3.21 ...".
  public static var version: String { String(cString: openblas_get_config()) }

  /// The CPU kernels it chose, "Haswell".
  public static var core: String { String(cString: openblas_get_corename()) }
}

/// Polar factor of a matrix: Q = U Vᵀ of the thin singular value decomposition A = U diag(σ) Vᵀ.
public enum PolarFactor {
  /// Replace a row-major `rows` x `columns` matrix by its polar factor, and return its largest singular value.
  ///
  /// binary64, by LAPACK's divide and conquer (dgesdd). Where A is rank-deficient, the directions of zero singular values are
  /// LAPACK's choice. Scratch: 3 matrices of the size of A and min(rows, columns)² times 10. Nil when LAPACK does not converge
  /// (non-finite input).
  public static func replace(_ matrix: UnsafeMutablePointer<Double>, rows: Int, columns: Int) -> Double? {
    _ = OpenBLAS.oneThread
    guard rows > 0, columns > 0, rows <= Int(Int32.max), columns <= Int(Int32.max) else { return nil }
    // Row-major rows x columns is column-major columns x rows, and the polar factor of a transpose is the transpose of the
    // polar factor: nothing is transposed here.
    var (m, n) = (Int32(columns), Int32(rows))
    var rank = min(m, n)
    let r = Int(rank)
    let a = UnsafeMutablePointer<Double>.allocate(capacity: rows * columns)
    let u = UnsafeMutablePointer<Double>.allocate(capacity: columns * r)
    let vt = UnsafeMutablePointer<Double>.allocate(capacity: r * rows)
    defer {
      a.deallocate()
      u.deallocate()
      vt.deallocate()
    }
    a.update(from: matrix, count: rows * columns)
    var sigma = [Double](repeating: 0, count: r)
    var integers = [Int32](repeating: 0, count: 8 * r)
    var info: Int32 = 0
    var query = 0.0
    var length: Int32 = -1
    dgesdd_("S", &m, &n, a, &m, &sigma, u, &m, vt, &rank, &query, &length, &integers, &info, 1)
    guard info == 0, query < Double(Int32.max) else { return nil }
    length = Int32(query)
    let work = UnsafeMutablePointer<Double>.allocate(capacity: max(1, Int(length)))
    defer { work.deallocate() }
    dgesdd_("S", &m, &n, a, &m, &sigma, u, &m, vt, &rank, work, &length, &integers, &info, 1)
    guard info == 0, sigma[0].isFinite else { return nil }
    var (one, zero) = (1.0, 0.0)
    dgemm_("N", "N", &m, &n, &rank, &one, u, &m, vt, &rank, &zero, matrix, &m, 1, 1)
    return sigma[0]
  }
}
