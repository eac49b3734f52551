import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct GeometricMedianTests {
  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, base: [Double]? = nil, _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("geometric_median", parameters), models, base: base)
  }

  private func sum(_ weights: [Double], _ models: [[Double]]) -> [Double] {
    models[0].indices.map { i in zip(weights, models).reduce(0.0) { $0 + $1.0 * $1.1[i] } }
  }

  private static let expected = [
    0.557749420, -1.029754402, 0.277612974, 1.563977041, 0.185494834, -0.799339436, -0.403353406, 0.845890519, 0.653809308,
    0.214565383, -0.364337432, 1.213503493,
  ]

  // The iteration ends when the objective does not change any more, which leaves 1e-8 in the weights (WeiszfeldTests); the models
  // are 0.1 apart.
  private let tolerance = 1e-8

  @Test(arguments: [[:], ["eps": 1e-6], ["start": "median"], ["start": "median", "eps": 1e-6]] as [JSON])
  func theExampleIsMetFromEveryStart(parameters: JSON) throws {
    let merged = try merge(parameters)
    #expect(distance(merged.values, Self.expected) <= tolerance)
    #expect(distance(merged.decision.numbers("weights"), [0.481098112, 0.229151506, 0.289750382]) <= 2 * tolerance)
    #expect(merged.decision["iterations"]!.int! > 0 && merged.decision["objective"]!.double! > 0 && merged.sweeps == 2)
  }

  @Test func taskVectorsHaveTheSameMedianMovedByTheBase() throws {
    let merged = try merge([:], Example.deltas)
    #expect(distance(zip(merged.values, Example.base).map { $0 + $1 }, Self.expected) <= tolerance)
  }

  @Test func withoutIterationsItIsTheStart() throws {
    let mean = try merge(["maxiter": 0, "weight": [1, 2, 5]])
    #expect(distance(mean.values, sum([0.125, 0.25, 0.625], Example.models)) <= 1e-15)
    #expect(mean.decision.numbers("weights") == [0.125, 0.25, 0.625] && mean.decision["iterations"] == 0)
    // Of four models the standard median is the mean of the middle two.
    let models = Example.models + [Example.base]
    let median = try merge(["maxiter": 0, "start": "median"], models)
    let expected = (0..<12).map { i in
      let column = models.map { $0[i] }.sorted()
      return (column[1] + column[2]) / 2
    }
    #expect(distance(median.values, expected) <= 1e-15)
    #expect(median.decision.numbers("weights") == [])
  }

  @Test func aFarModelLosesItsPull() throws {
    let outlier = Example.base.map { $0 + 1000 }
    let merged = try merge([:], Example.models + [outlier])
    let mean = sum([0.25, 0.25, 0.25, 0.25], Example.models + [outlier])
    #expect(distance(merged.values, Example.base) < 1 && distance(mean, Example.base) > 200)
    #expect(merged.decision.numbers("weights")[3] < 1e-3)
  }

  @Test func weightsDrawTheMedian() throws {
    let heavy = try merge(["weight": [1, 10, 1]])
    // More than the others together: that model itself.
    #expect(heavy.values == Example.models[1] && heavy.decision.numbers("weights") == [0, 1, 0])
    let equal = try merge(["weight": 3])
    #expect(distance(equal.values, Self.expected) <= tolerance)
    expectFailure(.parameter, "2 values for 3 models") { _ = try merge(["weight": [1, 2]]) }
    expectFailure(.parameter, "'weight'", "out of range") { _ = try merge(["weight": [1, 0, 1]]) }
  }

  @Test func theBaseIsAPointOnlyWhenAsked() throws {
    #expect(try !make("geometric_median").usesBase(given: true))
    let method = try make("geometric_median", ["include_base": true])
    #expect(method.usesBase(given: true))
    let with = try merge(["include_base": true], base: Example.base)
    let listed = try merge([:], [Example.base] + Example.models)
    #expect(distance(with.values, listed.values) <= 1e-15)
    #expect(with.decision.numbers("weights").count == 4)
    // Its weight is 1: lighter models leave it the median.
    let light = try merge(["include_base": true, "weight": 0.1], base: Example.base)
    #expect(light.copied == 0)
  }

  @Test func oneModelIsCopied() throws {
    let merged = try merge([:], [Example.base])
    #expect(merged.copied == 0 && merged.decision.numbers("weights") == [1])
  }

  @Test func twoModelsGiveTheirMiddle() throws {
    for start in ["mean", "median"] as [JSON] {
      let merged = try merge(["start": start], Array(Example.models[..<2]))
      #expect(distance(merged.values, sum([0.5, 0.5], Example.models)) <= 1e-12)
    }
  }

  @Test(arguments: ["mean", "median"]) func duplicatesOutvoteTheRest(start: String) throws {
    let merged = try merge(["start": .string(start)], [Example.models[0], Example.models[1], Example.models[0]])
    #expect(distance(merged.values, Example.models[0]) <= 1e-12)
  }

  @Test(arguments: [DType.f32, .bf16, .f16]) func narrowTypesAgreeToTheirPrecision(dtype: DType) throws {
    let rounded = Example.models.map { Memory($0, dtype).values }
    for start in ["mean", "median"] as [JSON] {
      let exact = try merge(["start": start], rounded)
      let merged = try merge(["start": start], rounded, Runner(dtype: dtype))
      // Half a unit of the result (below 2), and weights from binary32 products.
      let half = dtype == .bf16 ? 0x1p-8 : dtype == .f16 ? 0x1p-11 : 0x1p-24
      #expect(distance(merged.values, exact.values) <= half + 0x1p-20)
    }
  }

  @Test func scopeIsHandedOn() throws {
    #expect(try make("geometric_median", ["scope": "layer"]).scope == .layer)
    expectFailure(.parameter, "'maxiter'") { _ = try make("geometric_median", ["maxiter": -1]) }
    expectFailure(.parameter, "'eps'") { _ = try make("geometric_median", ["eps": -1]) }
  }
}
