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

  @Test func largeResultsAreMadeOfParts() {
    // Large enough to be cut, along rows and along columns, with a last part that is shorter.
    let shapes = isOptimised ? [(410, 420, 400), (90, 1700, 450), (1700, 90, 450)] : []
    for (m, n, k) in shapes {
      #expect(Cut.ranges(max(m, n), work: m * n * k).count > 1)
      var random = SplitMix64(state: 112)
      let a = Matrix(rows: m, columns: k, random.values(m * k))
      let b = Matrix(rows: k, columns: n, random.values(k * n))
      let want = a.times(b)
      // On the diagonal k squares below 1 are added up, in another order: k u times their sum.
      for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
        let result = DenseMatrix(rows: m, columns: n)
        result.view.product(
          (first ? a.transpose : a).dense.view, (second ? b.transpose : b).dense.view, firstTransposed: first,
          secondTransposed: second)
        #expect(result.matrix.distance(to: want) <= Double(k) * 0x1p-51)
      }
      let gram = DenseMatrix(rows: m, columns: m)
      gram.view.gram(of: a.dense.view, columns: false)
      #expect(gram.matrix.distance(to: a.timesItsTranspose) <= Double(k * k) * 0x1p-53)
      #expect(gram.matrix.transpose.values == gram.matrix.values)
      gram.view.gram(of: a.transpose.dense.view, columns: true)
      #expect(gram.matrix.distance(to: a.timesItsTranspose) <= Double(k * k) * 0x1p-53)
    }
  }

  @Test(arguments: [0, 1, 31, 32, 1000, 1537]) func cutsCoverALengthOnce(length: Int) {
    for work in [0, 1 << 30] {
      let ranges = Cut.ranges(length, work: work)
      #expect(ranges.flatMap { Array($0) } == Array(0..<length))
      #expect(ranges.count <= 8)
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
