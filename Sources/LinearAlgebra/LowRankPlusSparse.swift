// Low rank plus sparse: W ~ U V + S, by alternating between the two (OATS, Scale-SVD).
//
//   B = W diag(sqrt d);  S = 0;  repeat:  L = B_k, the best rank-k approximation of B - S;  S = (B - L) without its smallest elements
//   U V = L diag(1 / sqrt d),  S = S diag(1 / sqrt d), with the last L and the S made from it
//
// Shapes: W [m, n] row-major; d [n] (ones when there is none), floored at max(1e-12 max d, 1e-30); U [m, k], V [k, n], S [m, n] with
// zeros outside the mask. Arithmetic: binary64.
// Rank: k = min(max(1, floor(rank_ratio (1 - sparsity) m n / (m + n))), r), r = min(m, n). Dropped: the fraction
// eta = 1 - (1 - rank_ratio)(1 - sparsity): row, floor(n eta) of every row; global, floor(m n eta) of the matrix; nOfM, all but the N
// largest of every M neighbouring columns (a last, shorter group keeps N too). Of equal magnitudes the lowest index goes first.
// refit: the low-rank part is made once more from the final S, its rank is at most r - 1, and d + 1e-8 stands for d.
// All iterations are made; |B - L - S| never grows.
// L is the projection of B - S on the leading eigenvectors of its smaller Gram matrix, which is right to about 1e-8 sigma_1; up to
// a side of 64 it comes from the singular value decomposition.
// NaN: refused (nil). Cost: num_iters times (m n r + 5 r³ + 2 r² k + 4 m n k); products and rows are shared with idle workers
// (Crew.swift).
// Source: Zhang and Papyan, "OATS: Outlier-aware pruning through sparse and low rank decomposition", arXiv:2409.13652; AwRank-Merging
// (Scale-SVD), whose refit is iso_iasad's.

import Platform

public struct LowRankPlusSparse {
  public enum Mask: Sendable, Equatable {
    case row
    case global
    case nOfM(keep: Int, of: Int)
  }

  public struct Options: Sendable {
    public var sparsity = 0.1
    public var rankRatio = 0.75
    /// At least 1.
    public var iterations = 10
    public var mask = Mask.row
    public var targetRank: Int?
    /// The fraction that the mask drops.
    public var unstructuredSparsity: Double?
    public var refit = false

    public init() {}

    public func rank(rows: Int, columns: Int) -> Int {
      let r = min(rows, columns)
      let (m, n) = (Double(rows), Double(columns))
      let wanted = targetRank ?? max(1, Int(rankRatio * (1 - sparsity) * m * n / (m + n)))
      return max(1, min(wanted, refit ? r - 1 : r))
    }

    /// How many elements of the sparse part the mask keeps.
    public func kept(rows: Int, columns: Int) -> Int {
      switch mask {
      case .row: rows * (columns - Int(Double(columns) * dropped))
      case .global: rows * columns - Int(Double(rows * columns) * dropped)
      case .nOfM(let keep, let group): rows * (0..<columns).count { $0 % group < keep }
      }
    }

    public var dropped: Double { unstructuredSparsity ?? 1 - (1 - rankRatio) * (1 - sparsity) }
  }

  /// [m, k].
  public let left: DenseMatrix
  /// [k, n].
  public let right: DenseMatrix
  /// [m, n].
  public let sparse: DenseMatrix
  /// |B - L - S| over |B|, 0 for a zero matrix.
  public let residual: Double

  /// - Parameters:
  ///   - w: destroyed.
  ///   - statistic: of the columns, finite and not negative; nil: ones.
  /// - Returns: nil when an element is not finite, LAPACK does not converge, or it has no elements.
  public static func decompose(_ w: DenseMatrix, statistic: [Double]? = nil, _ options: Options) -> LowRankPlusSparse? {
    let b = w.view
    let roots = Self.roots(statistic, columns: w.columns, options)
    guard b.isAddressable, b.peak != nil else { return nil }
    for i in 0..<w.rows { for j in 0..<w.columns { b.row(i)[j] *= roots[j] } }
    guard let peak = b.peak else { return nil }
    let rank = options.rank(rows: w.rows, columns: w.columns)
    let sparse = DenseMatrix(rows: w.rows, columns: w.columns)
    var factors = Factors(
      left: DenseMatrix(rows: w.rows, columns: rank), right: DenseMatrix(rows: rank, columns: w.columns))
    guard peak > 0 else { return LowRankPlusSparse(left: factors.left, right: factors.right, sparse: sparse, residual: 0) }
    // A power of two: exact, and far from the ends of binary64.
    let unit = Double(sign: .plus, exponent: max(peak.exponent, -1000), significand: 1)
    b.scale(by: 1 / unit)
    let s = sparse.view
    var lost = 0.0
    for _ in 0..<max(1, options.iterations) {
      Cut.each(s.count) { for i in $0 { s.values[i] = b.values[i] - s.values[i] } }
      guard let found = Factors.best(rank, of: s) else { return nil }
      factors = found
      Cut.each(s.count) { (s.values + $0.lowerBound).update(from: b.values + $0.lowerBound, count: $0.count) }
      s.product(factors.left.view, factors.right.view, factor: -1, keeping: 1)
      lost = mask(s, options)
    }
    if options.refit {
      let rest = DenseMatrix(rows: w.rows, columns: w.columns)
      for i in 0..<s.count { rest.values[i] = b.values[i] - s.values[i] }
      guard let found = Factors.best(rank, of: rest.view) else { return nil }
      factors = found
      for i in 0..<s.count { rest.values[i] = b.values[i] - s.values[i] }
      rest.view.product(factors.left.view, factors.right.view, factor: -1, keeping: 1)
      lost = square(rest.view)
    }
    let residual = (lost / square(b)).squareRoot()
    for matrix in [factors.right.view, s] {
      for i in 0..<matrix.rows { for j in 0..<matrix.columns { matrix.row(i)[j] *= unit / roots[j] } }
    }
    return LowRankPlusSparse(left: factors.left, right: factors.right, sparse: sparse, residual: residual)
  }

