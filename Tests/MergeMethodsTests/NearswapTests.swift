import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct NearswapTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func aWeightMovesByTAtMost(dtype: DType) throws {
    let merged = try Runner(dtype: dtype).merge(
      make("nearswap", ["t": 0.25]), [[1.125, 2, -4, 0.25, -0.0]], base: [1, 1, -1, 0, 0])
    #expect(merged.values == [1.125, 1.25, -1.25, 0.25, 0] && merged.values[4].sign == .minus)
    #expect(merged.decision["swapped"]?.double == 0.6 && merged.sweeps == 1)
  }

  @Test func theToolCountsSmallDifferencesAsAMillionth() throws {
    let merged = try Runner().merge(make("nearswap", ["t": 5e-7, "compat": "mergekit"]), [[2e-7, 1]], base: [0, 0])
    #expect(distance(merged.values, [1e-7, 5e-7]) <= 1e-21)
    #expect(try Runner().merge(make("nearswap", ["t": 5e-7]), [[2e-7, 1]], base: [0, 0]).values == [2e-7, 5e-7])
  }

  @Test func theStepIsNeeded() {
    expectFailure(.parameter, "'t'") { _ = try make("nearswap") }
    expectFailure(.parameter, "at least 0") { _ = try make("nearswap", ["t": -1]) }
  }
}
