import Testing

@testable import LinearAlgebra

@Suite struct SimplexQPTests {
  private static let sizes = isOptimised ? Array(1...20) : [1, 2, 3, 4, 5, 8, 12]

  /// How far x is from satisfying the conditions of Karush, Kuhn and Tucker, relative to the problem's size:
  /// H x - b + nu = gamma, gamma >= 0, gamma x = 0, nu >= 0, nu (1 - sum x) = 0, x >= 0, sum x <= 1.
  private func residual(_ h: [Double], _ b: [Double], _ x: [Double]) -> Double {
    let n = b.count
    var size = 0.0
    for i in 0..<n { size = max(size, b[i].magnitude, h[i * n + i]) }
    if size == 0 { return x.reduce(0) { max($0, -$1) } }
    let gradient = zip(Matrix(rows: n, columns: n, h).times(x), b).map { $0 - $1 }
    let sum = x.reduce(0, +)
    var worst = max(0, sum - 1)
    // The multiplier that fits the free variables best; it is 0 when the sum is free.
    var nu = 0.0
    if sum > 1 - 1e-9 {
      nu = -zip(gradient, x).reduce(0) { $0 + $1.0 * $1.1 } / sum
      worst = max(worst, -nu / size)
    }
    for i in 0..<n {
      worst = max(worst, -x[i], -(gradient[i] + nu) / size)
      if x[i] > 1e-9 { worst = max(worst, (gradient[i] + nu).magnitude / size) }
    }
    return worst
  }

  /// b as YOYO Scale makes it from the Gram matrix.
  private func consensus(_ gram: [Double], _ n: Int) -> [Double] {
    (0..<n).map { j in
      let column = (0..<n).reduce(0.0) { $0 + ($1 == j ? 0 : gram[$1 * n + j]) }
      return column / Double(max(1, n - 1))
    }
  }

  /// Best value over all sets of free variables, with the sum free or 1: only for small n.
  private func leastObjective(_ h: [Double], _ b: [Double], _ n: Int) -> Double {
    var best = 0.0
    for set in 1..<(1 << n) {
      let indices = (0..<n).filter { set >> $0 & 1 == 1 }
      let m = indices.count
      let sub = indices.flatMap { i in indices.map { h[i * n + $0] } }
      let right = indices.map { b[$0] }
      let inner = SymmetricSolve.leastNorm(sub, right, size: m)
      let ones = SymmetricSolve.leastNorm(sub, [Double](repeating: 1, count: m), size: m)
      let shift = (inner.reduce(0, +) - 1) / ones.reduce(0, +)
      for candidate in [inner, zip(inner, ones).map { $0 - shift * $1 }]
      where candidate.allSatisfy({ $0 >= 0 }) && candidate.reduce(0, +) <= 1 + 1e-12 {
        var x = [Double](repeating: 0, count: n)
        for (k, i) in indices.enumerated() { x[i] = candidate[k] }
        best = min(best, objective(h, b, x))
      }
    }
    return best
  }

  private func objective(_ h: [Double], _ b: [Double], _ x: [Double]) -> Double {
    let image = Matrix(rows: b.count, columns: b.count, h).times(x)
    return x.indices.reduce(0) { $0 + x[$1] * (image[$1] / 2 - b[$1]) }
  }

