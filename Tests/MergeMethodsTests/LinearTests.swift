import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct LinearTests {
  private func merge(_ parameters: JSON, _ models: [[Double]], _ runner: Runner = Runner()) throws -> Merged {
    try runner.merge(make("linear", parameters), models)
  }

  private func sum(_ weights: [Double], _ models: [[Double]]) -> [Double] {
    models[0].indices.map { i in zip(weights, models).reduce(0.0) { $0 + $1.0 * $1.1[i] } }
  }

  // Reductions of three products around 1: a few units of 2^-53.
  private let tolerance = 1e-15

  @Test func withoutWeightsItIsTheMean() throws {
    let merged = try merge([:], Example.models)
    #expect(distance(merged.values, sum([1, 1, 1], Example.models).map { $0 / 3 }) <= tolerance)
    #expect(merged.decision.numbers("weights") == [Double](repeating: 1.0 / 3, count: 3))
    #expect(merged.sweeps == 1 && merged.copied == nil)
  }

  @Test func weightsAreDividedByTheirSum() throws {
    let merged = try merge(["weight": [1, 2, 5]], Example.models)
    #expect(distance(merged.values, sum([0.125, 0.25, 0.625], Example.models)) <= tolerance)
    #expect(merged.decision.numbers("weights") == [0.125, 0.25, 0.625])
    // Negative weights too, as long as the sum is not zero.
    let signed = try merge(["weight": [3, -1, 2]], Example.models)
    #expect(distance(signed.values, sum([0.75, -0.25, 0.5], Example.models)) <= tolerance)
  }

  @Test func normalizeFalseLeavesTheWeights() throws {
    let merged = try merge(["weight": [1, 2, -0.5], "normalize": false], Example.models)
    #expect(distance(merged.values, sum([1, 2, -0.5], Example.models)) <= 4 * tolerance)
    let zero = try merge(["weight": [1, -1, 0], "normalize": false], Example.models)
    #expect(distance(zero.values, sum([1, -1, 0], Example.models)) <= tolerance)
  }

  @Test func weightsThatSumToZeroCannotBeNormalised() {
    expectFailure(.parameter, "linear", "sum to 0", "normalize: false") {
      _ = try merge(["weight": [1, -1, 0]], Example.models)
    }
    expectFailure(.parameter) { _ = try merge(["weight": 0], Example.models) }
  }

  @Test func thereIsOneWeightPerModel() {
    expectFailure(.parameter, "2 values for 3 models") { _ = try merge(["weight": [1, 2]], Example.models) }
  }

  @Test func oneModelIsCopied() throws {
    #expect(try merge([:], [Example.base]).copied == 0)
    #expect(try merge(["weight": 7], [Example.base]).copied == 0)
    #expect(try merge(["weight": [0, 3, 0]], Example.models).copied == 1)
    // Not without normalisation.
    #expect(try merge(["weight": 2, "normalize": false], [Example.base]).values == Example.base.map { 2 * $0 })
  }

  @Test(arguments: [DType.f32, .bf16, .f16]) func narrowTypesAreRoundedOnce(dtype: DType) throws {
    let inputs = Example.models.map { Memory($0, dtype).values }
    let merged = try merge(["weight": [1, 2, 5]], Example.models, Runner(dtype: dtype))
    let exact = sum([0.125, 0.25, 0.625], inputs)
    // Half a unit of the result (below 2), and some binary32 roundings for the 16-bit types.
    let half = dtype == .bf16 ? 0x1p-8 : dtype == .f16 ? 0x1p-11 : 0x1p-24
    #expect(distance(merged.values, exact) <= half + (dtype == .f32 ? 0x1p-50 : 0x1p-21))
  }

  @Test func theBaseIsNoInput() throws {
    #expect(try !make("linear").usesBase(given: true))
    #expect(
      try make("linear").scope == .tensor
        && make("linear").scratchBytes(TensorContext(name: "", shape: [4], modelCount: 1, hasBase: false)) == 0)
  }
}
