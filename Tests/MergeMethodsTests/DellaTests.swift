import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct DellaTests {
  private static let zero = [Double](repeating: 0, count: 600)

  private func merge(_ parameters: JSON, _ models: [[Double]]) throws -> Merged {
    try Runner().merge(make("della", parameters), models, base: Self.zero, shape: [20, 30])
  }

  @Test func aMeanIsNotRescaledUnlessAskedFor() throws {
    var random = SplitMix64(state: 63)
    let model = random.values(600)
    let models = [[Double]](repeating: model, count: 6)
    let mean = try merge(["density": 0.5], models)
    for (value, wanted) in zip(mean.values, model) where value != 0 { #expect((value - wanted).magnitude <= 1e-15) }
    #expect(mean.decision["rescale"] == nil && mean.sweeps == 1)
    for parameters: JSON in [["density": 0.5, "rescale": true], ["density": 0.5, "compat": "mergekit"]] {
      let scaled = try merge(parameters, models)
      #expect(scaled.decision.numbers("rescale").allSatisfy { $0 > 1.5 } && norm(scaled.values) > 1.5 * norm(mean.values))
    }
    #expect(try merge(["density": 0.5, "normalize": false], models).decision["rescale"] != nil)
  }

  @Test func withoutADropItIsTies() throws {
    var random = SplitMix64(state: 64)
    let models = (0..<3).map { _ in random.values(600) }
    let ties = try Runner().merge(make("ties", ["weight": [1, 2, 0.5]]), models, base: Self.zero)
    #expect(try merge(["weight": [1, 2, 0.5]], models).values == ties.values)
  }
}
