import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TaskArithmeticTests {
  private func merge(_ parameters: JSON, _ models: [[Double]] = Example.models, _ runner: Runner = Runner()) throws -> Merged {
    try runner.merge(make("task_arithmetic", parameters), models, base: Example.base)
  }

  /// base + sum_i c_i (model_i - base), or only the sum.
  private func expected(_ c: [Double], base: Double = 1) -> [Double] {
    Example.base.indices.map { i in
      zip(c, Example.deltas).reduce(base * Example.base[i]) { $0 + $1.0 * $1.1[i] }
    }
  }

  // The models are sums of decimals: their differences from the base are off by some units of 2^-53.
  private let tolerance = 2e-15

  @Test func itIsTheBasePlusTheScaledSum() throws {
    for (parameters, c) in [
      ([:], [1, 1, 1]), (["lambda": 0.3], [0.3, 0.3, 0.3]), (["weight": [1, 0.5, -2]], [1, 0.5, -2]),
      (["weight": [1, 0.5, -2], "lambda": 0.5], [0.5, 0.25, -1]), (["lambda": -1], [-1, -1, -1]),
    ] as [(JSON, [Double])] {
      let merged = try merge(parameters)
      #expect(distance(merged.values, expected(c)) <= tolerance, "\(parameters)")
      #expect(merged.decision.numbers("coefficients") == c)
      #expect(merged.sweeps == 1)
    }
  }

  @Test func normalizeDividesByTheSumOfTheWeights() throws {
    let merged = try merge(["weight": [1, 2, 5], "normalize": true, "lambda": 2])
    #expect(distance(merged.values, expected([0.25, 0.5, 1.25])) <= tolerance)
    // A sum below 1e-8 counts as 1.
    let cancelling = try merge(["weight": [1, -1, 0], "normalize": true])
    #expect(distance(cancelling.values, expected([1, -1, 0])) <= tolerance)
    let small = try merge(["weight": [1e-7, 0, 0], "normalize": true])
    #expect(distance(small.values, expected([1, 0, 0])) <= tolerance)
  }

  @Test func nothingAddedIsTheBaseAndOneWholeTaskVectorIsTheModel() throws {
    let none = try merge(["lambda": 0])
    #expect(none.copied == 0 && none.values == Example.base)
    let one = try merge(["weight": [0, 1, 0]])
    #expect(one.copied == 2 && one.values == Example.models[1])
    #expect(try merge([:], [Example.base, Example.base]).values == Example.base)
  }

  @Test func theTaskVectorIsTheSumWithoutTheBase() throws {
    let merged = try merge(["output": "task_vector", "weight": [1, 0.5, -2]])
    #expect(distance(merged.values, expected([1, 0.5, -2], base: 0)) <= tolerance)
    #expect(try merge(["output": "task_vector"], [Example.base]).values == Example.base.map { _ in 0 })
    // Even the vector of one model is a difference, not a copy.
    let one = try merge(["output": "task_vector"], [Example.models[0]])
    #expect(one.copied == nil && distance(one.values, Example.deltas[0]) <= tolerance)
  }

  @Test(arguments: [DType.bf16, .f16]) func smallTaskVectorsAreNotLostBesideTheBase(dtype: DType) throws {
    // The differences are exact, so is their sum; only the end is rounded.
    let base = [1.0, 256, -2]
    let step = dtype == .bf16 ? 0x1p-7 : 0x1p-10
    let models = [base.map { $0 * (1 + step) }, base.map { $0 * (1 + 2 * step) }]
    let merged = try Runner(dtype: dtype).merge(make("task_arithmetic", ["output": "task_vector"]), models, base: base)
    #expect(merged.values == base.map { $0 * 3 * step })
  }

  @Test func thereIsOneWeightPerModel() {
    expectFailure(.parameter, "4 values for 3 models") { _ = try merge(["weight": [1, 2, 3, 4]]) }
  }
}
