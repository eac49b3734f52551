import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct DareTiesTests {
  private let count = 900

  private func rows(_ models: Int, seed: UInt64) -> [[Double]] {
    var random = SplitMix64(state: seed)
    return (0..<models).map { _ in quarters(count, &random) }
  }

  private func tau(_ parameters: JSON, _ d: [[Double]], _ dtype: DType = .f64) throws -> Merged {
    try Runner(dtype: dtype).merge(make("dare_ties", parameters), d, base: d[0].map { _ in 0 })
  }

  @Test func dropRescaleVoteAndSumOfWhatAgrees() throws {
    let d = rows(3, seed: 161)
    let kept = [0.5, 0.25, 1]
    let dropped = d.indices.map { Philox.dropped(d[$0], model: $0, kept[$0]) }
    // Powers of two: the inverse rescale is exact.
    let e = d.indices.map { k in dropped[k].map { $0 * [1, -0.5, 2][k] / kept[k] } }
    for (elect, byCount) in [("mass", false), ("count", true)] {
      let signs = Plain.signs(e, byCount: byCount, zero: 1)
      for (given, rule) in [([:], "sum"), (["normalize": true], "mean"), (["merge": "max"], "max")] as [(JSON, String)] {
        let parameters: JSON = .object(
          members(["density": [0.5, 0.25, 1], "weight": [1, -0.5, 2], "rescale": "inverse", "elect": .string(elect)])
            + members(given))
        let merged = try tau(parameters, d)
        // The mean divides by the weights, not by the rescale.
        let expected = Plain.merged(e, signs, rule, weights: [1, -0.5, 2])
        #expect(distance(merged.values, expected) == 0, "\(elect) \(rule)")
        #expect(merged.decision.numbers("rescale") == [2, 4, 1])
      }
    }
  }

  @Test func withoutADropItIsTies() throws {
    let d = rows(4, seed: 162)
    for dtype in [DType.f64, .f32, .bf16] {
      for density in [1, 0.3] {
        let dare = try tau(["trim_density": .double(density), "rescale": false], d, dtype)
        let ties = try Runner(dtype: dtype).merge(
          make("ties", ["density": .double(density), "normalize": false]), d, base: d[0].map { _ in 0 })
        #expect(dare.values == ties.values && dare.sweeps == ties.sweeps, "\(density) of \(dtype)")
      }
    }
  }

  @Test func theTrimComesAfterTheDrop() throws {
    let d = rows(2, seed: 163)
    let merged = try tau(["density": 0.5, "trim_density": 0.2, "rescale": false], d)
    let e = d.indices.map { Plain.trimmed(Philox.dropped(d[$0], model: $0, 0.5), kept: count / 5) }
    #expect(merged.values == Plain.merged(e, Plain.signs(e, zero: 1), "sum"))
    // The rescale is that of the drop alone.
    let l1 = try tau(["density": 0.5, "trim_density": 0.2], d).decision.numbers("rescale")
    #expect(try l1 == tau(["density": 0.5], d).decision.numbers("rescale") && l1.allSatisfy { $0 > 1 })
  }

  @Test func fusionBenchHasItsSettingsUnlessTheyAreGiven() throws {
    let d = rows(3, seed: 164)
    let fusionBench = try tau(["compat": "fusion_bench", "density": 0.5, "trim_density": 0.2], d)
    let spelled = try tau(
      [
        "density": 0.5, "trim_density": 0.2, "rescale": "inverse", "trim": "inclusive", "zero_sign": "majority",
      ], d)
    #expect(fusionBench.values == spelled.values && fusionBench.decision.numbers("rescale") == [2, 2, 2])
    let given = try tau(
      [
        "compat": "fusion_bench", "density": 0.5, "trim_density": 0.2, "rescale": "l1", "trim": "exact", "zero_sign": "plus",
      ], d)
    #expect(try given.values == tau(["density": 0.5, "trim_density": 0.2], d).values)
    #expect(try make("dare_ties", ["compat": "fusion_bench"]).scope == .model)
    #expect(try make("dare_ties", ["compat": "fusion_bench", "scope": "tensor"]).scope == .tensor)
    #expect(try make("dare_ties", ["compat": "mergekit"]).scope == .tensor && make("dare_ties").scope == .tensor)
  }

  @Test func mergekitLeavesTinySumsAlone() throws {
    let d = [[Double](repeating: 1e-10, count: 100)]
    #expect(try tau(["density": 0.5, "compat": "mergekit"], d).decision.numbers("rescale") == [1])
    #expect(try tau(["density": 0.5], d).decision.numbers("rescale")[0] > 1.2)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    for parameters in [[:], ["density": 0.5], ["density": 0.5, "compat": "fusion_bench", "trim_density": 0.2]] as [JSON] {
      let merged = try Runner(dtype: dtype).merge(make("dare_ties", parameters), [base, base], base: base)
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern))
    }
  }

  @Test func aMeanOfRescaledSurvivorsAmplifies() throws {
    // Five identical changes, half of each dropped: the mean of the survivors is the change, and the rescale doubles it.
    let d = [[Double]](repeating: [Double](repeating: 1, count: 400), count: 5)
    let merged = try tau(["density": 0.5, "rescale": "inverse", "normalize": true], d)
    #expect(Set(merged.values).isSubset(of: [0, 2]))
  }
}
