import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct MagMaxTests {
  private static let expected = [0.10, -0.06, 0.07, 0.09, 0.12, -0.08, 0.04, 0.07, 0.09, -0.05, -0.09, 0.13]

  @Test func theExampleIsMet() throws {
    for lambda in [1, 0.5, -2] {
      let merged = try Runner().merge(make("magmax", ["lambda": .double(lambda)]), Example.models, base: Example.base)
      #expect(distance(merged.values, zip(Example.base, Self.expected).map { $0 + lambda * $1 }) <= 2 * Example.tolerance)
      #expect(merged.sweeps == 1)
    }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func theLargestChangeWinsAndOfEqualsTheLater(dtype: DType) throws {
    var random = SplitMix64(state: 211)
    let d = (0..<4).map { _ in quarters(1200, &random) }
    let merged = try Runner(dtype: dtype).merge(make("magmax"), d, base: d[0].map { _ in 0 })
    let expected = (0..<1200).map { i in d.map { $0[i] }.reduce(0) { $1.magnitude >= $0.magnitude ? $1 : $0 } }
    #expect(merged.values == expected)
    let two = try Runner(dtype: dtype).merge(make("magmax"), [[1, -2, 3], [-1, 2, -3]], base: [0, 0, 0])
    #expect(two.values == [-1, 2, -3] && two.decision["conflicts"]?.double == 1)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    let merged = try Runner(dtype: dtype).merge(make("magmax"), [base, base], base: base)
    #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern))
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func oneModelComesBack(dtype: DType) throws {
    var random = SplitMix64(state: 212)
    let (base, model) = (quarters(100, &random), quarters(100, &random))
    #expect(try Runner(dtype: dtype).merge(make("magmax"), [model], base: base).values == model)
  }
}
