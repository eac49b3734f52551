import Testing

@testable import TensorKernels

// Exact: counts are whole numbers, and a threshold is one of the magnitudes.
@Suite struct MagnitudeHistogramTests {
  private func counts(
    _ vectors: TaskVectors, _ inputs: Inputs, _ levels: [HistogramLevel], count: Int, from: Int = 0
  ) -> [[UInt64]] {
    let bins = 1 << levels[0].binBits
    let bytes = GuardedBytes(count: levels.count * bins * 8)
    bytes.store([UInt64](repeating: 0, count: levels.count * bins))
    let workspace = inputs.workspace
    let poison = vectors.addHistogram(
      inputs.block(from: from, count: count, workspace: workspace), levels,
      into: bytes.start.assumingMemoryBound(to: UInt64.self))
    #expect(poison == 0 && bytes.isIntact && workspace.isIntact)
    let all = bytes.load(as: UInt64.self)
    return levels.indices.map { Array(all[$0 * bins..<($0 + 1) * bins]) }
  }

  /// Bits of each level, from the top: binary32 patterns, or binary64 ones.
  private func widths(narrow: Bool) -> [Int] { narrow ? [16, 15] : [16, 16, 16, 15] }

  /// The rank-th largest magnitude by histograms, with how many are above it and equal to it.
  private func search(_ inputs: Inputs, rank: Int, narrow: Bool, count: Int) -> (value: Double, above: Int, equal: Int) {
    let vectors = noFilters(1, narrow: narrow)
    var (prefix, above, equal) = (UInt64(0), 0, 0)
    var left = narrow ? 31 : 63
    for width in widths(narrow: narrow) {
      left -= width
      let bins = counts(vectors, inputs, [HistogramLevel(prefix: prefix, shift: left, binBits: width)], count: count)[0]
      var bin = bins.count - 1
      while above + Int(bins[bin]) < rank {
        above += Int(bins[bin])
        bin -= 1
      }
      (prefix, equal) = (prefix << UInt64(width) | UInt64(bin), Int(bins[bin]))
    }
    return (narrow ? Double(Float(bitPattern: UInt32(prefix))) : Double(bitPattern: prefix), above, equal)
  }

  private static let patterns: [(name: String, value: @Sendable (Int, Double) -> Double)] = [
    ("random", { $1 }), ("all equal", { i, _ in i % 2 == 0 ? 0.5 : -0.5 }), ("two values", { i, x in x < 0 ? -1 : 2 }),
    ("zeros of both signs", { i, x in i % 3 == 0 ? 0.0 : i % 3 == 1 ? -0.0 : x }), ("all zero", { _, _ in -0.0 }),
    ("denormal", { i, _ in Double(sign: i % 2 == 0 ? .plus : .minus, exponent: -149, significand: Double(i % 37)) }),
    ("wide range", { i, x in Double(sign: .plus, exponent: i % 24 - 12, significand: x) }),
  ]

  @Test(arguments: kernelTypes) func thresholdsAreThoseOfSorting(dtype: DType) {
    var random = SplitMix64(state: 71)
    for (name, value) in Self.patterns {
      for count in isOptimised ? [1, 17, 1025, 4096] : [33] {
        let values = random.values(count).enumerated().map { value($0.offset, $0.element) }
        let base = name == "denormal" ? [Double](repeating: 0, count: count) : quarters(count, &random)
        let inputs = Inputs([base, values], dtype)
        // Binary32 for all; what F64 is really ranked by too.
        for narrow in dtype == .f64 ? [true, false] : [true] {
          let magnitudes = inputs.differences[0].map { narrow ? Double(Float($0.magnitude)) : $0.magnitude }
          let sorted = magnitudes.sorted(by: >)
          for rank in Set([1, 2, count / 3, count / 2, count - 1, count]) where (1...count).contains(rank) {
            let found = search(inputs, rank: rank, narrow: narrow, count: count)
            let value = sorted[rank - 1]
            let note: Comment = "\(name): \(rank) of \(count), \(dtype), narrow: \(narrow)"
            #expect(found.value == value, note)
            #expect(found.above == sorted.filter { $0 > value }.count, note)
            #expect(found.equal == sorted.filter { $0 == value }.count, note)
          }
        }
      }
    }
  }

  @Test(arguments: kernelTypes) func everyElementIsCountedOnceAndNoPadding(dtype: DType) {
    var random = SplitMix64(state: 72)
    for count in [1, 15, 16, 17, 1023, 1024, 1025] {
      let inputs = Inputs([quarters(count, &random), quarters(count, &random), quarters(count, &random)], dtype)
      let level = HistogramLevel(prefix: 0, shift: 19, binBits: 12)
      for (k, bins) in counts(noFilters(2), inputs, [level, level], count: count).enumerated() {
        let d = inputs.differences[k]
        #expect(bins.reduce(0, +) == UInt64(count) && bins[0] == UInt64(d.filter { $0 == 0 }.count), "\(count) of \(dtype)")
        for value in [0.25, 1, 2] {
          // Quarters below 4 differ within the first 12 bits.
          let bin = Int(Float(value).bitPattern >> 19)
          #expect(bins[bin] == UInt64(d.filter { $0.magnitude == value }.count))
        }
      }
    }
  }

