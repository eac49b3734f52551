import Testing

@testable import LinearAlgebra

@Suite struct LowRankPlusSparseTests {
  private func decompose(_ w: Matrix, _ d: [Double]? = nil, _ change: (inout LowRankPlusSparse.Options) -> Void = { _ in })
    -> LowRankPlusSparse?
  {
    var options = LowRankPlusSparse.Options()
    change(&options)
    return LowRankPlusSparse.decompose(w.dense, statistic: d, options)
  }

  private func sum(_ parts: LowRankPlusSparse) -> Matrix {
    let target = DenseMatrix(rows: parts.sparse.rows, columns: parts.sparse.columns)
    parts.add(to: target.view)
    return target.matrix
  }

  /// The algorithm in plain words: sorting for the mask, the full decomposition for the rank.
  private func reference(_ w: Matrix, _ d: [Double], _ options: LowRankPlusSparse.Options) -> (low: Matrix, sparse: Matrix) {
    let (m, n) = (w.rows, w.columns)
    let roots = d.map { $0.squareRoot() }
    let b = (0..<m * n).map { w.values[$0] * roots[$0 % n] }
    let k = options.rank(rows: m, columns: n)
    func best(_ values: [Double]) -> [Double] {
      let all = SingularValues.thin(Matrix(rows: m, columns: n, values).dense.view)!
      let left = Matrix(rows: k, columns: m, Array(all.left.matrix.values[..<(k * m)]))
      let right = Matrix(rows: k, columns: n, Array(all.right.matrix.values[..<(k * n)]))
      return left.transpose.times(.diagonal(Array(all.sigma[..<k]))).times(right).values
    }
    var (low, sparse) = ([Double](), [Double](repeating: 0, count: m * n))
    for _ in 0..<options.iterations {
      low = best(zip(b, sparse).map { $0 - $1 })
      sparse = zip(b, low).map { $0 - $1 }
      var groups: [Range<Int>] = []
      var drops: [Int] = []
      switch options.mask {
      case .global: (groups, drops) = ([0..<m * n], [Int(Double(m * n) * options.dropped)])
      case .row:
        groups = (0..<m).map { $0 * n..<($0 + 1) * n }
        drops = groups.map { _ in Int(Double(n) * options.dropped) }
      case .nOfM(let keep, let group):
        for i in 0..<m {
          for start in stride(from: 0, to: n, by: group) {
            groups.append(i * n + start..<i * n + min(start + group, n))
            drops.append(max(0, groups.last!.count - keep))
          }
        }
      }
      for (group, drop) in zip(groups, drops) {
        for i in group.sorted(by: { (sparse[$0].magnitude, $0) < (sparse[$1].magnitude, $1) })[..<drop] { sparse[i] = 0 }
      }
    }
    if options.refit { low = best(zip(b, sparse).map { $0 - $1 }) }
    func unscaled(_ values: [Double]) -> Matrix {
      Matrix(rows: m, columns: n, values.enumerated().map { $0.element / roots[$0.offset % n] })
    }
    return (unscaled(low), unscaled(sparse))
  }

  private static let masks: [LowRankPlusSparse.Mask] = [.row, .global, .nOfM(keep: 2, of: 4), .nOfM(keep: 1, of: 5)]

  @Test(arguments: [(8, 12), (12, 8), (7, 7)]) func itIsTheAlternation(m: Int, n: Int) throws {
    var random = SplitMix64(state: 160)
    let w = Matrix(rows: m, columns: n, random.values(m * n))
    let d = random.values(n).map { $0 * $0 + 0.1 }
    for mask in Self.masks {
      for refit in [false, true] {
        var options = LowRankPlusSparse.Options()
        (options.mask, options.refit, options.iterations, options.rankRatio) = (mask, refit, 4, 0.6)
        let parts = try #require(LowRankPlusSparse.decompose(w.dense, statistic: d, options))
        let (low, sparse) = reference(w, refit ? d.map { $0 + 1e-8 } : d, options)
        #expect(parts.left.matrix.times(parts.right.matrix).distance(to: low) <= 1e-12)
        #expect(parts.sparse.matrix.distance(to: sparse) <= 1e-12)
        #expect(zip(parts.sparse.matrix.values, sparse.values).allSatisfy { ($0 == 0) == ($1 == 0) })
      }
    }
  }

  @Test func theExamplesOfTheSpecificationAreMet() throws {
    let delta = Matrix(rows: 4, columns: 3, [0.10, -0.04, 0.02, 0.06, 0.12, -0.08, -0.02, 0.05, 0.09, 0.03, -0.07, 0.11])
    let row = try #require(decompose(delta, [1, 4, 0.25]))
    let wantRow = [
      0.10, -0.039734855, 0.025862068, 0.06, 0.119996658, -0.078101749, -0.020193154, 0.049981939, 0.09, 0.028348799,
      -0.070168726, 0.11,
    ]
    #expect(sum(row).distance(to: Matrix(rows: 4, columns: 3, wantRow)) <= 1e-9)
    let global = try #require(decompose(delta, [1, 4, 0.25]) { $0.mask = .global })
    let wantGlobal = [
      0.10, -0.039197277, 0.034279527, 0.06, 0.118634580, -0.103750504, -0.019869806, 0.050014817, 0.09, 0.028863262,
      -0.072652484, 0.063537393,
    ]
    #expect(sum(global).distance(to: Matrix(rows: 4, columns: 3, wantGlobal)) <= 1e-9)
  }

