import COpenBLAS
import Glibc
import Platform

// Polar factor of a matrix of full rank, to binary32's accuracy, by products and symmetric inverses: Q = U Vᵀ of A = U diag(sigma) Vᵀ.
//
//   X = Z(A), Z(x) = M x (1 + sum_j a_j / (x² + c_j)), Zolotarev's best odd rational function on [l, 1]: it takes all singular values
//   near to 1 and leaves U and V; X = X (I + sum_j a_j (XᵀX + c_j I)^-1) needs one inverse for each term (SymmetricInverse.swift)
//   X = X (3 I - XᵀX) / 2 once |I - XᵀX| <= d with 3/8 d² <= 2.5e-7, half of what rounding leaves; until then
//   X = X (15 I - 10 XᵀX + 3 (XᵀX)²) / 8, which leaves 5/16 d³ for one product more
//
// Shapes: A [m, n] row-major, replaced; r = min(m, n) >= `smallest`; XᵀX stands for the smaller of XᵀX and X Xᵀ.
// Arithmetic: where a Cholesky factorisation says that sigma_r > sigma_1 / 20, binary32 and four terms, whose remainder is 1.6e-4. Else
// two terms with Gram matrix and inverses in binary64 first, for l = 1e-5: what they leave is in [0.29, 1], and two terms in binary32 do
// the rest but for 2.8e-4. Matrices that are nearly square are not asked: random ones have a condition of about n. A rounding error of
// binary32 is divided by no less than 1 / 20. A times the factor that the binary64 inverses give is a product in binary64: the sums
// in it cancel, and in binary32 they left 2e-5 (Frobenius, relative) at a condition of 5000.
// Rank: what is not of full rank, or worse conditioned than 1 / l, does not come near to 1, which is seen by d: nil, and A is as before.
// sigma_1, d and the inverse of the condition come from the power method: within a few percent where they stand apart.
// NaN: the caller has looked.
// Cost: 3 m n r + 2 r³ in binary32 (4 r³ without the start); the start 3 m n r + 2 r³ in binary64, at half the rate; all
// shared among idle workers (Crew.swift), cut where the sizes say.
// Source: Nakatsukasa and Freund, "Computing fundamental matrix decompositions accurately via the matrix sign function in two
// iterations", SIAM Review 58(3), 2016; Higham, Functions of Matrices, 2008, chapter 8.

enum PolarIteration {
  /// Below this side the eigendecomposition is as fast.
  static let smallest = 192
  private static let easy = 0.05
  private static let hard = 1e-5
  /// The power method's estimate is from below.
  private static let margin = 1.15
  private static let remainder = 2.5e-7

  /// - Parameter tolerance: what `drop` would leave out; singular values near to it are not for this route.
  static func replace(_ a: MatrixView, tolerance: Double, peak: Double) -> PolarFactor.Result? {
    let unit = Double(sign: .plus, exponent: peak.exponent, significand: 1)
    guard a.side >= smallest, tolerance <= hard / 2 else { return nil }
    let isTall = a.rows > a.columns
    var x: SingleMatrix
    let square = SingleMatrix(rows: a.side, columns: a.side)
    let largest: Double
    let condition: Double
    let root: SingleMatrix
    if let (start, bound) = easyStart(a, unit, square, isTall) {
      let function = Zolotarev(least: easy, terms: 4)
      guard let found = function.applied(to: square, scale: bound) else { return nil }
      (x, root, largest) = (start, found.root, bound / margin)
      let smallest = 1 / found.first.largestEigenvalue() - function.shifts[0] * bound
      condition = (largest / max(smallest, 1e-7 * bound)).squareRoot()
    } else {
      let function = Zolotarev(least: hard, terms: 2)
      guard let start = reduce(a, unit, isTall, function) else { return nil }
      (x, largest, condition) = (start.x, start.largest, start.condition)
      square.gram(of: x, columns: isTall, mirrored: false)
      guard let found = Zolotarev(least: function.range, terms: 2).applied(to: square, scale: 1) else { return nil }
      root = found.root
    }
    x = multiply(root, x, isTall)
    guard let result = polish(x, square, root, isTall) else { return nil }
    let sum = put(result, into: a)
    return PolarFactor.Result(rank: a.side, largest: largest.squareRoot() * unit, sum: sum, condition: max(1, condition))
  }

  private static func multiply(_ factor: SingleMatrix, _ x: SingleMatrix, _ isTall: Bool) -> SingleMatrix {
    let result = SingleMatrix(rows: x.rows, columns: x.columns)
    if isTall { result.product(x, factor) } else { result.product(factor, x) }
    return result
  }

  /// A in binary32 with a bound of sigma_1², where that is enough, and its Gram matrix (the lower triangle).
  private static func easyStart(
    _ a: MatrixView, _ unit: Double, _ square: SingleMatrix, _ isTall: Bool
  ) -> (x: SingleMatrix, bound: Double)? {
    guard 4 * max(a.rows, a.columns) > 5 * a.side else { return nil }
    let x = SingleMatrix(a, factor: 1 / unit)
    square.gram(of: x, columns: isTall, mirrored: false)
    let bound = margin * square.largestEigenvalue()
    guard bound > 0, bound.isFinite else { return nil }
    // Is square - easy² bound I positive definite?
    let copy = SingleMatrix(rows: square.rows, columns: square.rows)
    Cut.each(square.count) { (copy.values + $0.lowerBound).update(from: square.values + $0.lowerBound, count: $0.count) }
    for i in 0..<square.rows { copy.values[i * square.rows + i] -= Float(easy * easy * bound) }
    var (n, info) = (Int32(square.rows), Int32(0))
    OpenBLAS.call { spotrf_("U", &n, copy.values, &n, &info, 1) }
    return info == 0 ? (x, bound) : nil
  }

