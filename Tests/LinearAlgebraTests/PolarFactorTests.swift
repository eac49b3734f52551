import Testing

@testable import LinearAlgebra

// Q = U Vᵀ is the matrix with orthonormal columns (rows, when wide) for which QᵀA (A Qᵀ) is symmetric positive semidefinite: that is
// tested, rather than any particular decomposition. Reduction: LAPACK's backward error is a few max(m, n) units of |A|.
@Suite struct PolarFactorTests {
  private static let shapes = [(1, 1), (2, 2), (5, 5), (7, 3), (3, 7), (1, 10), (10, 1), (40, 12), (12, 40), (33, 33)]

  private func polar(_ a: Matrix) -> (factor: Matrix, sigma: Double)? {
    var values = a.values
    let sigma = values.withUnsafeMutableBufferPointer { PolarFactor.replace($0.baseAddress!, rows: a.rows, columns: a.columns) }
    return sigma.map { (Matrix(rows: a.rows, columns: a.columns, values), $0) }
  }

  private func tolerance(_ a: Matrix) -> Double { 50 * Double(max(a.rows, a.columns)) * 0x1p-53 }

  /// QᵀA for a tall matrix, A Qᵀ for a wide one: the small square factor.
  private func inner(_ q: Matrix, _ a: Matrix) -> Matrix {
    a.rows >= a.columns ? q.transpose.times(a) : a.times(q.transpose)
  }

  private func orthonormality(_ q: Matrix) -> Double {
    let small = q.rows >= q.columns ? q.transpose : q
    return small.timesItsTranspose.distance(to: .identity(small.rows))
  }

  @Test(arguments: shapes) func theFactorIsOrthonormalAndWhatRemainsIsSymmetricAndPositive(rows: Int, columns: Int) throws {
    for seed in UInt64(90)..<94 {
      var random = SplitMix64(state: seed)
      let a = Matrix(rows: rows, columns: columns, random.values(rows * columns))
      let (q, sigma) = try #require(polar(a))
      #expect(orthonormality(q) <= tolerance(a), "seed \(seed)")
      let s = inner(q, a)
      #expect(s.distance(to: s.transpose) <= tolerance(a) * sigma, "seed \(seed)")
      let eigen = SymmetricEigen(s.values, size: s.rows)
      #expect(eigen.values.last! >= -tolerance(a) * sigma, "seed \(seed)")
      // The largest singular value of A is the largest eigenvalue of S.
      #expect((eigen.values[0] - sigma).magnitude <= tolerance(a) * sigma, "seed \(seed)")
    }
  }

  @Test(arguments: shapes) func theTransposeHasTheTransposedFactor(rows: Int, columns: Int) throws {
    var random = SplitMix64(state: 94)
    let a = Matrix(rows: rows, columns: columns, random.values(rows * columns))
    let (q, sigma) = try #require(polar(a))
    let (transposed, same) = try #require(polar(a.transpose))
    // The factor is as sensitive as the inverse of the smallest singular value: 1e-9 leaves room for a condition of 1e5.
    #expect(transposed.transpose.distance(to: q) <= 1e-9)
    #expect((same - sigma).magnitude <= tolerance(a) * sigma)
  }

  @Test func anOrthogonalMatrixIsItsOwnFactor() throws {
    let (c, s) = (0.6, 0.8)
    let rotation = Matrix(rows: 2, columns: 2, [c, -s, s, c])
    let (q, sigma) = try #require(polar(rotation))
    #expect(q.distance(to: rotation) <= 0x1p-50 && (sigma - 1).magnitude <= 0x1p-50)
    let (identity, largest) = try #require(polar(Matrix.diagonal([3, 0.5, 7])))
    #expect(identity.distance(to: .identity(3)) <= 0x1p-50 && (largest - 7).magnitude <= 0x1p-49)
  }

  @Test(arguments: [(5.0, 1.0), (-0.25, -1.0), (1e-300, 1.0), (-1e300, -1.0)]) func aNumberHasItsSignAndSize(
    value: Double, sign: Double
  ) throws {
    let (q, sigma) = try #require(polar(Matrix(rows: 1, columns: 1, [value])))
    #expect((q[0, 0] - sign).magnitude <= 0x1p-52)
    #expect((sigma / value.magnitude - 1).magnitude <= 0x1p-50)
  }

  @Test func aVectorIsNormalised() throws {
    let (q, sigma) = try #require(polar(Matrix(rows: 1, columns: 2, [3, -4])))
    #expect(q.distance(to: Matrix(rows: 1, columns: 2, [0.6, -0.8])) <= 0x1p-51)
    #expect((sigma - 5).magnitude <= 0x1p-49)
  }

  @Test(arguments: [0x1p-300, 0x1p-20, 0x1p20, 0x1p300]) func theFactorDoesNotDependOnTheScale(scale: Double) throws {
    var random = SplitMix64(state: 95)
    let a = Matrix(rows: 6, columns: 4, random.values(24))
    let (q, sigma) = try #require(polar(a))
    let (scaled, large) = try #require(polar(Matrix(rows: 6, columns: 4, a.values.map { $0 * scale })))
    #expect(scaled.distance(to: q) <= 1e-12)
    #expect((large / scale / sigma - 1).magnitude <= 1e-14)
  }

  @Test func rankDeficientMatricesKeepTheirRange() throws {
    // Rank 1: the direction of A is in Q, whatever LAPACK adds.
    let a = Matrix(rows: 3, columns: 2, [2, 4, 1, 2, 2, 4])
    let (q, sigma) = try #require(polar(a))
    #expect((sigma - 45.0.squareRoot()).magnitude <= 1e-14)
    let s = inner(q, a)
    #expect(s.distance(to: s.transpose) <= 1e-14)
    #expect(a.distance(to: q.times(s)) <= 1e-14)
    #expect(orthonormality(q) <= 1e-14)
    let zero = try #require(polar(Matrix(rows: 2, columns: 2, [0, 0, 0, 0])))
    #expect(zero.sigma == 0 && orthonormality(zero.factor) <= 1e-14)
  }

  @Test(arguments: [Double.nan, .infinity, -.infinity]) func nonFiniteMatricesAreRefusedAndLeftAlone(value: Double) {
    for shape in [(3, 3), (5, 2), (2, 5)] {
      var matrix = [Double](repeating: 1, count: shape.0 * shape.1)
      matrix[4] = value
      let before = matrix.map(\.bitPattern)
      let sigma = matrix.withUnsafeMutableBufferPointer {
        PolarFactor.replace($0.baseAddress!, rows: shape.0, columns: shape.1)
      }
      #expect(sigma == nil)
      #expect(matrix.map(\.bitPattern) == before)
    }
  }

  @Test func emptyMatricesAreRefused() {
    var matrix = [1.0]
    #expect(PolarFactor.replace(&matrix, rows: 0, columns: 3) == nil)
    #expect(PolarFactor.replace(&matrix, rows: 3, columns: 0) == nil)
    #expect(PolarFactor.replace(&matrix, rows: -1, columns: 1) == nil)
    #expect(matrix == [1])
  }

  @Test func theLibraryIsNamed() {
    #expect(OpenBLAS.version.hasPrefix("OpenBLAS"))
    #expect(!OpenBLAS.core.isEmpty)
  }

  @Test func repeatedCallsGiveTheSameBits() throws {
    var random = SplitMix64(state: 96)
    let a = Matrix(rows: 64, columns: 48, random.values(64 * 48))
    let (first, second) = (try #require(polar(a)), try #require(polar(a)))
    #expect(first.factor.values == second.factor.values && first.sigma == second.sigma)
  }
}
