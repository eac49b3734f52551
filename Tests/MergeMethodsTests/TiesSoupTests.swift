import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TiesSoupTests {
  private static let expected = [
    0.09, -0.05, 0.045, 0.066666667, 0.073333333, -0.07, -0.015, 0.046666667, 0.075, 0.035, -0.06, 0.113333333,
  ]

  @Test func theExampleIsMet() throws {
    let merged = try Runner().merge(make("ties_soup"), Example.models, base: Example.base)
    #expect(distance(merged.values, zip(Example.base, Self.expected).map { $0 + $1 }) <= Example.tolerance)
    #expect(merged.sweeps == 1 && merged.decision.numbers("kept") == [1, 1, 1])
    // Both signs: all but the elements 3, 4, 7, 10 and 11.
    #expect(merged.decision["conflicts"]?.double == 7.0 / 12)
    let vector = try Runner().merge(
      make("ties_soup", ["output": "task_vector", "lambda": 2]), Example.models, base: Example.base)
    #expect(distance(vector.values, Self.expected.map { 2 * $0 }) <= 2 * Example.tolerance)
  }

  @Test(arguments: [DType.f64, .f32]) func itIsTiesByCountWithoutATrim(dtype: DType) throws {
    var random = SplitMix64(state: 141)
    let base = quarters(1500, &random)
    let models = (0..<4).map { _ in quarters(1500, &random) }
    let soup = try Runner(dtype: dtype).merge(make("ties_soup", ["weight": [1, 2, 1, 0.5]]), models, base: base)
    let ties = try Runner(dtype: dtype).merge(
      make("ties", ["weight": [1, 2, 1, 0.5], "elect": "count", "zero_sign": "drop"]), models, base: base)
    #expect(soup.values == ties.values)
    let d = Plain.differences(models, base)
    let tau = Plain.merged(
      zip(d, [1, 2, 1, 0.5]).map { row, w in row.map { $0 * w } }, Plain.signs(d, byCount: true, zero: 0), "mean",
      weights: [1, 2, 1, 0.5])
    if dtype == .f64 { #expect(distance(soup.values, zip(base, tau).map { $0 + $1 }) == 0) }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func twoModelsThatDisagreeLeaveTheBase(dtype: DType) throws {
    let base: [Double] = [-0.0, 1, -2, 0]
    let merged = try Runner(dtype: dtype).merge(
      make("ties_soup"), [[1, 2, -1, 0], [-3, 0.5, -4, 0]], base: base)
    #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern))
    #expect(merged.decision["conflicts"]?.double == 0.75)
  }
}
