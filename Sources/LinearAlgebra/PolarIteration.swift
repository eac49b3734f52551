import COpenBLAS
import Glibc
import Platform

// Polar factor of a matrix of full rank, to binary32's accuracy, by products and Cholesky factorisations: Q = U Vᵀ of A = U diag(sigma) Vᵀ.
//
//   X = Z(A), Z(x) = M x (1 + sum_j a_j / (x² + c_j)), Zolotarev's best odd rational function on [l, 1]: it takes all singular values
//   near to 1 and leaves U and V; X = X (I + sum_j a_j (XᵀX + c_j I)^-1) needs one Cholesky inverse for each term
//   X = X (15 I - 10 XᵀX + 3 (XᵀX)²) / 8, until |I - XᵀX| <= d with 5/16 d³ <= 2e-7
//
// Shapes: A [m, n] row-major, replaced; r = min(m, n) >= `smallest`; XᵀX stands for the smaller of XᵀX and X Xᵀ.
// Arithmetic: where a Cholesky factorisation says that sigma_r > sigma_1 / 20, binary32 and four terms. Else two terms in binary64 first,
// for l = 1e-5: what they leave is in [0.29, 1], and two terms in binary32 do the rest. So a rounding error of binary32 is never divided
// by less than 1 / 20: the error is about 1e-6 of the largest element.
// Rank: what is not of full rank, or worse conditioned than 1 / l, does not come near to 1, which is seen by d: nil, and A is as before.
// sigma_1 comes from the power method and the condition from its inverse: within a few percent. NaN: the caller has looked.
// Cost: 4 m n r + 8 r³ in binary32; before it, where needed, 3 m n r + 2 r³ in binary64, at half the rate; all shared among idle
// workers (Crew.swift), cut where the sizes say.
// Source: Nakatsukasa and Freund, "Computing fundamental matrix decompositions accurately via the matrix sign function in two
// iterations", SIAM Review 58(3), 2016; Higham, Functions of Matrices, 2008, chapter 8.

enum PolarIteration {
  /// Below this side the eigendecomposition is as fast.
  static let smallest = 192
  private static let easy = 0.05
  private static let hard = 1e-5
  /// The power method's estimate is from below.
  private static let margin = 1.15

  /// - Parameter tolerance: what `drop` would leave out; singular values near to it are not for this route.
  static func replace(_ a: MatrixView, tolerance: Double, peak: Double) -> PolarFactor.Result? {
    let unit = Double(sign: .plus, exponent: peak.exponent, significand: 1)
    guard a.side >= smallest, tolerance <= hard / 2 else { return nil }
    let isTall = a.rows > a.columns
    let side = a.side
    var x = SingleMatrix(a, factor: 1 / unit)
    let square = SingleMatrix(rows: side, columns: side)
    square.gram(of: x, columns: isTall)
    let bound = margin * square.largestEigenvalue()
    guard bound > 0, bound.isFinite else { return nil }
    let function: Zolotarev
    var (scale, condition) = (bound, 0.0)
    if isDefinite(square, shift: -easy * easy * bound) {
      function = Zolotarev(least: easy, terms: 4)
    } else {
      let first = Zolotarev(least: hard, terms: 2)
      guard let start = reduce(a, unit, isTall, bound, first) else { return nil }
      (x, condition, scale) = (start.x, start.condition, 1)
      function = Zolotarev(least: first.range, terms: 2)
      square.gram(of: x, columns: isTall)
    }
    guard let (root, smallest) = function.applied(to: square, scale: scale) else { return nil }
    if condition == 0 { condition = (bound / margin / smallest).squareRoot() }
    x = multiply(root, x, isTall)
    guard let result = polish(x, square, root, isTall) else { return nil }
    let sum = put(result, into: a)
    return PolarFactor.Result(
      rank: side, largest: (bound / margin).squareRoot() * unit, sum: sum, condition: max(1, condition))
  }

  private static func multiply(_ factor: SingleMatrix, _ x: SingleMatrix, _ isTall: Bool) -> SingleMatrix {
    let result = SingleMatrix(rows: x.rows, columns: x.columns)
    if isTall { result.product(x, factor) } else { result.product(factor, x) }
    return result
  }

