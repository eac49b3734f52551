import Testing

@testable import LinearAlgebra

// U diag(sigma) Vᵀ = A with orthonormal U and V and falling sigma: that is the definition. Reduction: LAPACK's backward error.
@Suite struct SingularValuesTests {
  static let shapes = [(1, 1), (1, 6), (6, 1), (4, 4), (9, 5), (5, 9), (40, 33), (12, 70)]

  /// Largest errors of reconstruction (over sigma_1) and of orthogonality.
  static func errors(_ triplets: SingularTriplets, _ a: Matrix) -> (reconstruction: Double, orthogonality: Double) {
    let (left, right) = (triplets.left.matrix, triplets.right.matrix)
    let k = triplets.sigma.count
    let back = left.transpose.times(.diagonal(triplets.sigma)).times(right)
    return (
      back.distance(to: a) / max(triplets.sigma[0], .leastNormalMagnitude),
      max(left.timesItsTranspose.distance(to: .identity(k)), right.timesItsTranspose.distance(to: .identity(k)))
    )
  }

  @Test(arguments: shapes) func theTripletsRebuildTheMatrix(rows: Int, columns: Int) throws {
    for seed in UInt64(130)..<133 {
      var random = SplitMix64(state: seed)
      let a = Matrix(rows: rows, columns: columns, random.values(rows * columns))
      let triplets = try #require(SingularValues.thin(a.dense.view))
      #expect(triplets.sigma.count == min(rows, columns) && triplets.sigma == triplets.sigma.sorted(by: >))
      let (reconstruction, orthogonality) = Self.errors(triplets, a)
      let tolerance = 50 * Double(max(rows, columns)) * 0x1p-53
      #expect(reconstruction <= tolerance && orthogonality <= tolerance, "seed \(seed)")
    }
  }

  @Test func theLargestComponentOfARightVectorIsPositive() throws {
    var random = SplitMix64(state: 134)
    let triplets = try #require(SingularValues.thin(Matrix(rows: 9, columns: 7, random.values(63)).dense.view))
    for j in 0..<7 {
      let vector = (0..<7).map { triplets.right.matrix[j, $0] }
      #expect(vector.max { $0.magnitude < $1.magnitude }! > 0)
    }
  }

  @Test(arguments: [1e-300, 1e-30, 1e30, 1e300]) func theScaleDoesNotMatter(scale: Double) throws {
    var random = SplitMix64(state: 135)
    let a = random.values(24)
    let plain = try #require(SingularValues.thin(Matrix(rows: 6, columns: 4, a).dense.view))
    let scaled = try #require(SingularValues.thin(Matrix(rows: 6, columns: 4, a.map { $0 * scale }).dense.view))
    for (one, other) in zip(plain.sigma, scaled.sigma) { #expect((other / scale / one - 1).magnitude <= 1e-13) }
    #expect(scaled.right.matrix.distance(to: plain.right.matrix) <= 1e-12)
  }

  @Test func zeroAndEqualSingularValues() throws {
    let zero = try #require(SingularValues.thin(DenseMatrix(rows: 3, columns: 4).view))
    #expect(zero.sigma == [0, 0, 0])
    #expect(zero.right.matrix.timesItsTranspose.distance(to: .identity(3)) <= 1e-15)
    let equal = try #require(SingularValues.thin(Matrix.diagonal([2, -2, 2]).dense.view))
    #expect(equal.sigma.allSatisfy { ($0 - 2).magnitude <= 1e-15 })
    #expect(Self.errors(equal, .diagonal([2, -2, 2])).reconstruction <= 1e-15)
  }

  @Test func whatIsNotFiniteOrEmptyIsRefused() {
    for shape in [(0, 3), (3, 0), (0, 0)] {
      #expect(SingularValues.thin(DenseMatrix(rows: shape.0, columns: shape.1).view) == nil)
    }
    for value in [Double.nan, .infinity] {
      let a = DenseMatrix(rows: 5, columns: 5)
      a.values[7] = value
      #expect(SingularValues.thin(a.view) == nil)
    }
  }

  @Test func theWorkspaceIsKnownBeforehand() {
    // Two sides, one of them twice, and LAPACK's minimum for the smaller side.
    for (m, n) in Self.shapes {
      let r = min(m, n)
      #expect(SingularValues.workspaceBytes(rows: m, columns: n) >= (r * (2 * m + n) + 3 * r * r + 7 * r) * 8)
    }
    #expect(SingularValues.workspaceBytes(rows: 0, columns: 4) == 0)
  }
}
