import Platform
import Testing

@testable import LinearAlgebra

// Reduction: a sum of k products in binary32 is off by at most k units of 2^-24 of the sum of the products' magnitudes, here at most k.
@Suite struct SingleMatrixTests {
  private func random(_ rows: Int, _ columns: Int, _ seed: UInt64) -> (exact: Matrix, single: SingleMatrix) {
    var random = SplitMix64(state: seed)
    let values = random.values(rows * columns).map { Double(Float($0)) }
    let exact = Matrix(rows: rows, columns: columns, values)
    return (exact, SingleMatrix(exact.dense.view, factor: 1))
  }

  private func matrix(_ a: SingleMatrix) -> Matrix {
    Matrix(rows: a.rows, columns: a.columns, (0..<a.count).map { Double(a.values[$0]) })
  }

  @Test(arguments: [(1, 1, 1), (3, 5, 7), (17, 33, 9), (70, 20, 130)]) func productsAreThoseOfBinary64(m: Int, k: Int, n: Int) {
    let (a, b) = (random(m, k, 1), random(k, n, 2))
    let result = SingleMatrix(rows: m, columns: n)
    result.product(a.single, b.single)
    #expect(matrix(result).distance(to: a.exact.times(b.exact)) <= Double(k * k) * 0x1p-24)
  }

  @Test(arguments: [(1, 1), (5, 3), (3, 5), (130, 70), (70, 200)]) func gramMatricesHaveBothTriangles(m: Int, n: Int) {
    let a = random(m, n, 3)
    let (rows, columns) = (SingleMatrix(rows: m, columns: m), SingleMatrix(rows: n, columns: n))
    rows.gram(of: a.single, columns: false)
    columns.gram(of: a.single, columns: true)
    #expect(matrix(rows).distance(to: a.exact.timesItsTranspose) <= Double(n * n) * 0x1p-24)
    #expect(matrix(columns).distance(to: a.exact.transpose.timesItsTranspose) <= Double(m * m) * 0x1p-24)
    #expect(matrix(columns).distance(to: matrix(columns).transpose) == 0)
  }

  @Test func aCrewChangesNoBit() {
    // Large enough to be cut (DenseMatrix.swift): 430 * 420 * 410 > 2^26.
    let (a, b) = (random(430, 410, 4), random(410, 420, 5))
    let alone = SingleMatrix(rows: 430, columns: 420)
    alone.product(a.single, b.single)
    let shared = SingleMatrix(rows: 430, columns: 420)
    nonisolated(unsafe) let (x, y, target) = (a.single, b.single, shared)
    let monitor = Monitor()
    let crew = Crew(size: 3, monitor: monitor)
    WorkerPool.run(count: 3) { worker in
      if worker == 0 { crew.enlist { target.product(x, y) } } else { for _ in 0..<2000 { _ = monitor.locked { crew.help() } } }
    }
    #expect(matrix(shared).values == matrix(alone).values)
  }

  @Test func theLargestEigenvalueIsEstimatedFromBelow() {
    let n = 40
    var random = SplitMix64(state: 6)
    let a = Matrix(rows: n, columns: n, random.gram(n, rank: 60))
    let largest = SymmetricEigen(a.values, size: n).values[0]
    let found = SingleMatrix(a.dense.view, factor: 1).largestEigenvalue()
    #expect(found <= largest * (1 + 1e-5))
    #expect(found >= largest / 1.15)
  }
}
