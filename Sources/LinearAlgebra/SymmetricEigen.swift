import Glibc

/// Eigendecomposition of a small symmetric matrix: A = V diag(values) Vᵀ.
///
/// Method: cyclic Jacobi rotations in binary64 until no off-diagonal element is above 2⁻⁵³ of the geometric mean of its
/// diagonal pair (Demmel and Veselić, "Jacobi's method is more accurate than QR", SIAM J. Matrix Anal. 13(4), 1992: small
/// eigenvalues of a Gram matrix keep their digits). Our own rather than LAPACK's, so that the bits do not depend on the CPU.
/// Cost: about 10 n³ multiplications; meant for n up to a few hundred (the number of models).
public struct SymmetricEigen: Sendable {
  public let size: Int
  /// Eigenvalues, largest first.
  public let values: [Double]
  /// Eigenvectors, one row of `size` per eigenvalue, unit length; the largest component is positive.
  public let vectors: [Double]

  /// - Parameter matrix: `size` x `size`, symmetric (the upper triangle is read), finite.
  public init(_ matrix: [Double], size: Int) {
    var a = [Double](repeating: 0, count: size * size)
    for i in 0..<size {
      for j in i..<size { (a[i * size + j], a[j * size + i]) = (matrix[i * size + j], matrix[i * size + j]) }
    }
    // Row i of v is the i-th vector.
    var v = [Double](repeating: 0, count: size * size)
    for i in 0..<size { v[i * size + i] = 1 }
    for _ in 0..<60 where !Self.sweep(&a, &v, size) { break }
    let order = (0..<size).sorted { (a[$0 * size + $0], $1) > (a[$1 * size + $1], $0) }
    self.size = size
    self.values = order.map { a[$0 * size + $0] }
    self.vectors = order.flatMap { row -> [Double] in
      let vector = Array(v[row * size..<(row + 1) * size])
      let peak = vector.max { $0.magnitude < $1.magnitude } ?? 0
      return peak < 0 ? vector.map { -$0 } : vector
    }
  }

  public func vector(_ index: Int) -> ArraySlice<Double> { vectors[index * size..<(index + 1) * size] }

  /// One round over all pairs; false when nothing was left to rotate.
  private static func sweep(_ a: inout [Double], _ v: inout [Double], _ n: Int) -> Bool {
    var rotated = false
    for p in 0..<n {
      for q in (p + 1)..<max(n, p + 1) {
        let apq = a[p * n + q]
        let scale = a[p * n + p].magnitude.squareRoot() * a[q * n + q].magnitude.squareRoot()
        if apq == 0 || apq.magnitude <= 0x1p-53 * scale { continue }
        rotated = true
        let theta = (a[q * n + q] - a[p * n + p]) / (2 * apq)
        let t = (theta < 0 ? -1.0 : 1.0) / (theta.magnitude + hypot(1, theta))
        let c = 1 / hypot(1, t)
        let s = t * c
        for k in 0..<n where k != p && k != q {
          let (akp, akq) = (a[k * n + p], a[k * n + q])
          let (rp, rq) = (c * akp - s * akq, s * akp + c * akq)
          (a[k * n + p], a[p * n + k]) = (rp, rp)
          (a[k * n + q], a[q * n + k]) = (rq, rq)
        }
        a[p * n + p] -= t * apq
        a[q * n + q] += t * apq
        (a[p * n + q], a[q * n + p]) = (0, 0)
        for k in 0..<n {
          let (vp, vq) = (v[p * n + k], v[q * n + k])
          v[p * n + k] = c * vp - s * vq
          v[q * n + k] = s * vp + c * vq
        }
      }
    }
    return rotated
  }
}
