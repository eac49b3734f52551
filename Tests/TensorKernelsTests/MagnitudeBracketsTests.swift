import Testing

@testable import TensorKernels

@Suite struct MagnitudeBracketsTests {
  private func vectors(_ models: Int, narrow: Bool) -> TaskVectors {
    TaskVectors(filters: [TaskVectorFilter](repeating: TaskVectorFilter(), count: models), narrow: narrow)
  }

  /// Magnitudes that are exact in every type, many of them equal.
  private func magnitudes(_ count: Int, seed: Int) -> [Double] { (0..<count).map { Double(($0 * 37 + seed) % 23) * 0.25 } }

  private func pattern(_ value: Double, narrow: Bool) -> UInt64 { narrow ? UInt64(Float(value).bitPattern) : value.bitPattern }

  @Test(arguments: kernelTypes) func aSampleOfASmallTensorIsAllOfIt(dtype: DType) {
    for count in [1, 15, 16, 17, 1000, 1024, 1500] {
      let rows = [magnitudes(count, seed: 1).map { -$0 }, magnitudes(count, seed: 5)]
      let inputs = Inputs([[Double](repeating: 0, count: count)] + rows, dtype)
      for narrow in dtype == .f64 ? [true, false] : [true] {
        let sample = MagnitudeSample(models: 2, elements: count)
        let workspace = inputs.workspace
        #expect(sample.isWhole && sample.ranges == nil && sample.count == count)
        #expect(vectors(2, narrow: narrow).addSample(inputs.block(count: count, workspace: workspace), to: sample) == 0)
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

  @Test(arguments: kernelTypes) func whatIsAboveAndInsideABracketIsCounted(dtype: DType) {
    let count = 3000
    let rows = [magnitudes(count, seed: 2), magnitudes(count, seed: 9).map { -$0 }]
    let inputs = Inputs([[Double](repeating: 0, count: count)] + rows, dtype)
    for narrow in dtype == .f64 ? [true, false] : [true] {
      // One magnitude, an interval with 0 in it, one that no element is in, and everything.
      let all = pattern(.infinity, narrow: narrow)
      for (low, high) in [(1.0, 1.0), (0, 0), (0, 2), (0.5, 3.25), (5.51, 5.74), (100, 200)] {
        let (from, to) = (pattern(low, narrow: narrow), high == 200 ? all : pattern(high, narrow: narrow))
        // 0 and 1 are the lowest of their bins: a bin has less than a power of two.
        let candidates = low == high ? [from] : low == 0 && high == 2 ? [pattern(1, narrow: narrow), 0] : []
        let first = MagnitudeBracket(low: from, high: to, offset: 0, candidates: candidates)
        let brackets: [MagnitudeBracket?] = [
          first, MagnitudeBracket(low: from, high: to, offset: first.counters, candidates: candidates),
        ]
        let counts = GuardedBytes(count: 2 * first.counters * 8)
        counts.store([UInt64](repeating: 0, count: 2 * first.counters))
        var cells = [Int](repeating: 0, count: 2 * MagnitudeBracket.slots)
        let workspace = inputs.workspace
        let poison = vectors(2, narrow: narrow).addCounts(
          inputs.block(count: count, workspace: workspace), brackets, into: counts.start.assumingMemoryBound(to: UInt64.self),
          cells: &cells, cellCount: 1)
        #expect(poison == 0 && counts.isIntact && workspace.isIntact && first.counters <= 2 * 2049 + 1)
        let found = counts.load(as: UInt64.self)
        for k in 0..<2 {
          var expected = [UInt64](repeating: 0, count: first.counters)
          for value in rows[k] {
            let own = pattern(value.magnitude, narrow: narrow)
            if own > to { expected[0] += 1 }
            if own >= first.low, own <= to {
              let place = own - first.low
              let isLowest = place % (1 << UInt64(first.shift)) == 0
              expected[1 + 2 * Int(place >> UInt64(first.shift)) + (isLowest ? 0 : 1)] += 1
            }
          }
          #expect(Array(found[(k * first.counters)..<((k + 1) * first.counters)]) == expected, "\(low) to \(high), \(dtype)")
          for (slot, candidate) in candidates.enumerated() {
            let equal = rows[k].count { pattern($0.magnitude, narrow: narrow) == candidate }
            #expect(cells[k * MagnitudeBracket.slots + 1 + slot] == equal, "\(candidate), \(dtype)")
          }
        }
      }
    }
  }

  @Test func aModelWithoutABracketIsNotCounted() {
    let inputs = Inputs([[0, 0], [1, 2], [3, 4]], .f32)
    var counts = [UInt64](repeating: 0, count: 3)
    var cells = [Int](repeating: 0, count: 2 * MagnitudeBracket.slots)
    let one = pattern(3, narrow: true)
    let workspace = inputs.workspace
    _ = vectors(2, narrow: true).addCounts(
      inputs.block(count: 2, workspace: workspace), [nil, MagnitudeBracket(low: one, high: one, offset: 0)], into: &counts,
      cells: &cells, cellCount: 1)
    #expect(counts == [1, 1, 0] && cells[MagnitudeBracket.slots + 1] == 1 && cells.reduce(0, +) == 1)
  }

  @Test(arguments: kernelTypes) func whatIsNotFinitePoisons(dtype: DType) {
    let inputs = Inputs([[0, 0], [1, .infinity]], dtype)
    let workspace = inputs.workspace
    let sample = MagnitudeSample(models: 1, elements: 2)
    #expect(vectors(1, narrow: true).addSample(inputs.block(count: 2, workspace: workspace), to: sample).isNaN)
  }
}
