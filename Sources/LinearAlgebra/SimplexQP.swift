/// Minimise ½ xᵀ H x − bᵀ x subject to x >= 0 and, at choice, sum(x) <= 1.
///
/// H is `n` x `n`, symmetric positive semidefinite. Active-set method of Lawson and Hanson ("Solving least squares problems",
/// 1974, chapter 23): grow the set of free variables by the one whose gradient promises most, solve on it, and step back to
/// the border when a variable would turn negative. When the solution without the sum exceeds 1 the sum is exactly 1 (the
/// problem is convex), and the same method runs with that equation. Ends after finitely many sets; the result is checked by
/// its KKT residual in the tests.
public enum SimplexQP {
  public static func solve(_ h: [Double], _ b: [Double], size n: Int) -> [Double] {
    guard n > 0 else { return [] }
    let free = activeSet(h, b, n, sumIsOne: false)
    var total = 0.0
    for value in free { total += value }
    if total <= 1 { return free }
    // Nearly singular matrices leave the sum wrong by rounding.
    let bound = activeSet(h, b, n, sumIsOne: true)
    let sum = bound.reduce(0, +)
    return bound.map { $0 / sum }
  }

  private static func activeSet(_ h: [Double], _ b: [Double], _ n: Int, sumIsOne: Bool) -> [Double] {
    var x = [Double](repeating: 0, count: n)
    var passive = [Bool](repeating: false, count: n)
    if sumIsOne {
      // The best corner of the simplex.
      let start = (0..<n).min { 0.5 * h[$0 * n + $0] - b[$0] < 0.5 * h[$1 * n + $1] - b[$1] }!
      passive[start] = true
      x[start] = 1
    }
    var tolerance = 0.0
    for value in b { tolerance = max(tolerance, value.magnitude) }
    for i in 0..<n { tolerance = max(tolerance, h[i * n + i]) }
    tolerance *= 1e-14

    for _ in 0..<(3 * n + 10) {
      // Gradient, and the multiplier of the sum as the free variables agree on it.
      var gradient = b.map { -$0 }
      for i in 0..<n { for j in 0..<n where x[j] != 0 { gradient[i] += h[i * n + j] * x[j] } }
      var multiplier = 0.0
      if sumIsOne {
        var weight = 0.0
        for i in 0..<n where passive[i] {
          multiplier -= gradient[i] * x[i]
          weight += x[i]
        }
        multiplier /= weight
      }
      guard let entering = (0..<n).filter({ !passive[$0] }).min(by: { gradient[$0] < gradient[$1] }),
        gradient[entering] + multiplier < -tolerance
      else { return x }
      passive[entering] = true

      while true {
        let indices = (0..<n).filter { passive[$0] }
        let target = stationary(h, b, n, indices, x, sumIsOne)
        var step = 1.0
        for (k, i) in indices.enumerated() where target[k] <= 0 {
          step = min(step, x[i] / (x[i] - target[k]))
        }
        if step >= 1 {
          for (k, i) in indices.enumerated() { x[i] = target[k] }
          break
        }
        for (k, i) in indices.enumerated() {
          x[i] += step * (target[k] - x[i])
          if target[k] <= 0 && x[i] <= 1e-15 * max(1, x.max() ?? 1) {
            x[i] = 0
            passive[i] = false
          }
        }
        if !passive.contains(true) { return x }
        if !passive[entering] { break }
      }
    }
    return x
  }

  /// Where the free variables want to be: their stationary point, with sum 1 or without. Where the matrix is singular on them,
  /// the point nearest to `x`; or, when the objective falls for ever along a direction of no curvature, a point far out on it.
  private static func stationary(
    _ h: [Double], _ b: [Double], _ n: Int, _ indices: [Int], _ x: [Double], _ sumIsOne: Bool
  ) -> [Double] {
    let m = indices.count
    var sub = [Double](repeating: 0, count: m * m)
    for (k, i) in indices.enumerated() { for (l, j) in indices.enumerated() { sub[k * m + l] = h[i * n + j] } }
    let right = indices.map { b[$0] }
    if let free = SymmetricSolve.cholesky(sub, right, size: m) {
      guard sumIsOne else { return free }
      if let direction = SymmetricSolve.cholesky(sub, [Double](repeating: 1, count: m), size: m) {
        let excess = free.reduce(-1, +) / direction.reduce(0, +)
        return (0..<m).map { free[$0] - excess * direction[$0] }
      }
    }
    let start = indices.map { x[$0] }
    var descent = right
    for k in 0..<m { for l in 0..<m { descent[k] -= sub[k * m + l] * start[l] } }
    if sumIsOne {
      // Only directions along which the sum stays: project both sides off the vector of ones.
      center(&descent, m, columns: 1)
      center(&sub, m, columns: m)
      sub = transposed(sub, m)
      center(&sub, m, columns: m)
    }
    return zip(start, step(sub, descent, m)).map { $0 + $1 }
  }

