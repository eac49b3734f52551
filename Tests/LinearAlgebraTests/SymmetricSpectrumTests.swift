import Testing

@testable import LinearAlgebra

@Suite struct SymmetricSpectrumTests {
  @Test(arguments: [(1, 1), (2, 2), (7, 7), (30, 30), (30, 4)]) func itIsTheEigendecomposition(n: Int, rank: Int) throws {
    var random = SplitMix64(state: 120)
    let a = Matrix(rows: n, columns: n, random.gram(n, rank: rank))
    let vectors = a.dense
    let values = try #require(SymmetricSpectrum.decompose(vectors.view))
    let tolerance = 20 * Double(n) * 0x1p-53 * max(values[0], 1)
    #expect(values == values.sorted(by: >))
    let rows = vectors.matrix
    #expect(rows.timesItsTranspose.distance(to: .identity(n)) <= 20 * Double(n) * 0x1p-53)
    #expect(rows.transpose.times(.diagonal(values)).times(rows).distance(to: a) <= tolerance)
    // Our own Jacobi agrees.
    let jacobi = SymmetricEigen(a.values, size: n)
    for (value, other) in zip(values, jacobi.values) { #expect((value - other).magnitude <= tolerance) }
  }

  @Test(arguments: [(1, 1), (2, 1), (30, 7), (65, 1), (130, 66), (130, 130)])
  func theLeadingVectorsAreThoseOfAll(n: Int, wanted: Int) throws {
    // More than one block of reflectors, and the edges of a block.
    var random = SplitMix64(state: 121)
    let a = Matrix(rows: n, columns: n, random.gram(n, rank: n + 3))
    let (all, some) = (a.dense, a.dense)
    let values = try #require(SymmetricSpectrum.decompose(all.view))
    #expect(try #require(SymmetricSpectrum.decompose(some.view, wanted: wanted)) == values)
    for j in 0..<wanted {
      for i in 0..<n { #expect((some.view.row(j)[i] - all.view.row(j)[i]).magnitude <= 1e-9) }
    }
  }

  @Test(arguments: [1e-150, 1e150]) func theScaleDoesNotMatter(scale: Double) throws {
    var random = SplitMix64(state: 122)
    let plain = random.gram(20, rank: 20)
    let (small, large) = (Matrix(rows: 20, columns: 20, plain), Matrix(rows: 20, columns: 20, plain.map { $0 * scale }))
    let values = try #require(SymmetricSpectrum.decompose(small.dense.view))
    let scaled = try #require(SymmetricSpectrum.decompose(large.dense.view))
    for (one, other) in zip(values, scaled) { #expect((other / scale - one).magnitude <= 1e-13 * values[0]) }
  }

  @Test func equalEigenvaluesHaveSomeBasis() throws {
    let identity = Matrix.identity(70)
    let vectors = identity.dense
    let values = try #require(SymmetricSpectrum.decompose(vectors.view))
    #expect(values == [Double](repeating: 1, count: 70))
    #expect(vectors.matrix.timesItsTranspose.distance(to: identity) <= 1e-14)
  }

  @Test func whatCannotBeDecomposedIsRefused() {
    #expect(SymmetricSpectrum.decompose(DenseMatrix(rows: 0, columns: 0).view) == nil)
    #expect(SymmetricSpectrum.workspaceBytes(size: 10) >= 8 * (1 + 60 + 200))
  }
}
