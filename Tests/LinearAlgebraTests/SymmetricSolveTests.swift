import Testing

@testable import LinearAlgebra

@Suite struct SymmetricSolveTests {
  private func residual(_ a: [Double], _ x: [Double], _ y: [Double]) -> Double {
    let n = y.count
    let image = Matrix(rows: n, columns: n, a).times(x)
    return zip(image, y).reduce(0) { max($0, ($1.0 - $1.1).magnitude) }
  }

  @Test(arguments: [1, 2, 3, 5, 10, 20]) func definiteSystemsAreSolved(n: Int) {
    for seed in UInt64(70)..<75 {
      var random = SplitMix64(state: seed)
      let a = random.gram(n, rank: 2 * n + 2)
      let x = random.values(n)
      let y = Matrix(rows: n, columns: n, a).times(x)
      let solution = SymmetricSolve.leastNorm(a, y, size: n)
      // Reduction, backward stable: n roundings of elements up to |A| |x|; these matrices have a condition below 1e3.
      let size = Matrix(rows: n, columns: n, a).size
      #expect(residual(a, solution, y) <= 4 * Double(n) * 0x1p-53 * size * Double(n), "seed \(seed)")
      for (found, known) in zip(solution, x) { #expect((found - known).magnitude <= 1e-11, "seed \(seed)") }
    }
  }

  @Test(arguments: [(2, 1), (3, 1), (3, 2), (6, 3), (10, 4)]) func singularSystemsGiveTheLeastNorm(n: Int, rank: Int) {
    for seed in UInt64(75)..<80 {
      var random = SplitMix64(state: seed)
      let factor = Matrix(rows: n, columns: rank, random.values(n * rank))
      let a = factor.timesItsTranspose.values
      // y = A z is in the range; so is the solution of least norm, which makes it F w for some w, and of all solutions z + null
      // vector the shortest: no longer than z.
      let z = random.values(n)
      let y = Matrix(rows: n, columns: n, a).times(z)
      let x = SymmetricSolve.leastNorm(a, y, size: n)
      #expect(residual(a, x, y) <= 1e-11, "seed \(seed)")
      // Its part outside the range: x - F (FᵀF)⁻¹ Fᵀ x.
      let gramOfFactor = factor.transpose.timesItsTranspose.values
      let w = SymmetricSolve.leastNorm(gramOfFactor, factor.transpose.times(x), size: rank)
      let outside = zip(x, factor.times(w)).reduce(0) { max($0, ($1.0 - $1.1).magnitude) }
      #expect(outside <= 1e-10, "seed \(seed)")
      let norms = [x, z].map { $0.reduce(0) { $0 + $1 * $1 } }
      #expect(norms[0] <= norms[1] * (1 + 1e-9), "seed \(seed)")
    }
  }

  @Test(arguments: [2, 3, 4, 7]) func identicalRowsShareEqually(n: Int) {
    // x = 1/n each, whatever the scale. Reduction: some n roundings.
    for scale in [1e-12, 0.37, 1, 1e9] {
      let a = [Double](repeating: scale, count: n * n)
      let x = SymmetricSolve.leastNorm(a, [Double](repeating: scale, count: n), size: n)
      for value in x { #expect((value * Double(n) - 1).magnitude <= 16 * Double(n) * 0x1p-53, "\(x)") }
    }
  }

  @Test(arguments: 2...8) func identicalRowsShareEquallyDespiteASmallRidge(n: Int) {
    // g everywhere and 1e-12 more on the diagonal: x = g / (n g + 1e-12) each. The other eigenvalues, 1e-12, would blow up the
    // rounding of a right side that has no part along them.
    for g in [0.05, 0.3, 1, 5] {
      let a = (0..<n * n).map { $0 % (n + 1) == 0 ? g + 1e-12 : g }
      let x = SymmetricSolve.leastNorm(a, [Double](repeating: g, count: n), size: n)
      let expected = g / (Double(n) * g + 1e-12)
      for value in x { #expect((value / expected - 1).magnitude <= 1e-12, "\(g): \(x)") }
    }
  }

  @Test func aPairOfIdenticalRowsSharesThePartOfOne() {
    // Rows 0 and 2 are the same vector: together they get what one would get alone.
    let a: [Double] = [2, 1, 2, 1, 3, 1, 2, 1, 2]
    let x = SymmetricSolve.leastNorm(a, [1, 2, 1], size: 3)
    let alone = SymmetricSolve.leastNorm([2, 1, 1, 3], [1, 2], size: 2)
    #expect((x[0] - x[2]).magnitude <= 0x1p-50)
    #expect((x[0] + x[2] - alone[0]).magnitude <= 0x1p-49 && (x[1] - alone[1]).magnitude <= 0x1p-49)
  }

  @Test func whatIsOutsideTheRangeIsIgnored() {
    let a: [Double] = [2, 0, 0, 0, 0, 0, 0, 0, 4]
    #expect(SymmetricSolve.leastNorm(a, [2, 100, 2], size: 3) == [1, 0, 0.5])
    #expect(SymmetricSolve.leastNorm([Double](repeating: 0, count: 4), [1, -1], size: 2) == [0, 0])
    #expect(SymmetricSolve.leastNorm([1, 1, 1, 1], [1, -1], size: 2).allSatisfy { $0.magnitude <= 0x1p-50 })
  }

  @Test func smallSystemsAreExact() {
    #expect(SymmetricSolve.leastNorm([], [], size: 0) == [])
    #expect(SymmetricSolve.leastNorm([4], [2], size: 1) == [0.5])
    #expect(SymmetricSolve.leastNorm([4, 2, 2, 5], [8, 12], size: 2) == [1, 2])
  }

  @Test func gradedDefiniteSystemsAreSolvedWithoutACutoff() {
    // The pivots of D B D are as good as those of B, however small its last elements.
    let d = [1, 1e-8, 1e-16]
    let b: [Double] = [4, 1, 2, 1, 3, 1, 2, 1, 3]
    let a = (0..<9).map { b[$0] * d[$0 / 3] * d[$0 % 3] }
    // B (1, 2, 3) = (12, 10, 13).
    let x = SymmetricSolve.leastNorm(a, [12 * d[0], 10 * d[1], 13 * d[2]], size: 3)
    for (k, known) in [1.0, 2, 3].enumerated() { #expect((x[k] * d[k] - known).magnitude <= 1e-14) }
  }

  @Test func eigenvaluesBelowTheCutoffAreLeftOut() {
    // Rank 1 and a bit: eigenvalues 2 and 2e-12, the latter for (1, -1).
    let a: [Double] = [1 + 1e-12, 1 - 1e-12, 1 - 1e-12, 1 + 1e-12]
    let y = [1 + 1e-12, 1 - 1e-12]
    let cut = SymmetricSolve.leastNorm(a, y, size: 2, cutoff: 1e-11)
    #expect((cut[0] - 0.5).magnitude <= 1e-12 && (cut[1] - 0.5).magnitude <= 1e-12)
    // Kept, it turns (1/2, 1/2) into (1, 0), up to 2^-53 / 1e-12.
    let kept = SymmetricSolve.leastNorm(a, y, size: 2, cutoff: 1e-13)
    #expect((kept[0] - 1).magnitude <= 1e-3 && kept[1].magnitude <= 1e-3)
  }
}