  /// The least-norm solution of `matrix` p = `descent`; a long step along the part of it that no p can reach, if there is one.
  private static func step(_ matrix: [Double], _ descent: [Double], _ m: Int) -> [Double] {
    let eigen = SymmetricEigen(matrix, size: m)
    let cutoff = 1e-13 * max(eigen.values.first ?? 0, 0)
    var (near, far) = ([Double](repeating: 0, count: m), [Double](repeating: 0, count: m))
    for k in 0..<m {
      let vector = Array(eigen.vector(k))
      let share = zip(vector, descent).reduce(0.0) { $0 + $1.0 * $1.1 }
      for i in 0..<m {
        if eigen.values[k] > cutoff { near[i] += share / eigen.values[k] * vector[i] } else { far[i] += share * vector[i] }
      }
    }
    let (reach, size) = (far.reduce(0) { max($0, $1.magnitude) }, descent.reduce(0) { max($0, $1.magnitude) })
    // A remainder that rounding explains is none.
    guard reach > 1e-11 * size, size > 1e-14 * max(eigen.values.first ?? 0, 0) else { return near }
    return far.map { $0 / reach * 1e6 }
  }

  /// Subtract from each column its mean.
  private static func center(_ values: inout [Double], _ rows: Int, columns: Int) {
    for l in 0..<columns {
      var mean = 0.0
      for k in 0..<rows { mean += values[k * columns + l] }
      for k in 0..<rows { values[k * columns + l] -= mean / Double(rows) }
    }
  }

  private static func transposed(_ matrix: [Double], _ m: Int) -> [Double] {
    (0..<m * m).map { matrix[$0 % m * m + $0 / m] }
  }

  /// The same problem by the rule of YOYO-Scale's authors: start with all variables free, drop every one that is not positive
  /// at once, take back the one whose gradient is most negative. It can drop the solution on its way: with no variable left,
  /// or after 10 n + 50 rounds, it answers 0.
  public static func solveDroppingAll(_ h: [Double], _ b: [Double], size n: Int) -> [Double] {
    let tolerance = 1e-12
    var free = [Bool](repeating: true, count: n)
    for _ in 0..<(10 * n + 50) {
      let indices = (0..<n).filter { free[$0] }
      if indices.isEmpty { break }
      let sub = indices.flatMap { i in indices.map { h[i * n + $0] } }
      var candidate = SymmetricSolve.leastNorm(sub, indices.map { b[$0] }, size: indices.count)
      var multiplier = 0.0
      let sum = candidate.reduce(0, +)
      if sum > 1 + tolerance {
        let direction = SymmetricSolve.leastNorm(sub, [Double](repeating: 1, count: indices.count), size: indices.count)
        let slope = direction.reduce(0, +)
        if slope.magnitude > 1e-30, (sum - 1) / slope > 0 {
          multiplier = (sum - 1) / slope
          candidate = zip(candidate, direction).map { $0 - multiplier * $1 }
        }
      }
      if candidate.contains(where: { $0 <= tolerance }) {
        for (k, i) in indices.enumerated() where candidate[k] <= tolerance { free[i] = false }
        continue
      }
      var x = [Double](repeating: 0, count: n)
      for (k, i) in indices.enumerated() { x[i] = candidate[k] }
      let gradient = (0..<n).map { i in (0..<n).reduce(multiplier - b[i]) { $0 + h[i * n + $1] * x[$1] } }
      let worst = (0..<n).filter { !free[$0] }.min { gradient[$0] < gradient[$1] }
      if let worst, gradient[worst] < -tolerance {
        free[worst] = true
        continue
      }
      let total = x.reduce(0, +)
      return total > 1 ? x.map { $0 / total } : x
    }
    return [Double](repeating: 0, count: n)
  }
}
