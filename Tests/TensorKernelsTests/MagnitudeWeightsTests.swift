import Testing

@testable import TensorKernels

@Suite struct MagnitudeWeightsTests {
  /// The whole sample of one model's magnitudes.
  private func sample(_ rows: [[Double]]) -> MagnitudeSample {
    let inputs = Inputs([[Double](repeating: 0, count: rows[0].count)] + rows, .f32)
    let workspace = inputs.workspace
    let sample = MagnitudeSample(models: rows.count, elements: rows[0].count)
    _ = noFilters(rows.count).addSample(inputs.block(count: rows[0].count, workspace: workspace), to: sample)
    return sample
  }

  private func bits(_ value: Double) -> UInt64 { pattern(value, narrow: true) }

  @Test(arguments: [1, 16, 17]) func aBracketHoldsItsRanks(models: Int) {
    var random = SplitMix64(state: 41)
    let rows = (0..<models).map { _ in (0..<300).map { _ in Double(Float(random.signed() * 3)) } }
    let weights = MagnitudeWeights(models: models)
    weights.add(sample(rows), elements: 300)
    #expect(weights.elements == 300 && weights.squares == 300)
    // A bin is an eighth of a thousandth of a magnitude wide, or a sixteenth.
    let bin = UInt64(1) << (models > 16 ? 19 : 15)
    for k in [0, models - 1] {
      let sorted = rows[k].map { bits($0.magnitude) }.sorted(by: >)
      for (first, last) in [(1, 1), (10, 12), (150, 150), (299, 300)] {
        let (low, high) = weights.bracket(from: Double(first), to: Double(last), model: k)
        #expect(low <= sorted[last - 1] && high >= sorted[first - 1], "\(first) to \(last)")
        #expect(high - sorted[first - 1] < bin && sorted[last - 1] - low < bin)
      }
    }
  }

  @Test func lowestPatternsOfBinsHaveBracketsOfTheirOwn() {
    let weights = MagnitudeWeights(models: 1)
    // 1 + 2^-12 is in the bin of 1, whose lowest pattern 1 is.
    weights.add(sample([[0, 0.5, -1, 1, 1, 1 + 0x1p-12, -2, 4]]), elements: 8)
    func bracket(_ rank: Double) -> (low: UInt64, high: UInt64) { weights.bracket(from: rank, to: rank, model: 0) }
    for (rank, value) in [(1.0, 4.0), (2, 2), (4, 1), (6, 1), (7, 0.5)] {
      #expect(bracket(rank) == (bits(value), bits(value)), "\(rank)")
    }
    #expect(bracket(3) == (bits(1) + 1, bits(1) + 1 << 15 - 1))
    #expect(bracket(8) == (0, 0))
  }

  @Test func outsideTheRanksABracketIsOpen() {
    let weights = MagnitudeWeights(models: 1)
    weights.add(sample([[1, 2, 4, 8]]), elements: 4)
    #expect(weights.bracket(from: 0.5, to: 2, model: 0) == (bits(4), 0x7FFF_FFFF))
    #expect(weights.bracket(from: 2, to: 4.5, model: 0) == (0, bits(4)))
  }

  @Test func aSampledElementStandsForManyOfALargeTensor() {
    let weights = MagnitudeWeights(models: 1)
    // Two tensors: of the first, ten elements for each of the sample's.
    weights.add(sample([[1, 2]]), elements: 20)
    weights.add(sample([[4, 8, 8, 8]]), elements: 4)
    #expect(weights.elements == 24 && weights.squares == 2 * 100 + 4)
    for (rank, value) in [(1.0, 8.0), (3, 8), (4, 4), (5, 2), (14, 2), (15, 1), (24, 1)] {
      #expect(weights.bracket(from: rank, to: rank, model: 0) == (bits(value), bits(value)), "\(rank)")
    }
    // A tensor without elements has no say.
    weights.add(MagnitudeSample(models: 1, elements: 0), elements: 0)
    #expect(weights.elements == 24)
  }

  @Test func bytesAreThoseOfThePage() {
    #expect(MagnitudeWeights.bytes(models: 3) == 3 << 20 && MagnitudeWeights.bytes(models: 17) == 17 << 16)
  }
}
