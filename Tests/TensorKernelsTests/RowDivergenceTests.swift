import Glibc
import Testing

@testable import TensorKernels

@Suite struct RowDivergenceTests {
  /// The formula as it stands.
  private func plain(_ a: [Double], _ b: [Double]) -> Double {
    func softmax(_ x: [Double]) -> [Double] {
      let e = x.map { exp($0 - x.max()!) }
      let sum = e.reduce(0, +)
      return e.map { $0 / sum + 1e-8 }
    }
    return zip(softmax(a), softmax(b)).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) }
  }

  private func divergence(_ inputs: Inputs, from: Int = 0, count: Int) -> Double {
    RowDivergence.of(inputs.kernel, from: from, count: count, p: 1, q: 0)
  }

  @Test(arguments: [DType.f32, .f64]) func itIsTheFormula(dtype: DType) {
    var random = SplitMix64(state: 3)
    for count in [1, 2, 7, 8, 9, 100, 1000] {
      for scale in [0.1, 1, 30] {
        let inputs = Inputs((0..<2).map { _ in random.values(count + 3).map { $0 * scale } }, dtype)
        let x = inputs.values.map { Array($0[3...]) }
        let expected = plain(x[1], x[0])
        // The formula's terms cancel: absolute error of the sum of probabilities.
        #expect(
          (divergence(inputs, from: 3, count: count) - expected).magnitude <= 1e-14 + 1e-12 * expected, "\(count) \(scale)")
      }
    }
  }

  @Test func smallChangesKeepTheirDigits() {
    // For d near 0 it is half the variance of d under the softmax: exactly p (1 - p) d² / 2 for one changed element, to first order.
    for change in [1e-3, 1e-5, 1e-7] {
      let base = [Double](repeating: 0, count: 4)
      let inputs = Inputs([base, [change, 0, 0, 0]], .f64)
      let found = divergence(inputs, count: 4)
      #expect((found / (0.25 * 0.75 * change * change / 2) - 1).magnitude <= 2 * change + 1e-6, "\(change)")
    }
  }

  @Test func equalRowsHaveNone() {
    let row = [0.3, -2, 5, 1]
    #expect(divergence(Inputs([row, row], .f64), count: 4) == 0)
    #expect(divergence(Inputs([[1], [-7]], .f32), count: 1) == 0)
    #expect(divergence(Inputs([row, [0.3, .nan, 5, 1]], .f64), count: 4).isNaN)
  }
}
