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

  @Test func whatCannotBeDecomposedIsRefused() {
    #expect(SymmetricSpectrum.decompose(DenseMatrix(rows: 0, columns: 0).view) == nil)
    #expect(SymmetricSpectrum.workspaceBytes(size: 10) >= 8 * (1 + 60 + 200))
  }
}