  @Test func theRankFollowsTheBudget() {
    var options = LowRankPlusSparse.Options()
    // 0.75 * 0.9 * 48 * 32 / 80 = 12.96
    #expect(options.rank(rows: 48, columns: 32) == 12 && (options.dropped - 0.775).magnitude <= 1e-15)
    options.rankRatio = 0
    #expect(options.rank(rows: 48, columns: 32) == 1)
    (options.rankRatio, options.sparsity) = (1, 0)
    #expect(options.rank(rows: 48, columns: 32) == 19 && options.dropped == 1)
    options.targetRank = 100
    #expect(options.rank(rows: 48, columns: 32) == 32)
    options.refit = true
    #expect(options.rank(rows: 48, columns: 32) == 31 && options.rank(rows: 1, columns: 9) == 1)
    options.unstructuredSparsity = 0.25
    #expect(options.dropped == 0.25)
  }

  @Test func moreIterationsNeverMakeItWorse() throws {
    var random = SplitMix64(state: 161)
    let w = Matrix(rows: 70, columns: 90, random.values(6300))
    var last = Double.infinity
    for iterations in [1, 2, 3, 6] {
      let parts = try #require(decompose(w) { $0.iterations = iterations })
      #expect(parts.residual <= last * (1 + 1e-12))
      last = parts.residual
      let lost = Matrix(rows: 70, columns: 90, zip(w.values, sum(parts).values).map { $0 - $1 })
      let norm = { (x: Matrix) in x.values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
      #expect((norm(lost) / norm(w) - parts.residual).magnitude <= 1e-12)
    }
  }

  @Test(arguments: [(70, 80), (80, 70)]) func theGramMatrixAgreesWithTheDecomposition(m: Int, n: Int) throws {
    // Above a side of 64 the low-rank part comes from the Gram matrix.
    var random = SplitMix64(state: 162)
    let w = Matrix(rows: m, columns: n, random.values(m * n))
    let d = random.values(n).map { $0 * $0 + 0.1 }
    var options = LowRankPlusSparse.Options()
    options.iterations = 2
    let parts = try #require(LowRankPlusSparse.decompose(w.dense, statistic: d, options))
    let (low, sparse) = reference(w, d, options)
    #expect(parts.left.matrix.times(parts.right.matrix).distance(to: low) <= 1e-9)
    #expect(parts.sparse.matrix.distance(to: sparse) <= 1e-9)
  }

  @Test func zeroStatisticsAreFloored() throws {
    var random = SplitMix64(state: 163)
    let w = Matrix(rows: 6, columns: 5, random.values(30))
    let parts = try #require(decompose(w, [0, 1, 2, 0, 1]))
    #expect(sum(parts).values.allSatisfy(\.isFinite) && sum(parts).size < 10)
    #expect(try #require(decompose(w, [0, 0, 0, 0, 0])).sparse.matrix.values.allSatisfy(\.isFinite))
  }

  @Test(arguments: [1e-300, 1e-30, 1e30, 1e290]) func theScaleDoesNotMatter(scale: Double) throws {
    var random = SplitMix64(state: 164)
    let values = random.values(70 * 70)
    let plain = sum(try #require(decompose(Matrix(rows: 70, columns: 70, values)) { $0.iterations = 2 }))
    let scaled = sum(
      try #require(decompose(Matrix(rows: 70, columns: 70, values.map { $0 * scale })) { $0.iterations = 2 }))
    #expect(Matrix(rows: 70, columns: 70, scaled.values.map { $0 / scale }).distance(to: plain) <= 1e-8)
  }

  @Test func degenerateMatrices() throws {
    let zero = try #require(decompose(Matrix(rows: 3, columns: 4, [Double](repeating: 0, count: 12))))
    #expect(sum(zero).size == 0 && zero.residual == 0)
    let one = try #require(decompose(Matrix(rows: 1, columns: 1, [-2])))
    #expect((sum(one)[0, 0] + 2).magnitude <= 1e-15)
    // A matrix of rank 1 is its own low-rank part.
    let flat = Matrix(rows: 3, columns: 3, [1, 2, 3, 2, 4, 6, 3, 6, 9])
    #expect(sum(try #require(decompose(flat))).distance(to: flat) <= 1e-13)
    #expect(LowRankPlusSparse.decompose(DenseMatrix(rows: 0, columns: 3), .init()) == nil)
    for value in [Double.nan, .infinity] {
      #expect(decompose(Matrix(rows: 2, columns: 2, [1, value, 2, 3])) == nil)
    }
  }
}
