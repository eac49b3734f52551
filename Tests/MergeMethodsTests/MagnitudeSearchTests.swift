import TensorKernels
import Testing

@testable import MergeMethods

// Exact: the counts are those of the page of MagnitudeBrackets.swift, made one by one.
@Suite struct MagnitudeSearchTests {
  private func pattern(_ value: Double, narrow: Bool) -> UInt64 {
    narrow ? UInt64(Float(value).bitPattern) : value.bitPattern
  }

  private func counts(_ patterns: [UInt64], _ bracket: MagnitudeBracket) -> [Int] {
    var counts = [Int](repeating: 0, count: bracket.offset + bracket.counters)
    for pattern in patterns {
      if pattern > bracket.high {
        counts[bracket.offset] += 1
      } else if pattern >= bracket.low {
        let place = pattern - bracket.low
        let half = 2 * Int(place >> UInt64(bracket.shift)) + (place % (1 << UInt64(bracket.shift)) == 0 ? 0 : 1)
        counts[bracket.offset + 1 + half] += 1
      }
    }
    return counts
  }

  /// Search until the magnitude is known.
  /// - Returns: what was found, in how many sweeps.
  private func find(
    _ values: [Double], rank: Int, narrow: Bool, from start: ClosedRange<Double>? = nil
  ) throws -> (value: Double, above: Int, equal: Int, sweeps: Int) {
    let patterns = values.map { pattern($0, narrow: narrow) }
    var search = MagnitudeSearch(narrow: narrow)
    if let start {
      (search.low, search.high) = (pattern(start.lowerBound, narrow: narrow), pattern(start.upperBound, narrow: narrow))
    }
    for sweep in 1...12 {
      let bracket = search.bracket(offset: 3)
      if let known = search.narrowDown(bracket, counts(patterns, bracket), rank: rank) {
        return (search.value(bracket.pattern(known.half)), known.above, known.equal, sweep)
      }
    }
    throw Endless()
  }

  private struct Endless: Error {}

  @Test(arguments: [true, false]) func theMagnitudeIsThatOfASortWhereverTheSearchBegins(narrow: Bool) throws {
    var random = SplitMix64(state: 81)
    let values = random.values(500).map { Double(Float($0)).magnitude } + [0, 0, 0.25, 0.25, 0.25]
    let sorted = values.sorted(by: >)
    for rank in [1, 2, 100, 250, 503, 505] {
      // Everything; around it; above it; below it.
      for start in [nil, 0.2...0.3, 2...4, 0...0x1p-100] {
        let found = try find(values, rank: rank, narrow: narrow, from: start)
        let value = sorted[rank - 1]
        #expect(found.value == value, "rank \(rank)")
        #expect(found.above == sorted.count { $0 > value } && found.equal == sorted.count { $0 == value })
        // 31 bits by 11, or 63; one sweep more where it is not in the bracket.
        #expect(found.sweeps <= (narrow ? 4 : 7))
      }
    }
  }

  @Test func theLowestOfABinIsKnownAtOnce() throws {
    let values = [Double](repeating: 0.5, count: 40) + [Double](repeating: 0.75, count: 60)
    for (rank, value) in [(60, 0.75), (61, 0.5)] {
      let found = try find(values, rank: rank, narrow: true, from: 0.25...1)
      #expect(found.value == value && found.sweeps == 1)
    }
  }
}
