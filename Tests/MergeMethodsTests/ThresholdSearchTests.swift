import TensorKernels
import Testing

@testable import MergeMethods

// Exact: thresholds are magnitudes, and everything else is counted.
@Suite struct ThresholdSearchTests {
  /// Histograms counted one by one, as the kernel page defines them.
  private func counts(_ magnitudes: [[Double]], _ levels: [HistogramLevel], narrow: Bool, size: Int) -> [UInt64] {
    var counts = [UInt64](repeating: 0, count: size)
    for (k, level) in levels.enumerated() {
      guard let prefix = level.prefix else { continue }
      for value in magnitudes[k] {
        let pattern = narrow ? UInt64(Float(value).bitPattern) : value.bitPattern
        guard pattern >> UInt64(level.shift + level.binBits) == prefix else { continue }
        counts[k << level.binBits + Int(pattern >> UInt64(level.shift)) & (1 << level.binBits - 1)] += 1
      }
    }
    return counts
  }

  private func find(_ magnitudes: [[Double]], _ targets: [ThresholdTarget?], narrow: Bool, parts: Int = 1) -> [FoundThreshold?]
  {
    let search = ThresholdSearch(ranks: magnitudes.count, narrow: narrow)
    for level in 0..<search.levels {
      let levels = search.histogramLevels(level)
      for part in 0..<parts {
        let some = magnitudes.map { row in row.indices.filter { $0 % parts == part }.map { row[$0] } }
        search.add(counts(some, levels, narrow: narrow, size: ThresholdSearch.bytes(ranks: magnitudes.count) / 8))
      }
      search.settle(level) { targets }
    }
    return search.found
  }

  private func check(_ magnitudes: [[Double]], ranks: [Int?], narrow: Bool, _ note: Comment) {
    let found = find(magnitudes, ranks.map { $0.map { ThresholdTarget(rank: $0, ties: .all) } }, narrow: narrow, parts: 3)
    for (k, rank) in ranks.enumerated() {
      guard let rank else {
        #expect(found[k] == nil, note)
        continue
      }
      let sorted = magnitudes[k].map { narrow ? Double(Float($0)) : $0 }.sorted(by: >)
      #expect(found[k]?.value == sorted[rank - 1], note)
      #expect(found[k]?.above == sorted.filter { $0 > sorted[rank - 1] }.count, note)
      #expect(found[k]?.equal == sorted.filter { $0 == sorted[rank - 1] }.count, note)
    }
  }

  /// Rows that are hard on an order statistic.
  private func rows(_ count: Int) -> [[Double]] {
    var random = SplitMix64(state: 111)
    let range = 0..<count
    return [
      random.values(count).map { $0.magnitude }, range.map { _ in 0.5 }, range.map { _ in 0 },
      range.map { $0 % 5 == 0 ? 2 : 1 }, range.map { Double($0 % 7) * 0x1p-149 },
      range.map { Double(sign: .plus, exponent: $0 % 60 - 30, significand: 1 + Double($0 % 3) * 0x1p-23) },
      range.map { 1 + Double($0 % 11) * 0x1p-50 },
    ]
  }

  @Test(arguments: [true, false]) func thresholdsAreThoseOfSorting(narrow: Bool) {
    let count = isOptimised ? 1000 : 200
    let rows = rows(count)
    for rank in [1, 2, count / 4, count / 2, count - 1, count] {
      check(rows, ranks: rows.map { _ in rank }, narrow: narrow, "rank \(rank), narrow: \(narrow)")
    }
    check(rows, ranks: [nil, 1, nil, 7, count, nil, 3], narrow: narrow, "some models, narrow: \(narrow)")
  }

  @Test(arguments: [true, false]) func manyModelsHaveSmallerHistogramsAndMoreLevels(narrow: Bool) {
    let rows = rows(100)
    let all = (0..<17).map { rows[$0 % rows.count].map { $0 } }
    check(all, ranks: (0..<17).map { $0 == 5 ? nil : 1 + 6 * $0 }, narrow: narrow, "17 models, narrow: \(narrow)")
  }

  @Test func levelsAndBytesAreThoseOfThePage() {
    for (models, narrow, levels, bytes) in [
      (1, true, 2, 65536 * 8), (16, true, 2, 16 * 65536 * 8), (17, true, 3, 17 * 4096 * 8), (3, false, 4, 3 * 65536 * 8),
      (17, false, 6, 17 * 4096 * 8),
    ] {
      #expect(ThresholdSearch(ranks: models, narrow: narrow).levels == levels)
      #expect(ThresholdSearch.bytes(ranks: models) == bytes)
    }
  }
}
