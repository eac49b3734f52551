import Testing

@testable import TensorKernels

// Exact: counts are whole numbers.
@Suite struct MagnitudeHistogramTests {
  private func counts(_ vectors: TaskVectors, _ inputs: Inputs, count: Int) -> [[UInt64]] {
    let bins = TaskVectors.histogramBins
    let bytes = GuardedBytes(count: vectors.models * bins * 8)
    bytes.store([UInt64](repeating: 0, count: vectors.models * bins))
    let workspace = inputs.workspace
    let poison = vectors.addHistogram(
      inputs.block(count: count, workspace: workspace), into: bytes.start.assumingMemoryBound(to: UInt64.self))
    #expect(poison == 0 && bytes.isIntact && workspace.isIntact)
    let all = bytes.load(as: UInt64.self)
    return (0..<vectors.models).map { Array(all[$0 * bins..<($0 + 1) * bins]) }
  }

  private func bin(_ value: Double) -> Int { Int(Float(value.magnitude).bitPattern >> 15) }

  @Test(arguments: kernelTypes) func everyElementIsCountedOnceAndNoPadding(dtype: DType) {
    var random = SplitMix64(state: 72)
    for count in isOptimised ? [1, 15, 16, 17, 1023, 1024, 1025] : [1, 17] {
      // Of a wide range, and zeros of both signs.
      let values = random.values(count).enumerated().map { i, x in
        i % 7 == 0 ? -0.0 : Double(sign: .plus, exponent: i % 24 - 12, significand: x)
      }
      let inputs = Inputs([quarters(count, &random), quarters(count, &random), values], dtype)
      for narrow in dtype == .f64 ? [true, false] : [true] {
        for (k, bins) in counts(noFilters(2, narrow: narrow), inputs, count: count).enumerated() {
          var expected = [UInt64](repeating: 0, count: bins.count)
          for d in inputs.differences[k] { expected[bin(d)] += 1 }
          #expect(bins == expected, "\(count) of \(dtype)")
        }
      }
    }
  }

  @Test func whatTheFiltersLeaveIsCounted() {
    let inputs = Inputs([[0, 0, 0, 0], [1, 2, 3, 4]], .bf16)
    var vectors = noFilters(1)
    vectors.filters[0].cut = .below(threshold: 3, tiesBefore: 0)
    let bins = counts(vectors, inputs, count: 4)[0]
    #expect(bins[0] == 3 && bins[bin(4)] == 1 && bins.reduce(0, +) == 4)
  }

  @Test(arguments: kernelTypes) func somethingNotFiniteIsReported(dtype: DType) {
    let inputs = Inputs([[0, 0], [1, .nan]], dtype)
    var bins = [UInt64](repeating: 0, count: TaskVectors.histogramBins)
    let workspace = inputs.workspace
    #expect(noFilters(1).addHistogram(inputs.block(count: 2, workspace: workspace), into: &bins).isNaN)
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
