import Testing

@testable import TensorKernels

@Suite struct MagnitudeSampleTests {
  @Test(arguments: kernelTypes) func aSampleOfASmallTensorIsAllOfIt(dtype: DType) {
    for count in [1, 15, 16, 17, 1000, 1024, 1500] {
      let rows = [magnitudes(count, seed: 1).map { -$0 }, magnitudes(count, seed: 5)]
      let inputs = Inputs([[Double](repeating: 0, count: count)] + rows, dtype)
      for narrow in dtype == .f64 ? [true, false] : [true] {
        let sample = MagnitudeSample(models: 2, elements: count)
        let workspace = inputs.workspace
        #expect(sample.isWhole && sample.ranges == nil && sample.count == count)
        #expect(noFilters(2, narrow: narrow).addSample(inputs.block(count: count, workspace: workspace), to: sample) == 0)
        for k in 0..<2 {
          let sorted = rows[k].map(\.magnitude).sorted(by: >)
          for rank in Set([1, 2, (count + 1) / 2, count]) where rank <= count {
            let value = sorted[rank - 1]
            let known = sample.largest(rank, model: k, narrow: narrow)
            #expect(known.pattern == pattern(value, narrow: narrow), "\(rank) of \(count)")
            #expect(known.above == sorted.filter { $0 > value }.count && known.equal == sorted.filter { $0 == value }.count)
          }
        }
      }
    }
  }

  @Test(arguments: [1, 16, 17]) func aLargeTensorIsSampledInPiecesOfAChunk(models: Int) {
    let elements = 10_000_019
    let sample = MagnitudeSample(models: models, elements: elements)
    let ranges = sample.ranges ?? []
    #expect(ranges.count == (models <= 16 ? 32 : 8) && ranges.allSatisfy { $0.count == 1024 && $0.lowerBound % 1024 == 0 })
    #expect(ranges.last!.upperBound <= elements && sample.count == 1024 * ranges.count)
    // Every element of a piece has a place of its own.
    let places = ranges.flatMap { range in range.map { sample.place(0, $0) - sample.place(0, 0) } }
    #expect(places == Array(0..<sample.count))
  }

  // MARK: - Brackets

  /// A sample of these magnitudes, whole.
  private func sample(_ values: [Double], _ dtype: DType, narrow: Bool) -> MagnitudeSample {
    let inputs = Inputs([[Double](repeating: 0, count: values.count), values], dtype)
    let workspace = inputs.workspace
    let sample = MagnitudeSample(models: 1, elements: values.count)
    _ = noFilters(1, narrow: narrow).addSample(inputs.block(count: values.count, workspace: workspace), to: sample)
    return sample
  }

  @Test(arguments: [(DType.f32, true), (.bf16, true), (.f64, true), (.f64, false)])
  func aBracketHoldsItsRanksAndLittleElse(dtype: DType, narrow: Bool) {
    var random = SplitMix64(state: 3)
    // Down to the eighth power of two below the largest, as bins go.
    let values = (0..<2000).map { _ in
      let value = Double(Float(random.signed())) * 0.9
      return dtype == .bf16 ? Double(Float(bitPattern: Float(value).bitPattern & 0xFFFF_0000)) : value
    }
    let sorted = values.map { pattern($0.magnitude, narrow: narrow) }.sorted(by: >)
    let bin = UInt64(1) << UInt64((narrow ? 23 : 52) - 8)
    let sample = sample(values, dtype, narrow: narrow)
    for (first, last) in [(1, 1), (1, 2000), (5, 30), (500, 600), (999, 1001), (1500, 1900)] {
      let found = sample.bracket(from: first, to: last, model: 0, narrow: narrow, frequent: 4)
      let (high, low) = (sorted[first - 1], sorted[last - 1])
      #expect(found.high >= high && found.high - high < bin, "\(first) to \(last)")
      #expect(found.low <= low, "\(first) to \(last)")
      let reaches = low + 8 << (bin.trailingZeroBitCount + 8) as UInt64 > sorted[0]
      #expect(reaches ? low - found.low < bin : found.low == 0, "\(first) to \(last)")
    }
  }

  @Test(arguments: kernelTypes) func openEndsTakeInAllThereIs(dtype: DType) {
    let sample = sample(magnitudes(300, seed: 4), dtype, narrow: true)
    let found = sample.bracket(from: 0, to: 301, model: 0, narrow: true, frequent: 0)
    #expect(found == MagnitudeSample.Bracket(low: 0, high: 0x7FFF_FFFF, frequent: []))
  }

  @Test(arguments: kernelTypes) func theMostFrequentPatternsComeFirst(dtype: DType) {
    // 1 once, 1.25 twice and so on; the lower of two that are as frequent comes first.
    let values = [1, 1.25, 1.25, 1.5, 1.5, 1.5, 1.75, 1.75, 2, 2, 2, 2, 64]
    let sample = sample(values, dtype, narrow: true)
    func patterns(_ values: [Double]) -> [UInt64] { values.map { pattern($0, narrow: true) } }
    #expect(
      sample.bracket(from: 1, to: 13, model: 0, narrow: true, frequent: 7).frequent == patterns([2, 1.5, 1.25, 1.75]))
    #expect(sample.bracket(from: 1, to: 13, model: 0, narrow: true, frequent: 2).frequent == patterns([2, 1.5]))
    // From the sixth largest, a 1.75, to the ninth, a 1.5.
    #expect(sample.bracket(from: 6, to: 9, model: 0, narrow: true, frequent: 7).frequent == patterns([1.5, 1.75]))
  }

  @Test func whatIsFarBelowTheLargestIsNotTakenForWhatIsFrequent() {
    let values = [Double](repeating: 1e-3, count: 50) + [1024] + [Double](repeating: 0, count: 50)
    let sample = sample(values, .f32, narrow: true)
    let found = sample.bracket(from: 2, to: 60, model: 0, narrow: true, frequent: 7)
    #expect(found.low == 0 && found.high >= pattern(1e-3, narrow: true) && found.high < pattern(1024, narrow: true))
    #expect(found.frequent.isEmpty)
  }

  @Test(arguments: kernelTypes) func whatIsNotFinitePoisons(dtype: DType) {
    let inputs = Inputs([[0, 0], [1, .infinity]], dtype)
    let workspace = inputs.workspace
    let sample = MagnitudeSample(models: 1, elements: 2)
    #expect(noFilters(1, narrow: true).addSample(inputs.block(count: 2, workspace: workspace), to: sample).isNaN)
  }
}