  /// Is square + shift I positive definite?
  private static func isDefinite(_ square: SingleMatrix, shift: Double) -> Bool {
    let copy = SingleMatrix(rows: square.rows, columns: square.rows)
    copy.values.update(from: square.values, count: square.count)
    for i in 0..<square.rows { copy.values[i * square.rows + i] += Float(shift) }
    var (n, info) = (Int32(square.rows), Int32(0))
    OpenBLAS.call { spotrf_("L", &n, copy.values, &n, &info, 1) }
    return info == 0
  }

  /// The first function, in binary64.
  private static func reduce(
    _ a: MatrixView, _ unit: Double, _ isTall: Bool, _ bound: Double, _ function: Zolotarev
  ) -> (x: SingleMatrix, condition: Double)? {
    let n = a.side
    let gram = DenseMatrix(rows: n, columns: n)
    gram.view.gram(of: a, columns: isTall)
    let scale = bound * unit * unit
    let inverses = Crew.map(function.shifts.count) { inverse(gram, shift: function.shifts[$0] * scale) }
    guard let first = inverses[0], let second = inverses[1] else { return nil }
    // Every direction without a singular value counts one here: many of them are no case for this route.
    var missing = 0.0
    for i in 0..<n { missing += first.values[i * n + i] * function.shifts[0] * scale }
    guard missing <= max(2, 0.02 * Double(n)) else { return nil }
    let smallest = 1 / (SingleMatrix(first.view, factor: scale).largestEigenvalue() / scale) - function.shifts[0] * scale
    let outer = function.slope / scale.squareRoot()
    let weights = function.weights.map { $0 * scale * outer }
    Cut.each(n * n) { for i in $0 { gram.values[i] = weights[0] * first.values[i] + weights[1] * second.values[i] } }
    for i in 0..<n { gram.values[i * n + i] += outer }
    let result = DenseMatrix(rows: a.rows, columns: a.columns)
    if isTall { result.view.product(a, gram.view) } else { result.view.product(gram.view, a) }
    return (SingleMatrix(result.view, factor: 1), (scale / margin / max(smallest, 1e-14 * scale)).squareRoot())
  }

  private static func inverse(_ gram: DenseMatrix, shift: Double) -> DenseMatrix? {
    let n = gram.rows
    let copy = DenseMatrix(rows: n, columns: n)
    copy.values.update(from: gram.values, count: gram.count)
    for i in 0..<n { copy.values[i * n + i] += shift }
    var (size, info) = (Int32(n), Int32(0))
    OpenBLAS.call { dpotrf_("U", &size, copy.values, &size, &info, 1) }
    guard info == 0 else { return nil }
    OpenBLAS.call { dpotri_("U", &size, copy.values, &size, &info, 1) }
    guard info == 0 else { return nil }
    copy.view.mirror(0..<n)
    return copy
  }

  /// Newton and Schulz's step of the fifth degree; nil when x is not near enough to orthonormal.
  private static func polish(
    _ start: SingleMatrix, _ square: SingleMatrix, _ scratch: SingleMatrix, _ isTall: Bool
  ) -> SingleMatrix? {
    var x = start
    let n = square.rows
    for _ in 0..<3 {
      square.gram(of: x, columns: isTall)
      // Symmetric: its own Gram matrix is its square.
      scratch.gram(of: square, columns: false)
      var fourth = 0.0
      for i in 0..<n {
        var row = 0.0
        for j in 0..<n {
          let (y, z) = (square.values[i * n + j], scratch.values[i * n + j])
          let defect = (i == j ? 1 : 0) - 2 * y + z
          row += Double(defect * defect)
          scratch.values[i * n + j] = ((i == j ? 15 : 0) - 10 * y + 3 * z) / 8
        }
        fourth += row
      }
      // |I - Y|² <= |(I - Y)²|, in Frobenius' norm on the right.
      let distance = fourth.squareRoot().squareRoot()
      guard distance <= 0.4 else { return nil }
      x = multiply(scratch, x, isTall)
      if 5 / 16 * distance * distance * distance <= 2e-7 { return x }
    }
    return nil
  }

