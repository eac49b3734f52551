/// Solutions of A x = y for a small symmetric positive semidefinite A.
public enum SymmetricSolve {
  /// x of least norm with A x = y on the span of the eigenvectors whose eigenvalue is above `cutoff` times the largest.
  ///
  /// For a well-conditioned A that is Cholesky's solution; where a pivot is small, the eigendecomposition decides, and a share
  /// of y along a small eigenvalue counts only if it is more than rounding. So identical rows and columns share their part
  /// equally.
  /// - Parameter matrix: `size` x `size`, row-major, finite.
  public static func leastNorm(_ matrix: [Double], _ y: [Double], size: Int, cutoff: Double = 1e-13) -> [Double] {
    if let x = cholesky(matrix, y, size: size, cutoff: cutoff) { return x }
    let eigen = SymmetricEigen(matrix, size: size)
    var x = [Double](repeating: 0, count: size)
    guard let largest = eigen.values.first, largest > 0 else { return x }
    let noise = 4 * Double(size) * 0x1p-53 * y.reduce(0) { $0 + $1 * $1 }.squareRoot()
    for k in 0..<size where eigen.values[k] > cutoff * largest {
      let vector = Array(eigen.vector(k))
      var projection = 0.0
      for i in 0..<size { projection += vector[i] * y[i] }
      if eigen.values[k] < 1e-10 * largest, projection.magnitude <= noise { continue }
      projection /= eigen.values[k]
      for i in 0..<size { x[i] += projection * vector[i] }
    }
    return x
  }

  /// Cholesky's solution, refined once; nil when a pivot is not above `cutoff`, and 1e-10, times its diagonal element.
  static func cholesky(_ matrix: [Double], _ y: [Double], size n: Int, cutoff: Double = 1e-13) -> [Double]? {
    var l = [Double](repeating: 0, count: n * n)
    for j in 0..<n {
      var pivot = matrix[j * n + j]
      for k in 0..<j { pivot -= l[j * n + k] * l[j * n + k] }
      // 1e-10: well before the solution loses the digits that the least-norm one keeps.
      guard pivot > max(cutoff, 1e-10) * matrix[j * n + j], pivot > 0 else { return nil }
      let root = pivot.squareRoot()
      l[j * n + j] = root
      for i in (j + 1)..<max(n, j + 1) {
        var sum = matrix[i * n + j]
        for k in 0..<j { sum -= l[i * n + k] * l[j * n + k] }
        l[i * n + j] = sum / root
      }
    }
    func solve(_ right: [Double]) -> [Double] {
      var x = right
      for i in 0..<n {
        for k in 0..<i { x[i] -= l[i * n + k] * x[k] }
        x[i] /= l[i * n + i]
      }
      for i in stride(from: n - 1, through: 0, by: -1) {
        for k in (i + 1)..<max(n, i + 1) { x[i] -= l[k * n + i] * x[k] }
        x[i] /= l[i * n + i]
      }
      return x
    }
    var x = solve(y)
    var residual = y
    for i in 0..<n { for j in 0..<n { residual[i] -= matrix[i * n + j] * x[j] } }
    let correction = solve(residual)
    for i in 0..<n { x[i] += correction[i] }
    return x
  }
}