  @Test func onlyElementsOfThePrefixAreCounted() {
    let values = [1, 1.5, -1.5, 1.75, 2, 0, 0]
    let inputs = Inputs([[Double](repeating: 0, count: 7), values, values], .f32)
    let top = UInt64(Float(1).bitPattern >> 23)
    let bins = counts(
      noFilters(2), inputs,
      [HistogramLevel(prefix: top, shift: 21, binBits: 2), HistogramLevel(prefix: nil, shift: 21, binBits: 2)], count: 7)
    #expect(bins == [[1, 0, 2, 1], [0, 0, 0, 0]])
  }

  @Test func whatTheFiltersLeaveIsCounted() {
    let inputs = Inputs([[0, 0, 0, 0], [1, 2, 3, 4]], .bf16)
    var vectors = noFilters(1)
    vectors.filters[0].cut = .below(threshold: 3, tiesBefore: 0)
    let bins = counts(vectors, inputs, [HistogramLevel(prefix: 0, shift: 23, binBits: 8)], count: 4)[0]
    #expect(bins[0] == 3 && bins[129] == 1 && bins.reduce(0, +) == 4)
  }

  @Test(arguments: kernelTypes) func somethingNotFiniteIsReported(dtype: DType) {
    let inputs = Inputs([[0, 0], [1, .nan]], dtype)
    var bins = [UInt64](repeating: 0, count: 1 << 12)
    let workspace = inputs.workspace
    let poison = noFilters(1).addHistogram(
      inputs.block(count: 2, workspace: workspace), [HistogramLevel(prefix: 0, shift: 19, binBits: 12)], into: &bins)
    #expect(poison.isNaN)
  }

  // MARK: - Ties

  @Test(arguments: kernelTypes) func tiesAreCountedPerCell(dtype: DType) {
    var random = SplitMix64(state: 73)
    // Across the end of a cell: the elements' own numbers decide. Blocks start at multiples of a chunk.
    for (start, count) in [(0, 100), (65536 - 1024, 1050), (3 * 65536 - 2048, 3000)] {
      let inputs = Inputs(
        [[Double](repeating: 0, count: count), quarters(count, &random), quarters(count, &random)], dtype)
      let d = inputs.differences
      let cells = 4
      let bytes = GuardedBytes(count: 2 * cells * 8)
      bytes.store([Int](repeating: 0, count: 2 * cells))
      let workspace = inputs.workspace
      let thresholds = [0.75, 0]
      noFilters(2).addTies(
        inputs.block(count: count, start: start, workspace: workspace), thresholds,
        into: bytes.start.assumingMemoryBound(to: Int.self), cells: cells)
      var expected = [Int](repeating: 0, count: 2 * cells)
      for k in 0..<2 {
        for i in 0..<count where d[k][i].magnitude == thresholds[k] { expected[k * cells + (start + i) / 65536] += 1 }
      }
      #expect(bytes.load(as: Int.self) == expected && bytes.isIntact && workspace.isIntact)
    }
  }

  @Test(arguments: kernelTypes) func everyTieOfACellIsFound(dtype: DType) {
    var random = SplitMix64(state: 74)
    let (start, count) = (65536 - 1024, isOptimised ? 2100 : 1084)
    let inputs = Inputs([[Double](repeating: 0, count: count), quarters(count, &random), quarters(count, &random)], dtype)
    let d = inputs.differences
    let thresholds = [0.5, 1.0]
    let workspace = inputs.workspace
    for cell in [0, 1] {
      let ties = (0..<2).map { k in
        (0..<count).filter { d[k][$0].magnitude == thresholds[k] && (start + $0) / 65536 == cell }.map { start + $0 }
      }
      for rank in stride(from: 1, through: max(ties[0].count, ties[1].count) + 1, by: isOptimised ? 1 : 17) {
        var (remaining, found) = ([rank, rank], [0, 0])
        // In two blocks, in order.
        for (from, length) in [(0, 1024), (1024, count - 1024)] {
          noFilters(2).findTies(
            inputs.block(from: from, count: length, start: start + from, workspace: workspace), thresholds,
            inCells: [cell, cell], remaining: &remaining, found: &found)
        }
        for k in 0..<2 {
          #expect(found[k] == (rank <= ties[k].count ? ties[k][rank - 1] + 1 : 0), "\(rank) of model \(k), cell \(cell)")
        }
      }
    }
  }

  @Test func modelsWithoutAThresholdOrACellAreLeftOut() {
    let inputs = Inputs([[0, 0], [1, 1], [1, 1]], .f32)
    let workspace = inputs.workspace
    let block = inputs.block(count: 2, workspace: workspace)
    var counts = [0, 0]
    noFilters(2).addTies(block, [nil, 1], into: &counts, cells: 1)
    #expect(counts == [0, 2])
    var (remaining, found) = ([1, 1], [0, 0])
    noFilters(2).findTies(block, [1, 1], inCells: [nil, 0], remaining: &remaining, found: &found)
    #expect(found == [0, 1] && remaining[0] == 1)
  }

  @Test func tiesInBinary32AreWiderThanInBinary64() {
    let inputs = Inputs([[0, 0, 0], [1, 1 + 0x1p-40, -1]], .f64)
    let workspace = inputs.workspace
    for (narrow, expected) in [(true, 3), (false, 2)] {
      var counts = [0]
      noFilters(1, narrow: narrow).addTies(inputs.block(count: 3, workspace: workspace), [1], into: &counts, cells: 1)
      #expect(counts == [expected])
    }
  }
}