  @Test func theExampleIsSolved() {
    let g: [Double] = [4, 2.5, 1.5, 2.5, 2, 1.4, 1.5, 1.4, 1.2]
    let b = [2, 1.95, 1.45]
    for x in [SimplexQP.solve(g, b, size: 3), SimplexQP.solveDroppingAll(g, b, size: 3)] {
      // Reduction on a matrix of condition 60.
      for (found, known) in zip(x, [0, 0.75, 0.25]) { #expect((found - known).magnitude <= 1e-13, "\(x)") }
    }
  }

  // A KKT residual of 1e-10 is what the method's specification asks for.
  private func checkOptimality(
    _ n: Int, seeds: Range<UInt64>, tolerance: Double = 1e-10, at location: SourceLocation = #_sourceLocation,
    _ problem: (inout SplitMix64) -> (h: [Double], b: [Double])
  ) {
    let bad = seeds.filter { seed in
      var random = SplitMix64(state: seed)
      let (h, b) = problem(&random)
      return residual(h, b, SimplexQP.solve(h, b, size: n)) > tolerance
    }
    #expect(bad.isEmpty, "\(bad.count) of \(seeds.count) seeds, the first \(bad.first ?? 0)", sourceLocation: location)
  }

  @Test(arguments: sizes) func randomProblemsSatisfyTheOptimalityConditions(n: Int) {
    // Right sides from far inside the simplex to far outside.
    for scale in [0.01, 0.3, 3, 30] {
      checkOptimality(n, seeds: 80..<(isOptimised ? 130 : 83)) { random in
        (random.gram(n, rank: n + 1), random.values(n).map { $0 * scale })
      }
    }
  }

  @Test(arguments: sizes) func consensusProblemsSatisfyTheOptimalityConditions(n: Int) {
    checkOptimality(n, seeds: 300..<(isOptimised ? 500 : 310)) { random in
      // A common direction, so that the models agree more or less; vectors of different lengths.
      let (common, share) = (random.values(30), 1 + random.signed())
      var rows: [Double] = []
      for _ in 0..<n {
        let length = 1.1 + random.signed()
        rows += zip(common, random.values(30)).map { ($0 * share + $1) * length }
      }
      let gram = Matrix(rows: n, columns: 30, rows).timesItsTranspose.values
      return (gram, consensus(gram, n))
    }
  }

  @Test(arguments: [2, 3, 4, 6, 9]) func singularProblemsWithTheRightSideInTheRangeSatisfyTheOptimalityConditions(n: Int) {
    checkOptimality(n, seeds: 500..<(isOptimised ? 700 : 510)) { random in
      let gram = random.gram(n, rank: max(1, n / 2))
      return (gram, Matrix(rows: n, columns: n, gram).times(random.values(n)))
    }
  }

  /// As for a tensor with fewer elements than there are models: b is not in the range of H.
  @Test(arguments: [2, 3, 4, 6, 9]) func singularConsensusProblemsSatisfyTheOptimalityConditions(n: Int) {
    checkOptimality(n, seeds: 500..<(isOptimised ? 700 : 510)) { random in
      let gram = random.gram(n, rank: max(1, n / 2))
      return (gram, consensus(gram, n))
    }
  }

  /// The same with the 1e-12 that YOYO Scale adds to the diagonal, for task vectors of every size. Where that makes a condition of
  /// just under 1e10, Cholesky's solutions are ten digits worse than 2^-53.
  @Test(arguments: [2, 3, 4, 6, 9]) func nearlySingularProblemsSatisfyTheOptimalityConditions(n: Int) {
    for scale in [1e-8, 1e-4, 1, 100, 1e4] {
      checkOptimality(n, seeds: 700..<(isOptimised ? 800 : 703), tolerance: 1e-6) { random in
        var gram = random.gram(n, rank: max(1, n / 2)).map { $0 * scale }
        let b = consensus(gram, n)
        for i in 0..<n { gram[i * n + i] += 1e-12 }
        return (gram, b)
      }
    }
  }

  @Test func oneOfTwoCollinearVectorsIsChosen() {
    // d_1 = (1), d_2 = (1/2): b = (1/2, 1/2). Along sum 1 the objective falls towards d_2: (0, 1), with the value 1/8 - 1/2.
    let x = SimplexQP.solve([1, 0.5, 0.5, 0.25], [0.5, 0.5], size: 2)
    for (found, known) in zip(x, [0.0, 1]) { #expect((found - known).magnitude <= 1e-12, "\(x)") }
  }

  @Test(arguments: 1...4) func noSetOfFreeVariablesDoesBetter(n: Int) {
    for seed in UInt64(700)..<(isOptimised ? 900 : 720) {
      var random = SplitMix64(state: seed)
      let h = random.gram(n, rank: n + 1)
      let b = random.values(n)
      let found = objective(h, b, SimplexQP.solve(h, b, size: n))
      // Reduction: some n² roundings of numbers around 1.
      #expect(found <= leastObjective(h, b, n) + 1e-12, "seed \(seed)")
    }
  }

  @Test func problemsWithoutGainAnswerZero() {
    #expect(SimplexQP.solve([], [], size: 0) == [])
    #expect(SimplexQP.solve([2, 1, 1, 2], [-1, -0.5], size: 2) == [0, 0])
    #expect(SimplexQP.solve([2, 1, 1, 2], [0, 0], size: 2) == [0, 0])
    #expect(SimplexQP.solve([0, 0, 0, 0], [0, 0], size: 2) == [0, 0])
    #expect(SimplexQP.solveDroppingAll([2, 1, 1, 2], [-1, -0.5], size: 2) == [0, 0])
  }

  @Test func oneVariableIsCutAtOne() {
    #expect(SimplexQP.solve([2], [1], size: 1) == [0.5])
    #expect(SimplexQP.solve([2], [6], size: 1) == [1])
    #expect(SimplexQP.solve([2], [-6], size: 1) == [0])
  }

  @Test(arguments: [2, 3, 5, 8]) func identicalVectorsAreNoTrouble(n: Int) {
    let gram = [Double](repeating: 0.7, count: n * n)
    let x = SimplexQP.solve(gram, consensus(gram, n), size: n)
    // Any split with sum 1 is optimal.
    #expect((x.reduce(0, +) - 1).magnitude <= 1e-12 && x.allSatisfy { $0 >= 0 }, "\(x)")
  }

  @Test(arguments: [1e-12, 1e-6, 1e6, 1e12]) func theSolutionDoesNotDependOnTheScale(scale: Double) {
    let g: [Double] = [4, 2.5, 1.5, 2.5, 2, 1.4, 1.5, 1.4, 1.2]
    let x = SimplexQP.solve(g.map { $0 * scale }, [2, 1.95, 1.45].map { $0 * scale }, size: 3)
    for (found, known) in zip(x, [0, 0.75, 0.25]) { #expect((found - known).magnitude <= 1e-12, "\(x)") }
  }

  @Test(arguments: 1...8) func droppingAllIsOptimalOrAnswersZero(n: Int) {
    var optimal = 0
    let seeds = UInt64(900)..<(isOptimised ? 1100 : 920)
    for seed in seeds {
      var random = SplitMix64(state: seed)
      let h = random.gram(n, rank: n + 1)
      let b = random.values(n)
      let x = SimplexQP.solveDroppingAll(h, b, size: n)
      if residual(h, b, x) <= 1e-10 { optimal += 1 } else { #expect(x.allSatisfy { $0 == 0 }, "seed \(seed): \(x)") }
    }
    // Dropping a variable that would come back is rare.
    #expect(optimal > seeds.count / 2)
  }
}
