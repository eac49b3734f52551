import Glibc
import Testing

@testable import LinearAlgebra

// Q = U Vᵀ is the matrix with orthonormal columns (rows, when wide) for which QᵀA (A Qᵀ) is symmetric positive semidefinite: that is
// tested, rather than any particular decomposition. Reduction: LAPACK's backward error is a few max(m, n) units of |A|.
@Suite struct PolarFactorTests {
  private static let shapes = [(1, 1), (2, 2), (5, 5), (7, 3), (3, 7), (1, 10), (10, 1), (40, 12), (12, 40), (33, 33)]

  private func polar(_ a: Matrix) -> (factor: Matrix, sigma: Double)? {
    polar(a, .complete).map { ($0.factor, $0.result.largest) }
  }

  private func polar(
    _ a: Matrix, _ nullSpace: PolarFactor.NullSpace, tolerance: Double = 1e-6, route: PolarFactor.Route = .automatic
  ) -> (factor: Matrix, result: PolarFactor.Result)? {
    let dense = a.dense
    return PolarFactor.replace(dense.view, nullSpace, tolerance, 1e-6, route: route).map { (dense.matrix, $0) }
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
      let matrix = DenseMatrix(rows: shape.0, columns: shape.1)
      matrix.values[4] = value
      let before = matrix.matrix.values.map(\.bitPattern)
      for nullSpace in [PolarFactor.NullSpace.drop, .complete] {
        #expect(PolarFactor.replace(matrix.view, nullSpace: nullSpace) == nil)
      }
      #expect(matrix.matrix.values.map(\.bitPattern) == before)
    }
  }

  @Test func emptyMatricesAreRefused() {
    for shape in [(0, 3), (3, 0), (0, 0)] {
      #expect(PolarFactor.replace(DenseMatrix(rows: shape.0, columns: shape.1).view) == nil)
    }
  }

  @Test func repeatedCallsGiveTheSameBits() throws {
    var random = SplitMix64(state: 96)
    let a = Matrix(rows: 64, columns: 48, random.values(64 * 48))
    let (first, second) = (try #require(polar(a)), try #require(polar(a)))
    #expect(first.factor.values == second.factor.values && first.sigma == second.sigma)
  }

  // MARK: - Null spaces

  @Test func droppingLeavesAPartialIsometry() throws {
    // Rank 3 of 5 x 7: QᵀQ and QQᵀ are projectors on row and column space, and Q agrees with A there.
    var random = SplitMix64(state: 97)
    let a = Matrix(rows: 5, columns: 3, random.values(15)).times(Matrix(rows: 3, columns: 7, random.values(21)))
    let (q, result) = try #require(polar(a, .drop))
    #expect(result.rank == 3 && result.condition < 1e3)
    let projector = q.timesItsTranspose
    #expect(projector.times(projector).distance(to: projector) <= 1e-12)
    #expect(projector.times(a).distance(to: a) <= 1e-12)
    let s = a.times(q.transpose)
    #expect(s.distance(to: s.transpose) <= 1e-12)
    // The trace of the positive factor is the sum of the singular values.
    let trace = (0..<5).reduce(0.0) { $0 + s[$1, $1] }
    #expect((trace - result.sum).magnitude <= 1e-12)
    let complete = try #require(polar(a, .complete))
    #expect(complete.result.rank == 5 && orthonormality(complete.factor) <= 1e-12)
    #expect((complete.result.sum - trace).magnitude <= 1e-12)
  }

  @Test func theToleranceDecidesWhatIsZero() throws {
    let a = Matrix.diagonal([2, 2e-5, 2e-9])
    for (tolerance, rank) in [(1e-12, 3), (1e-6, 2), (1e-3, 1)] {
      let (q, result) = try #require(polar(a, .drop, tolerance: tolerance))
      #expect(result.rank == rank && q.distance(to: .diagonal((0..<3).map { $0 < rank ? 1 : 0 })) <= 1e-12)
      #expect((result.sum - [2, 2e-5, 2e-9][..<rank].reduce(0, +)).magnitude <= 1e-14)
    }
  }

  @Test func aZeroMatrixHasNoDirection() throws {
    let (q, result) = try #require(polar(Matrix(rows: 3, columns: 2, [Double](repeating: 0, count: 6)), .drop))
    #expect(q.size == 0 && result.rank == 0 && result.sum == 0 && result.largest == 0)
  }

  // MARK: - By the Gram matrix

  /// U diag(sigma) Vᵀ of random orthonormal U and V, from the small decomposition.
  static func withSpectrum(_ sigma: [Double], rows: Int, columns: Int, seed: UInt64) -> Matrix {
    var random = SplitMix64(state: seed)
    let all = SingularValues.thin(Matrix(rows: rows, columns: columns, random.values(rows * columns)).dense.view)!
    for (j, value) in sigma.enumerated() { all.right.rows(j..<j + 1).scale(by: value) }
    let result = DenseMatrix(rows: rows, columns: columns)
    result.view.product(all.left.rows(0..<sigma.count), all.right.rows(0..<sigma.count), firstTransposed: true)
    return result.matrix
  }

  @Test(arguments: [(20, 20), (20, 50), (50, 20), (30, 1000), (1100, 8)])
  func bothRoutesAgree(rows: Int, columns: Int) throws {
    let r = min(rows, columns)
    // Condition 1e3: the Gram matrix loses eps * 1e6.
    let sigma = (0..<r).map { 3 * pow(1e-3, Double($0) / Double(max(1, r - 1))) }
    for seed in UInt64(98)..<101 {
      let a = Self.withSpectrum(sigma, rows: rows, columns: columns, seed: seed)
      for nullSpace in [PolarFactor.NullSpace.drop, .complete] {
        let gram = try #require(polar(a, nullSpace, route: .gram))
        let exact = try #require(polar(a, nullSpace, route: .decomposition))
        #expect(gram.factor.distance(to: exact.factor) <= 1e-8, "seed \(seed)")
        #expect(gram.result.rank == r && (gram.result.sum / exact.result.sum - 1).magnitude <= 1e-9)
        #expect((gram.result.largest / 3 - 1).magnitude <= 1e-12 && (gram.result.condition / 1e3 - 1).magnitude <= 1e-6)
      }
    }
  }

  @Test func theGramMatrixDropsANullSpaceToo() throws {
    let a = Self.withSpectrum([4, 2, 1, 1, 0.5], rows: 12, columns: 40, seed: 102)
    let gram = try #require(polar(a, .drop, route: .gram))
    let exact = try #require(polar(a, .drop, route: .decomposition))
    #expect(gram.result.rank == 5 && exact.result.rank == 5)
    #expect(gram.factor.distance(to: exact.factor) <= 1e-12 && (gram.result.sum - 8.5).magnitude <= 1e-12)
    // What it cannot see it leaves to the decomposition.
    #expect(polar(a, .complete, route: .gram) == nil)
  }

  @Test func theGramMatrixKnowsItsLimits() throws {
    // Too small a singular value, and one too near the tolerance.
    let steep = Self.withSpectrum([1, 1e-3, 2e-6], rows: 8, columns: 9, seed: 103)
    #expect(polar(steep, .drop, route: .gram) == nil)
    let near = Self.withSpectrum([1, 0.5, 1e-6 * (1 + 1e-6)], rows: 8, columns: 9, seed: 104)
    #expect(polar(near, .drop, route: .gram) == nil)
    for a in [steep, near] {
      let (q, result) = try #require(polar(a, .drop))
      // A partial isometry of rank 3: its projector has trace 3.
      let projector = q.timesItsTranspose
      #expect(result.rank == 3 && projector.times(projector).distance(to: projector) <= 1e-12)
      #expect(((0..<8).reduce(0.0) { $0 + projector[$1, $1] } - 3).magnitude <= 1e-12)
    }
    // Squares that would leave binary64.
    for scale in [1e-200, 1e200] {
      let a = Matrix(rows: 2, columns: 3, [1, 2, 3, 4, 5, 7].map { $0 * scale })
      #expect(polar(a, .drop, route: .gram) == nil)
      let (q, _) = try #require(polar(a, .drop))
      #expect(orthonormality(q) <= 1e-14)
    }
  }
}
