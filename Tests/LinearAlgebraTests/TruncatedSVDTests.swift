import Glibc
import Testing

@testable import LinearAlgebra

@Suite struct TruncatedSVDTests {
  private func largest(_ k: Int, _ a: Matrix, _ route: TruncatedSVD.Route = .automatic) -> TruncatedSVD.Result? {
    TruncatedSVD.largest(k, of: a.dense.view, route: route)
  }

  /// Largest |A v - sigma u| and |Aᵀ u - sigma v|, element by element.
  private func residual(_ triplets: SingularTriplets, _ a: Matrix) -> Double {
    let (u, v, sigma) = (triplets.left.matrix, triplets.right.matrix, Matrix.diagonal(triplets.sigma))
    return max(v.times(a.transpose).distance(to: sigma.times(u)), u.times(a).distance(to: sigma.times(v)))
  }

  @Test(arguments: [(20, 20, 5), (20, 60, 20), (60, 20, 7), (1, 9, 1), (9, 1, 3), (3, 4, 10)])
  func bothRoutesGiveTheLeadingTriplets(rows: Int, columns: Int, k: Int) throws {
    let r = min(rows, columns)
    let sigma = (0..<r).map { 5 * pow(0.8, Double($0)) }
    for seed in UInt64(140)..<143 {
      let a = PolarFactorTests.withSpectrum(sigma, rows: rows, columns: columns, seed: seed)
      for route in [TruncatedSVD.Route.gram, .full] {
        let result = try #require(largest(k, a, route))
        #expect(result.isFull == (route == .full) && result.triplets.sigma.count == min(k, r))
        for (value, want) in zip(result.triplets.sigma, sigma) { #expect((value / want - 1).magnitude <= 1e-11) }
        #expect(residual(result.triplets, a) <= 1e-11)
        let right = result.triplets.right.matrix
        #expect(right.timesItsTranspose.distance(to: .identity(min(k, r))) <= 1e-11)
        let left = result.triplets.left.matrix
        #expect(left.timesItsTranspose.distance(to: .identity(min(k, r))) <= 1e-11)
      }
    }
  }

  @Test func steepSpectraAreTestedAndLeftToTheFullDecomposition() throws {
    let a = PolarFactorTests.withSpectrum([1, 0.1, 1e-3, 1e-7], rows: 10, columns: 12, seed: 144)
    #expect(try #require(largest(2, a, .gram)).isFull == false)
    #expect(largest(4, a, .gram) == nil)
    let all = try #require(largest(4, a))
    #expect(all.isFull && residual(all.triplets, a) <= 1e-15 && (all.triplets.sigma[3] - 1e-7).magnitude <= 1e-15)
    // Below the rank there is nothing to divide by.
    #expect(largest(6, a, .gram) == nil)
  }

  @Test func equalSingularValuesHaveSomeBasis() throws {
    let a = PolarFactorTests.withSpectrum([3, 3, 3, 1], rows: 9, columns: 11, seed: 145)
    for route in [TruncatedSVD.Route.gram, .full] {
      let triplets = try #require(largest(4, a, route)).triplets
      #expect(residual(triplets, a) <= 1e-13)
      #expect(SingularValuesTests.errors(triplets, a).reconstruction <= 1e-13)
    }
  }

  @Test(arguments: [1e-200, 1e-30, 1e30, 1e200]) func theScaleDoesNotMatter(scale: Double) throws {
    var random = SplitMix64(state: 146)
    let values = random.values(70 * 72)
    let plain = try #require(largest(3, Matrix(rows: 70, columns: 72, values)))
    let scaled = try #require(largest(3, Matrix(rows: 70, columns: 72, values.map { $0 * scale })))
    #expect(plain.isFull == false && scaled.isFull == !(1e-120...1e120).contains(scale))
    for j in 0..<3 { #expect((scaled.triplets.sigma[j] / scale / plain.triplets.sigma[j] - 1).magnitude <= 1e-12) }
    #expect(scaled.triplets.left.matrix.distance(to: plain.triplets.left.matrix) <= 1e-9)
  }

  @Test func degenerateSizes() throws {
    let none = try #require(largest(0, Matrix(rows: 2, columns: 2, [1, 2, 3, 4])))
    #expect(none.triplets.sigma.isEmpty && none.triplets.left.count == 0)
    for shape in [(0, 4), (4, 0)] {
      #expect(TruncatedSVD.largest(2, of: DenseMatrix(rows: shape.0, columns: shape.1).view)?.triplets.sigma.isEmpty == true)
    }
    let one = try #require(largest(1, Matrix(rows: 1, columns: 1, [-3])))
    #expect(one.triplets.sigma == [3] && one.triplets.right.matrix.values == [1] && one.triplets.left.matrix.values == [-1])
    let zero = try #require(TruncatedSVD.largest(2, of: DenseMatrix(rows: 70, columns: 66).view))
    #expect(zero.isFull && zero.triplets.sigma == [0, 0])
    #expect(zero.triplets.right.matrix.timesItsTranspose.distance(to: .identity(2)) <= 1e-14)
  }

  @Test(arguments: [4, 70]) func whatIsNotFiniteIsRefused(side: Int) {
    for value in [Double.nan, .infinity] {
      let a = DenseMatrix(rows: side, columns: side + 1)
      a.values[side] = value
      #expect(TruncatedSVD.largest(2, of: a.view) == nil)
    }
  }

  @Test func largeMatricesAgreeWithLAPACK() throws {
    // The condition of random square matrices is some thousands.
    let shapes = isOptimised ? [(512, 512, 200), (256, 2048, 256), (1024, 4096, 340), (600, 130, 130)] : [(70, 70, 20)]
    for (rows, columns, k) in shapes {
      var random = SplitMix64(state: 147)
      let a = Matrix(rows: rows, columns: columns, random.values(rows * columns))
      let quick = try #require(largest(k, a))
      let exact = try #require(largest(k, a, .full))
      #expect(!quick.isFull && exact.isFull && quick.residual <= 1e-9)
      for (one, other) in zip(quick.triplets.sigma, exact.triplets.sigma) { #expect((one / other - 1).magnitude <= 1e-9) }
      let polar = a.dense
      let sum = try #require(PolarFactor.replace(polar.view)?.sum)
      let all = try #require(SingularValues.thin(a.dense.view))
      #expect((sum / all.sigma.reduce(0, +) - 1).magnitude <= 1e-9)
      let want = DenseMatrix(rows: rows, columns: columns)
      want.view.product(all.left.view, all.right.view, firstTransposed: true)
      // Relative to the largest element: 1e-5 is the goal for binary32, this is binary64.
      #expect(polar.matrix.distance(to: want.matrix) <= 1e-7 * want.matrix.size)
    }
  }
}
