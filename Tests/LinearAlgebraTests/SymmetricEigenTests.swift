import Testing

@testable import LinearAlgebra

// Reductions: a Jacobi sweep does O(n) rotations on each element, each with a few roundings, and there are about ten sweeps.
@Suite struct SymmetricEigenTests {
  private static let sizes = isOptimised ? [1, 2, 3, 4, 5, 8, 16, 33, 64] : [1, 2, 3, 4, 5, 8, 16]

  private func tolerance(_ n: Int) -> Double { 40 * Double(n) * 0x1p-53 }

  private func check(_ matrix: [Double], _ n: Int, _ note: String) {
    let a = Matrix(rows: n, columns: n, matrix)
    let eigen = SymmetricEigen(matrix, size: n)
    let v = Matrix(rows: n, columns: n, eigen.vectors)
    #expect(eigen.size == n && eigen.values.count == n)
    let rebuilt = v.transpose.times(.diagonal(eigen.values)).times(v)
    #expect(rebuilt.distance(to: a) <= tolerance(n) * Double(n) * a.size, "reconstruction: \(note)")
    #expect(v.timesItsTranspose.distance(to: .identity(n)) <= tolerance(n), "orthogonality: \(note)")
    #expect(zip(eigen.values, eigen.values.dropFirst()).allSatisfy { $0 >= $1 }, "descending: \(note)")
    for k in 0..<n {
      #expect(Array(eigen.vector(k)) == Array(eigen.vectors[k * n..<(k + 1) * n]))
      let peak = eigen.vector(k).max { $0.magnitude < $1.magnitude }!
      #expect(peak > 0, "sign of vector \(k): \(note)")
    }
  }

  @Test(arguments: sizes) func definiteMatricesAreTakenApart(n: Int) {
    for seed in UInt64(60)..<64 {
      var random = SplitMix64(state: seed)
      check(random.gram(n, rank: n + 2), n, "seed \(seed)")
    }
  }

  @Test(arguments: sizes) func indefiniteMatricesAreTakenApart(n: Int) {
    for seed in UInt64(64)..<68 {
      var random = SplitMix64(state: seed)
      let half = Matrix(rows: n, columns: n, random.values(n * n))
      let sum = zip(half.values, half.transpose.values).map { $0 + $1 }
      check(sum, n, "seed \(seed)")
    }
  }

  @Test(arguments: sizes) func singularMatricesHaveEigenvaluesAtZero(n: Int) {
    var random = SplitMix64(state: 68)
    let rank = max(1, n / 2)
    let matrix = random.gram(n, rank: rank)
    check(matrix, n, "rank \(rank)")
    let values = SymmetricEigen(matrix, size: n).values
    for value in values[rank...] { #expect(value.magnitude <= tolerance(n) * values[0]) }
  }

  @Test func diagonalMatricesAreOnlySorted() {
    let eigen = SymmetricEigen(Matrix.diagonal([2, -7, 5, 0, 5]).values, size: 5)
    #expect(eigen.values == [5, 5, 2, 0, -7])
    // Equal values keep their order.
    #expect((0..<5).map { eigen.vector($0).firstIndex(of: 1)! - $0 * 5 } == [2, 4, 0, 3, 1])
  }

  @Test func knownMatricesHaveTheirKnownValues() {
    let swap = SymmetricEigen([0, 1, 1, 0], size: 2)
    #expect(swap.values == [1, -1])
    #expect(SymmetricEigen([7], size: 1).values == [7])
    #expect(SymmetricEigen([7], size: 1).vectors == [1])
    #expect(SymmetricEigen([-7], size: 1).vectors == [1])
    #expect(SymmetricEigen([], size: 0).values.isEmpty)
    #expect(SymmetricEigen([Double](repeating: 0, count: 9), size: 3).values == [0, 0, 0])
    // All ones: n once, 0 otherwise; the first vector is constant.
    let ones = SymmetricEigen([Double](repeating: 1, count: 16), size: 4)
    #expect((ones.values[0] - 4).magnitude <= 8 * 0x1p-52)
    for value in ones.values[1...] { #expect(value.magnitude <= 0x1p-50) }
    for x in ones.vector(0) { #expect((x - 0.5).magnitude <= 0x1p-50) }
  }

  @Test func onlyTheUpperTriangleIsRead() {
    let full = SymmetricEigen([4, 1, 2, 1, 3, 0, 2, 0, 1], size: 3)
    let upper = SymmetricEigen([4, 1, 2, .nan, 3, 0, .nan, .nan, 1], size: 3)
    #expect(upper.values == full.values && upper.vectors == full.vectors)
  }

  @Test func smallEigenvaluesOfAGradedMatrixKeepTheirDigits() {
    // D B D with det B = 21: B is well conditioned, so every eigenvalue is determined to a few units (Demmel and Veselić). The
    // product of all is det(D)² det(B), and it can only be right if the smallest is.
    let b: [Double] = [4, 1, 2, 1, 3, 1, 2, 1, 3]
    for power in [0, 10, 20, 40] {
      let d = (0..<3).map { Double(sign: .plus, exponent: -power * $0, significand: 1) }
      let graded = (0..<9).map { b[$0] * d[$0 / 3] * d[$0 % 3] }
      let eigen = SymmetricEigen(graded, size: 3)
      let scale = d[1] * d[1] * d[2] * d[2]
      let product = eigen.values[0] * eigen.values[1] * (eigen.values[2] / scale)
      // A few rotations, each some units of the condition of B (about 6).
      #expect((product / determinant - 1).magnitude <= 200 * 0x1p-53, "graded by 2^-\(power)")
    }
  }

  /// 4 (9 - 1) - 1 (3 - 2) + 2 (1 - 6).
  private let determinant = 21.0

  @Test(arguments: [-400, -100, 100, 400]) func aPowerOfTwoChangesNoDigit(exponent: Int) {
    var random = SplitMix64(state: 69)
    let scale = Double(sign: .plus, exponent: exponent, significand: 1)
    let matrix = random.gram(5, rank: 5)
    let plain = SymmetricEigen(matrix, size: 5)
    let scaled = SymmetricEigen(matrix.map { $0 * scale }, size: 5)
    #expect(scaled.values == plain.values.map { $0 * scale })
    #expect(scaled.vectors == plain.vectors)
  }

  @Test(arguments: [-600, 600]) func productsOfTheDiagonalMayOverflowOrUnderflow(exponent: Int) {
    let scale = Double(sign: .plus, exponent: exponent, significand: 1)
    let eigen = SymmetricEigen([2 * scale, scale, scale, 2 * scale], size: 2)
    #expect((eigen.values[0] / scale - 3).magnitude <= 0x1p-50 && (eigen.values[1] / scale - 1).magnitude <= 0x1p-50)
  }
}
