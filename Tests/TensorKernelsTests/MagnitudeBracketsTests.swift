import Testing

@testable import TensorKernels

@Suite struct MagnitudeBracketsTests {
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
        let poison = noFilters(2, narrow: narrow).addCounts(
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
    _ = noFilters(2, narrow: true).addCounts(
      inputs.block(count: 2, workspace: workspace), [nil, MagnitudeBracket(low: one, high: one, offset: 0)], into: &counts,
      cells: &cells, cellCount: 1)
    #expect(counts == [1, 1, 0] && cells[MagnitudeBracket.slots + 1] == 1 && cells.reduce(0, +) == 1)
  }
}
