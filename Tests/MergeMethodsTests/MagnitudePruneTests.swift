import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct MagnitudePruneTests {
  private func tau(_ parameters: JSON, _ d: [[Double]], _ dtype: DType = .f64) throws -> Merged {
    try Runner(dtype: dtype).merge(make("magnitude_prune", parameters), d, base: d[0].map { _ in 0 })
  }

  private func rows(_ models: Int, seed: UInt64) -> [[Double]] {
    var random = SplitMix64(state: seed)
    return (0..<models).map { _ in quarters(800, &random) }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func itIsTheSumOfTheLargestChanges(dtype: DType) throws {
    let d = rows(3, seed: 201)
    let merged = try tau(["density": [0.5, 0.25, 1], "weight": [1, -0.5, 2]], d, dtype)
    let kept = [Plain.trimmed(d[0], kept: 400), Plain.trimmed(d[1], kept: 200), d[2]]
    #expect(merged.values == Plain.sum(kept, weights: [1, -0.5, 2]))
    let inclusive = try tau(["density": 0.5, "trim": "inclusive"], d, dtype)
    #expect(inclusive.values == Plain.sum(d.map { Plain.trimmedInclusive($0, density: 0.5) }))
  }

  @Test func theDefaultKeepsNineTenths() throws {
    let d = [(1...100).map { Double($0) }]
    #expect(try tau([:], d).values == d[0].map { $0 > 10 ? $0 : 0 })
  }

  @Test func aRescaleMakesUpForWhatIsCutOff() throws {
    let d: [[Double]] = [[1, -2, 3, 4]]
    for (rescale, factor) in [("l1", 10.0 / 7), ("inverse", 2), ("none", 1)] {
      let merged = try tau(["density": 0.5, "rescale": .string(rescale)], d)
      #expect(distance(merged.values, [0, 0, 3 * factor, 4 * factor]) <= 1e-15 * 8)
      if rescale != "none" { #expect(merged.decision.numbers("rescale") == [factor]) }
    }
  }

  @Test func normalizeDividesByTheSumOfTheWeights() throws {
    let d: [[Double]] = [[1, 2], [3, 4]]
    #expect(try tau(["density": 1, "weight": [1, 3], "normalize": true, "lambda": 2], d).values == [5, 7])
    #expect(try tau(["density": 1, "weight": [1, -1], "normalize": true], d).values == [-2, -2])
  }

  @Test func mergeLMDropsWhatIsEqualToTheLargestOfTheSmallest() throws {
    let merged = try tau(["density": 0.5, "compat": "merge_lm"], [[1, 2, 2, -2, 3, 4], [1, 2, 3, 4, 5, 6]])
    #expect(merged.values == [0, 0, 0, 4, 8, 10])
    // A mask rate of a tenth, on whole tens: 10 of 100 go.
    let tenth = try tau(["compat": "merge_lm"], [(1...100).map { Double($0) }])
    #expect(tenth.decision.numbers("kept") == [0.9])
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    for parameters in [[:], ["density": 0.5, "rescale": true], ["density": 0], ["compat": "merge_lm"]] as [JSON] {
      let merged = try Runner(dtype: dtype).merge(make("magnitude_prune", parameters), [base, base], base: base)
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern), "\(parameters)")
    }
  }
}