  /// Add U V + S to a matrix.
  public func add(to target: MatrixView) {
    target.product(left.view, right.view, keeping: 1)
    Cut.each(target.count) { for i in $0 { target.values[i] += sparse.values[i] } }
  }

  private static func roots(_ statistic: [Double]?, columns: Int, _ options: Options) -> [Double] {
    guard var d = statistic else { return [Double](repeating: options.refit ? (1 + 1e-8).squareRoot() : 1, count: columns) }
    if options.refit { d = d.map { $0 + 1e-8 } }
    let floor = max(1e-12 * (d.max() ?? 0), 1e-30)
    return d.map { max($0, floor).squareRoot() }
  }

  private static func square(_ a: MatrixView) -> Double {
    var sum = 0.0
    for i in 0..<a.count { sum += a.values[i] * a.values[i] }
    return sum
  }

  /// Zero what the mask drops; the sum of its squares.
  private static func mask(_ s: MatrixView, _ options: Options) -> Double {
    if options.mask == .global {
      let space = DenseMatrix(rows: 1, columns: s.count)
      return OrderStatistic.dropSmallest(
        Int(Double(s.count) * options.dropped), of: s.values, count: s.count, scratch: space.values)
    }
    // A sum per stretch of rows, and these in order: the same for any number of workers.
    let ranges = Cut.ranges(s.rows, work: s.count << 5)
    let losses = Crew.map(ranges.count) { part -> Double in
      let space = DenseMatrix(rows: 1, columns: s.columns)
      return withExtendedLifetime(space) {
        ranges[part].reduce(0) { $0 + mask(row: s.row($1), s.columns, options, scratch: space.values) }
      }
    }
    return losses.reduce(0, +)
  }

  private static func mask(
    row: UnsafeMutablePointer<Double>, _ count: Int, _ options: Options, scratch: UnsafeMutablePointer<Double>
  ) -> Double {
    guard case .nOfM(let keep, let group) = options.mask else {
      return OrderStatistic.dropSmallest(Int(Double(count) * options.dropped), of: row, count: count, scratch: scratch)
    }
    var lost = 0.0
    for start in stride(from: 0, to: count, by: group) {
      let part = min(group, count - start)
      lost += OrderStatistic.dropSmallest(part - keep, of: row + start, count: part, scratch: scratch)
    }
    return lost
  }

  /// Bytes that `decompose` allocates at most beside `w`, its result included.
  public static func workspaceBytes(rows: Int, columns: Int, _ options: Options) -> Int {
    let rank = options.rank(rows: max(1, rows), columns: max(1, columns))
    let factors = rank * (rows + columns) * 8
    let matrices = (options.refit || options.mask == .global ? 2 : 1) * rows * columns * 8 + columns * 128
    return matrices + 2 * factors + Factors.workspaceBytes(rows: rows, columns: columns)
  }
}

/// L = left right of rank k.
private struct Factors {
  let left: DenseMatrix
  let right: DenseMatrix

  /// The best approximation of rank k of `a`, which is destroyed where it is small. Nil when LAPACK does not converge.
  static func best(_ k: Int, of a: MatrixView) -> Factors? {
    guard a.side > TruncatedSVD.smallSide else { return byDecomposition(k, a) }
    let isTall = a.rows > a.columns
    let gram = DenseMatrix(rows: a.side, columns: a.side)
    gram.view.gram(of: a, columns: isTall)
    guard SymmetricSpectrum.decompose(gram.view, wanted: k) != nil else { return nil }
    let vectors = gram.rows(0..<k)
    let factors = Factors(left: DenseMatrix(rows: a.rows, columns: k), right: DenseMatrix(rows: k, columns: a.columns))
    if isTall {
      factors.left.view.product(a, vectors, secondTransposed: true)
      factors.right.values.update(from: vectors.values, count: factors.right.count)
    } else {
      factors.right.view.product(vectors, a)
      for i in 0..<a.rows { for j in 0..<k { factors.left.view.row(i)[j] = vectors.row(j)[i] } }
    }
    return factors
  }

  private static func byDecomposition(_ k: Int, _ a: MatrixView) -> Factors? {
    guard let all = SingularValues.decompose(a) else { return nil }
    let factors = Factors(left: DenseMatrix(rows: a.rows, columns: k), right: DenseMatrix(rows: k, columns: a.columns))
    factors.right.values.update(from: all.right.values, count: factors.right.count)
    for j in 0..<k {
      for i in 0..<a.rows { factors.left.view.row(i)[j] = all.left.view.row(j)[i] }
      factors.right.rows(j..<j + 1).scale(by: all.sigma[j])
    }
    return factors
  }

  static func workspaceBytes(rows: Int, columns: Int) -> Int {
    let r = min(rows, columns)
    if r <= TruncatedSVD.smallSide { return SingularValues.workspaceBytes(rows: rows, columns: columns) }
    return r * r * 8 + SymmetricSpectrum.workspaceBytes(size: r)
  }
}
