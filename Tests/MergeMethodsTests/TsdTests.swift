import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TsdTests {
  private let count = 900

  private func rows(_ models: Int, seed: UInt64) -> [[Double]] {
    var random = SplitMix64(state: seed)
    return (0..<models).map { _ in quarters(count, &random) }
  }

  private func tau(_ parameters: JSON, _ d: [[Double]], _ dtype: DType = .f64) throws -> Merged {
    try Runner(dtype: dtype).merge(make("tsd", parameters), d, base: d[0].map { _ in 0 })
  }

  @Test func itIsTheMeanOfTheSurvivorsInTheMajority() throws {
    let d = rows(4, seed: 171)
    let weights = [1, 2, 0.5, 1]
    for density in [0.9, 0.5, 1] {
      let e = d.indices.map { k in Philox.dropped(d[k], model: k, density).map { $0 * weights[k] } }
      let expected = Plain.merged(e, Plain.signs(e, byCount: true, zero: 0), "mean", weights: weights)
      let merged = try tau(["density": .double(density), "weight": [1, 2, 0.5, 1]], d)
      #expect(distance(merged.values, expected) == 0, "\(density)")
    }
    // The default is 0.9.
    #expect(try tau([:], d).values == tau(["density": 0.9], d).values)
  }

  @Test func withoutADropItIsTiesSoup() throws {
    let d = rows(3, seed: 172)
    for dtype in [DType.f64, .bf16] {
      let soup = try Runner(dtype: dtype).merge(make("ties_soup"), d, base: d[0].map { _ in 0 })
      #expect(try tau(["density": 1], d, dtype).values == soup.values)
    }
  }

  @Test func aRescaleAndALambdaOfTheDensityCancel() throws {
    // As in recipe x101a.
    let d = rows(3, seed: 173)
    let plain = try tau(["density": 0.9], d).values
    let both = try tau(["density": 0.9, "rescale": "inverse", "lambda": 0.9], d).values
    #expect(distance(plain, both) <= 1e-15 * 4)
  }

  @Test func trimVoteAndMergeCanBeChosen() throws {
    let d = rows(3, seed: 174)
    let e = d.indices.map { Plain.trimmed(Philox.dropped(d[$0], model: $0, 0.5), kept: count / 4) }
    let merged = try tau(
      ["density": 0.5, "trim_density": 0.25, "elect": "mass", "zero_sign": "plus", "normalize": false], d)
    #expect(merged.values == Plain.merged(e, Plain.signs(e, zero: 1), "sum"))
    let largest = try tau(["density": 0.5, "trim_density": 0.25, "merge": "max"], d)
    #expect(largest.values == Plain.merged(e, Plain.signs(e, byCount: true, zero: 0), "max"))
  }

  @Test func everythingItReportsIsInTheSchema() throws {
    let merged = try tau(["zero_sign": "majority", "trim_density": 0.5, "rescale": true], rows(2, seed: 175))
    let strange = merged.decision.entries.map(\.key).filter { !Tsd.schema.reports.contains($0) }
    #expect(strange == [])
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    for parameters in [[:], ["rescale": true, "density": 0.5], ["drop": "della"]] as [JSON] {
      let merged = try Runner(dtype: dtype).merge(make("tsd", parameters), [base, base], base: base)
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern))
    }
  }
}
