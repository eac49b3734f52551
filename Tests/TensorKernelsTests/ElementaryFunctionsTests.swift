import Glibc
import Testing

@testable import TensorKernels

@Suite struct ElementaryFunctionsTests {
  private func ulps(_ value: Double, _ expected: Double) -> Double { (value - expected).magnitude / expected.ulp }

  @Test func expIsWithinTwoUnits() {
    var random = SplitMix64(state: 1)
    var worst = 0.0
    for scale in [1e-12, 1e-3, 1.0, 30, 700] {
      for _ in 0..<(isOptimised ? 20_000 : 300) {
        let x = SIMD8<Double>((0..<8).map { _ in -scale * (random.signed() + 1) / 2 })
        let found = ElementaryFunctions.exp(x)
        for lane in 0..<8 { worst = max(worst, ulps(found[lane], Glibc.exp(x[lane]))) }
      }
    }
    #expect(worst <= 2)
    let ends = ElementaryFunctions.exp([0, -0.0, -709, -1e300, -.infinity, .nan, 1, 2])
    #expect(ends[0] == 1 && ends[1] == 1 && ends[2] == 0 && ends[3] == 0 && ends[4] == 0 && ends[5].isNaN)
  }

  @Test func logIsWithinTwoUnits() {
    var random = SplitMix64(state: 2)
    var worst = 0.0
    for exponent in [-1000.0, -40, -1, 0, 1, 40, 1000] {
      for _ in 0..<(isOptimised ? 20_000 : 300) {
        let x = SIMD8<Double>((0..<8).map { _ in Glibc.exp2(exponent) * (1.5 + random.signed() / 2) })
        let found = ElementaryFunctions.log(x)
        for lane in 0..<8 { worst = max(worst, ulps(found[lane], Glibc.log(x[lane]))) }
      }
    }
    #expect(worst <= 2)
    #expect(ElementaryFunctions.log(SIMD8(repeating: 1)) == .zero)
  }
}
