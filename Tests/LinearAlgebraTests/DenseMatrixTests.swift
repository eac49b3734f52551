import Testing

@testable import LinearAlgebra

@Suite struct DenseMatrixTests {
  @Test(arguments: [(3, 5, 4), (1, 1, 1), (70, 3, 65), (2, 130, 1)])
  func productsTransposeOnDemand(m: Int, n: Int, k: Int) {
    var random = SplitMix64(state: 110)
    let a = Matrix(rows: m, columns: k, random.values(m * k))
    let b = Matrix(rows: k, columns: n, random.values(k * n))
    let old = Matrix(rows: m, columns: n, random.values(m * n))
    let expected = a.times(b)
    // k products of numbers below 1, in another order.
    let tolerance = Double(k + 2) * 0x1p-51
    for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
      let result = old.dense
      result.view.product(
        (first ? a.transpose : a).dense.view, (second ? b.transpose : b).dense.view, firstTransposed: first,
        secondTransposed: second, factor: 2, keeping: -0.5)
      let want = Matrix(rows: m, columns: n, zip(expected.values, old.values).map { 2 * $0 - 0.5 * $1 })
      #expect(result.matrix.distance(to: want) <= tolerance)
    }
  }

  @Test(arguments: [(3, 5), (5, 3), (1, 4), (130, 2), (2, 130), (65, 65)])
  func gramMatricesAreSymmetricAndWhole(m: Int, n: Int) {
    var random = SplitMix64(state: 111)
    let a = Matrix(rows: m, columns: n, random.values(m * n))
    for (ofColumns, want) in [(false, a.timesItsTranspose), (true, a.transpose.timesItsTranspose)] {
      let gram = DenseMatrix(rows: want.rows, columns: want.rows)
      for i in 0..<gram.count { gram.values[i] = .nan }
      gram.view.gram(of: a.dense.view, columns: ofColumns)
      #expect(gram.matrix.distance(to: want) <= Double(max(m, n)) * 0x1p-51)
      #expect(gram.matrix.transpose.values == gram.matrix.values)
    }
  }

  @Test func stretchesOfRowsShareTheMemory() {
    let a = DenseMatrix(rows: 4, columns: 3)
    a.rows(1..<3).row(1)[2] = 7
    #expect(a.matrix[2, 2] == 7 && a.rows(1..<3).rows == 2 && a.rows(0..<0).count == 0)
    a.rows(2..<3).scale(by: -2)
    #expect(a.matrix[2, 2] == -14 && a.view.side == 3 && DenseMatrix.bytes(rows: 4, columns: 3) == 96)
  }

  @Test func thePeakIsTheLargestMagnitudeOrNothing() {
    let a = Matrix(rows: 2, columns: 2, [1, -8, 0, 3]).dense
    #expect(
      a.view.peak == 8 && DenseMatrix(rows: 2, columns: 2).view.peak == 0 && DenseMatrix(rows: 0, columns: 2).view.peak == 0)
    for value in [Double.nan, .infinity, -.infinity] {
      a.values[2] = value
      #expect(a.view.peak == nil)
    }
  }
}
