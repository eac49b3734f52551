import COpenBLAS

/// The calls of BLAS and LAPACK that exist in binary32 and binary64 and are needed in both. Column-major, as there.
protocol BLASElement: BinaryFloatingPoint {
  /// c += factor op(a) op(b), m x n.
  static func gemm(
    _ transposed: (Bool, Bool), _ m: Int, _ n: Int, _ k: Int, _ factor: Self, _ a: UnsafePointer<Self>, _ aGap: Int,
    _ b: UnsafePointer<Self>, _ bGap: Int, _ c: UnsafeMutablePointer<Self>, _ cGap: Int)

  /// c = factor a b, or factor b a, m x n, for a symmetric a of which the upper triangle is read.
  static func symm(
    fromLeft: Bool, _ m: Int, _ n: Int, _ factor: Self, _ a: UnsafePointer<Self>, _ aGap: Int, _ b: UnsafePointer<Self>,
    _ bGap: Int, _ c: UnsafeMutablePointer<Self>, _ cGap: Int)

  /// The upper triangle of a replaced by that of its inverse; false when a is not positive definite.
  static func choleskyInverse(_ a: UnsafeMutablePointer<Self>, _ size: Int, _ gap: Int) -> Bool
}

extension Float: BLASElement {
  static func gemm(
    _ transposed: (Bool, Bool), _ m: Int, _ n: Int, _ k: Int, _ factor: Float, _ a: UnsafePointer<Float>, _ aGap: Int,
    _ b: UnsafePointer<Float>, _ bGap: Int, _ c: UnsafeMutablePointer<Float>, _ cGap: Int
  ) {
    var (m, n, k, alpha, one) = (Int32(m), Int32(n), Int32(k), factor, Float(1))
    var (first, second, third) = (Int32(aGap), Int32(bGap), Int32(cGap))
    OpenBLAS.call {
      sgemm_(
        transposed.0 ? "T" : "N", transposed.1 ? "T" : "N", &m, &n, &k, &alpha, a, &first, b, &second, &one, c, &third, 1, 1)
    }
  }

  static func symm(
    fromLeft: Bool, _ m: Int, _ n: Int, _ factor: Float, _ a: UnsafePointer<Float>, _ aGap: Int, _ b: UnsafePointer<Float>,
    _ bGap: Int, _ c: UnsafeMutablePointer<Float>, _ cGap: Int
  ) {
    var (m, n, alpha, zero) = (Int32(m), Int32(n), factor, Float(0))
    var (first, second, third) = (Int32(aGap), Int32(bGap), Int32(cGap))
    OpenBLAS.call {
      ssymm_(fromLeft ? "L" : "R", "U", &m, &n, &alpha, a, &first, b, &second, &zero, c, &third, 1, 1)
    }
  }

  static func choleskyInverse(_ a: UnsafeMutablePointer<Float>, _ size: Int, _ gap: Int) -> Bool {
    var (n, lda, info) = (Int32(size), Int32(gap), Int32(0))
    OpenBLAS.call { spotrf_("U", &n, a, &lda, &info, 1) }
    guard info == 0 else { return false }
    OpenBLAS.call { spotri_("U", &n, a, &lda, &info, 1) }
    return info == 0
  }
}

extension Double: BLASElement {
  static func gemm(
    _ transposed: (Bool, Bool), _ m: Int, _ n: Int, _ k: Int, _ factor: Double, _ a: UnsafePointer<Double>, _ aGap: Int,
    _ b: UnsafePointer<Double>, _ bGap: Int, _ c: UnsafeMutablePointer<Double>, _ cGap: Int
  ) {
    var (m, n, k, alpha, one) = (Int32(m), Int32(n), Int32(k), factor, 1.0)
    var (first, second, third) = (Int32(aGap), Int32(bGap), Int32(cGap))
    OpenBLAS.call {
      dgemm_(
        transposed.0 ? "T" : "N", transposed.1 ? "T" : "N", &m, &n, &k, &alpha, a, &first, b, &second, &one, c, &third, 1, 1)
    }
  }

  static func symm(
    fromLeft: Bool, _ m: Int, _ n: Int, _ factor: Double, _ a: UnsafePointer<Double>, _ aGap: Int,
    _ b: UnsafePointer<Double>, _ bGap: Int, _ c: UnsafeMutablePointer<Double>, _ cGap: Int
  ) {
    var (m, n, alpha, zero) = (Int32(m), Int32(n), factor, 0.0)
    var (first, second, third) = (Int32(aGap), Int32(bGap), Int32(cGap))
    OpenBLAS.call {
      dsymm_(fromLeft ? "L" : "R", "U", &m, &n, &alpha, a, &first, b, &second, &zero, c, &third, 1, 1)
    }
  }

  static func choleskyInverse(_ a: UnsafeMutablePointer<Double>, _ size: Int, _ gap: Int) -> Bool {
    var (n, lda, info) = (Int32(size), Int32(gap), Int32(0))
    OpenBLAS.call { dpotrf_("U", &n, a, &lda, &info, 1) }
    guard info == 0 else { return false }
    OpenBLAS.call { dpotri_("U", &n, a, &lda, &info, 1) }
    return info == 0
  }
}
