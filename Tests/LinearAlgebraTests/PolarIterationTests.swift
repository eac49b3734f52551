import Glibc
import Testing

@testable import LinearAlgebra

// What is promised is 1e-5 of the largest element; sums of 200 products in binary32 give about 1e-6.
@Suite struct PolarIterationTests {
  private static let promised = 1e-5

  /// A matrix with these singular values, by reflections of a diagonal one.
  private func matrix(_ rows: Int, _ columns: Int, _ sigma: [Double]) -> Matrix {
    var random = SplitMix64(state: 7)
    var values = [Double](repeating: 0, count: rows * columns)
    for (i, value) in sigma.enumerated() { values[i * columns + i] = value }
    for _ in 0..<3 {
      let (left, right) = (unit(&random, rows), unit(&random, columns))
      for j in 0..<columns {
        var dot = 0.0
        for i in 0..<rows { dot += left[i] * values[i * columns + j] }
        for i in 0..<rows { values[i * columns + j] -= 2 * dot * left[i] }
      }
      for i in 0..<rows {
        var dot = 0.0
        for j in 0..<columns { dot += right[j] * values[i * columns + j] }
        for j in 0..<columns { values[i * columns + j] -= 2 * dot * right[j] }
      }
    }
    return Matrix(rows: rows, columns: columns, values)
  }

  private func unit(_ random: inout SplitMix64, _ count: Int) -> [Double] {
    let x = random.values(count)
    let length = x.reduce(0) { $0 + $1 * $1 }.squareRoot()
    return x.map { $0 / length }
  }

  private func sigma(_ count: Int, condition: Double) -> [Double] {
    (0..<count).map { pow(condition, -Double($0) / Double(count - 1)) }
  }

  private func replace(_ a: Matrix, _ route: PolarFactor.Route) -> (Matrix, PolarFactor.Result)? {
    let dense = a.dense
    return PolarFactor.replace(dense.view, .drop, 1e-6, PolarFactor.single, route: route).map { (dense.matrix, $0) }
  }

  @Test(arguments: [(192, 200, 3.0), (200, 192, 19), (196, 196, 21), (192, 260, 1e3), (192, 192, 1e4)])
  func itAgreesWithTheDecomposition(rows: Int, columns: Int, condition: Double) throws {
    let a = matrix(rows, columns, sigma(min(rows, columns), condition: condition))
    // Near 1e4 the iteration may leave a matrix to the other routes.
    let pair = replace(a, condition > 1e3 ? .automatic : .iteration)
    let (found, result) = try #require(pair)
    let reference = replace(a, .decomposition)
    let (expected, exact) = try #require(reference)
    #expect(found.distance(to: expected) <= Self.promised * expected.size)
    #expect(result.rank == exact.rank)
    #expect((result.sum - exact.sum).magnitude <= Self.promised * exact.sum)
    #expect((result.largest / exact.largest - 1).magnitude <= 0.15)
  }

  @Test func whatLacksRankIsRefusedAndKept() {
    let a = matrix(200, 200, sigma(150, condition: 10))
    let dense = a.dense
    #expect(PolarFactor.replace(dense.view, .drop, 1e-6, PolarFactor.single, route: .iteration) == nil)
    #expect(dense.matrix.values == a.values)
  }

  @Test(arguments: [(0.05, 4), (1e-5, 2), (0.29, 2)]) func theFunctionStaysInItsRange(least: Double, terms: Int) {
    let function = Zolotarev(least: least, terms: terms)
    for step in 0...1000 {
      let x = pow(least, 1 - Double(step) / 1000)
      var factor = 1.0
      for (shift, weight) in zip(function.shifts, function.weights) { factor += weight / (x * x + shift) }
      let value = function.slope * x * factor
      #expect(value >= function.range * (1 - 1e-9) && value <= 2 - function.range * (1 - 1e-9) + 1e-9, "at \(x)")
    }
  }
}