  /// The first function, with the Gram matrix and the inverses in binary64; sigma_1² and the condition, in the unit of x.
  private static func reduce(
    _ a: MatrixView, _ unit: Double, _ isTall: Bool, _ function: Zolotarev
  ) -> (x: SingleMatrix, largest: Double, condition: Double)? {
    let n = a.side
    let gram = DenseMatrix(rows: n, columns: n)
    gram.view.gram(of: a, columns: isTall, mirrored: false)
    let largest = SingleMatrix(gram.view, factor: 1 / unit / unit).largestEigenvalue()
    guard largest > 0, largest.isFinite else { return nil }
    let scale = margin * largest * unit * unit
    // The second takes the Gram matrix's place.
    let (first, second) = (DenseMatrix(rows: n, columns: n), gram)
    Cut.each(n * n) { (first.values + $0.lowerBound).update(from: gram.values + $0.lowerBound, count: $0.count) }
    let found = Crew.map(2) { term -> Bool in
      let own = term == 0 ? first : second
      for i in 0..<n { own.values[i * n + i] += function.shifts[term] * scale }
      return SymmetricInverse.replace(own.values, size: n)
    }
    guard found[0], found[1] else { return nil }
    // Every direction without a singular value counts one here: many of them are no case for this route.
    var missing = 0.0
    for i in 0..<n { missing += first.values[i * n + i] * function.shifts[0] * scale }
    guard missing <= max(2, 0.02 * Double(n)) else { return nil }
    let smallest = 1 / (SingleMatrix(first.view, factor: scale).largestEigenvalue() / scale) - function.shifts[0] * scale
    let condition = (scale / margin / max(smallest, 1e-14 * scale)).squareRoot()
    let outer = function.slope / scale.squareRoot()
    let weights = function.weights.map { $0 * scale * outer }
    Cut.each(n * n) { for i in $0 { gram.values[i] = weights[0] * first.values[i] + weights[1] * second.values[i] } }
    for i in 0..<n { gram.values[i * n + i] += outer }
    gram.view.mirror()
    let result = DenseMatrix(rows: a.rows, columns: a.columns)
    if isTall { result.view.product(a, gram.view) } else { result.view.product(gram.view, a) }
    return (SingleMatrix(result.view, factor: 1), largest, condition)
  }

  /// Newton and Schulz's steps; nil when x is not near enough to orthonormal.
  private static func polish(
    _ start: SingleMatrix, _ square: SingleMatrix, _ scratch: SingleMatrix, _ isTall: Bool
  ) -> SingleMatrix? {
    var x = start
    let n = square.rows
    for _ in 0..<4 {
      square.gram(of: x, columns: isTall)
      Cut.each(n * n) { range in for i in range { square.values[i] = -square.values[i] } }
      for i in 0..<n { square.values[i * n + i] += 1 }
      // I - Y: its largest eigenvalue by magnitude.
      let distance = margin * square.largestEigenvalue()
      guard distance <= 0.5 else { return nil }
      if 3 / 8 * distance * distance <= remainder {
        Cut.each(n * n) { range in for i in range { square.values[i] *= 0.5 } }
        for i in 0..<n { square.values[i * n + i] += 1 }
        return multiply(square, x, isTall)
      }
      // With E = I - Y: I + E / 2 + 3/8 E². Symmetric: its own Gram matrix is its square.
      scratch.gram(of: square, columns: false)
      Cut.each(n * n) { range in
        for i in range { scratch.values[i] = 0.5 * square.values[i] + 0.375 * scratch.values[i] }
      }
      for i in 0..<n { scratch.values[i * n + i] += 1 }
      x = multiply(scratch, x, isTall)
      if 5 / 16 * distance * distance * distance <= remainder { return x }
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

  /// slope / sqrt(scale) (I + sum_j weights_j (square / scale + shifts_j I)^-1) in binary32, times 2 / (1 + range), which puts 1 in the
  /// middle, and the first of these inverses; only lower triangles of the square and the inverse. Nil when it is not definite.
  func applied(to square: SingleMatrix, scale: Double) -> (root: SingleMatrix, first: SingleMatrix)? {
    let n = square.rows
    let inverses = Crew.map(shifts.count) { term -> SingleMatrix? in
      let copy = SingleMatrix(rows: n, columns: n)
      copy.values.update(from: square.values, count: square.count)
      for i in 0..<n { copy.values[i * n + i] += Float(shifts[term] * scale) }
      return SymmetricInverse.replace(copy.values, size: n) ? copy : nil
    }
    guard inverses.allSatisfy({ $0 != nil }) else { return nil }
    let outer = slope / scale.squareRoot() * 2 / (1 + range)
    let sum = SingleMatrix(rows: n, columns: n)
    for (inverse, weight) in zip(inverses, weights) {
      let (source, factor) = (inverse!.values, Float(weight * scale * outer))
      Cut.each(n * n) { for i in $0 { sum.values[i] += factor * source[i] } }
    }
    for i in 0..<n { sum.values[i * n + i] += Float(outer) }
    sum.mirror()
    return (sum, inverses[0]!)
  }
}