  /// Put the factor in the place of `a`; the sum of the singular values, which is the inner product of both.
  private static func put(_ x: SingleMatrix, into a: MatrixView) -> Double {
    let ranges = Cut.ranges(a.count, work: a.count << 5)
    let sums = Crew.map(ranges.count) { part -> Double in
      var sum = 0.0
      for i in ranges[part] {
        let value = Double(x.values[i])
        sum += value * a.values[i]
        a.values[i] = value
      }
      return sum
    }
    return sums.reduce(0, +)
  }

  /// What `replace` allocates.
  static func workspaceBytes(rows: Int, columns: Int) -> Int {
    let r = min(rows, columns)
    return r < smallest ? 0 : rows * columns * 16 + r * r * 48
  }
}

/// Z(x) = slope x (1 + sum_j weights_j / (x² + shifts_j)): between `range` and 1 for x between `least` and 1.
struct Zolotarev {
  let shifts: [Double]
  let weights: [Double]
  let slope: Double
  let range: Double

  init(least: Double, terms: Int) {
    // Jacobi's elliptic functions for the complementary modulus, by the arithmetic-geometric mean.
    var (means, geometric, halves) = ([1.0], least, [0.0])
    while true {
      let (mean, half) = ((means.last! + geometric) / 2, (means.last! - geometric) / 2)
      geometric = (means.last! * geometric).squareRoot()
      means.append(mean)
      halves.append(half)
      if half.magnitude <= 1e-15 { break }
    }
    let last = means.count - 1
    var nodes: [Double] = []
    for i in 1...2 * terms {
      var angle = pow(2, Double(last)) * Double(i) / Double(2 * terms + 1) * .pi / 2
      for k in stride(from: last, to: 0, by: -1) { angle = (angle + asin(halves[k] / means[k] * sin(angle))) / 2 }
      nodes.append(least * least * tan(angle) * tan(angle))
    }
    let (poles, zeros) = ((0..<terms).map { nodes[2 * $0] }, (0..<terms).map { nodes[2 * $0 + 1] })
    shifts = poles
    weights = poles.map { pole in
      let above = zeros.reduce(-1.0) { $0 * (pole - $1) }
      return poles.reduce(above) { $1 == pole ? $0 : $0 / (pole - $1) }
    }
    slope = zip(poles, zeros).reduce(1.0) { $0 * (1 + $1.0) / (1 + $1.1) }
    range = slope * least * (1 + zip(weights, poles).reduce(0.0) { $0 + $1.0 / (least * least + $1.1) })
  }

  /// slope / sqrt(scale) (I + sum_j weights_j (square / scale + shifts_j I)^-1) in binary32, and an estimate of the smallest eigenvalue
  /// of the square; nil when a Cholesky factorisation fails.
  func applied(to square: SingleMatrix, scale: Double) -> (SingleMatrix, Double)? {
    let n = square.rows
    let inverses = Crew.map(shifts.count) { term -> SingleMatrix? in
      let copy = SingleMatrix(rows: n, columns: n)
      copy.values.update(from: square.values, count: square.count)
      for i in 0..<n { copy.values[i * n + i] += Float(shifts[term] * scale) }
      var (size, info) = (Int32(n), Int32(0))
      OpenBLAS.call { spotrf_("U", &size, copy.values, &size, &info, 1) }
      guard info == 0 else { return nil }
      OpenBLAS.call { spotri_("U", &size, copy.values, &size, &info, 1) }
      guard info == 0 else { return nil }
      copy.mirror(0..<n)
      return copy
    }
    guard inverses.allSatisfy({ $0 != nil }) else { return nil }
    let outer = slope / scale.squareRoot()
    let sum = SingleMatrix(rows: n, columns: n)
    for (inverse, weight) in zip(inverses, weights) {
      let (source, factor) = (inverse!.values, Float(weight * scale * outer))
      Cut.each(n * n) { for i in $0 { sum.values[i] += factor * source[i] } }
    }
    for i in 0..<n { sum.values[i * n + i] += Float(outer) }
    let smallest = 1 / inverses[0]!.largestEigenvalue() - shifts[0] * scale
    return (sum, max(smallest, 1e-7 * scale))
  }
}
