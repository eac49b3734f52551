import Testing

@testable import TensorKernels

// Exact: differences are rounded once, filters only put zeros.
@Suite struct TaskVectorFilterTests {
  private func inputs(_ models: Int, _ count: Int, _ dtype: DType, seed: UInt64) -> Inputs {
    var random = SplitMix64(state: seed)
    return Inputs((0...models).map { _ in random.values(count) }, dtype)
  }

  // MARK: - Random drop

  @Test(arguments: kernelTypes) func elementsAreDroppedByTheirWord(dtype: DType) {
    let keep = [0.3, 1, 0]
    for start in [0, 1, 2, 3, 1021, 1 << 40 + 1] {
      for count in [1, 15, 16, 17, 1023, 1025, 2100] {
        let inputs = inputs(3, count, dtype, seed: 63)
        var vectors = noFilters(3)
        for k in 0..<3 {
          guard let limit = RandomStream.limit(keeping: keep[k]) else { continue }
          vectors.filters[k].drop = .bernoulli(RandomStream(seed: 5, name: "t", model: k), limit: limit)
        }
        let expected = inputs.differences.enumerated().map { k, row in
          row.enumerated().map { i, d -> Double in
            let word = ScalarPhilox.word(seed: 5, "t", model: UInt32(k), start + i)
            return UInt64(word) < UInt64(keep[k] * 0x1p32 + 0.5) ? d : 0
          }
        }
        let found = rows(vectors, inputs, count: count, start: start).rows
        for k in 0..<3 { #expect(difference(found[k], expected[k]) == nil, "\(count) from \(start), model \(k)") }
        #expect(rows(vectors, inputs, count: count, start: start, raw: true).rows == inputs.differences)
      }
    }
  }

  /// Magnitudes per bin, counted one by one.
  private func bins(_ magnitudes: [Double]) -> [UInt64] {
    var bins = [UInt64](repeating: 0, count: 1 << 16)
    for value in magnitudes { bins[Int(Float(value).magnitude.bitPattern >> 15)] += 1 }
    return bins
  }

  @Test func aRankIsReadOffTheHistogram() {
    // Powers of two: a bin each, and the lowest pattern in it.
    let magnitudes = (0..<20).map { Double(sign: .plus, exponent: $0 - 10, significand: 1) }
    let (p, epsilon, n) = (0.6, 0.5, 20.0)
    let keep = RankedKeep(probability: p, epsilon: epsilon, histogram: bins(magnitudes))
    for (i, value) in magnitudes.enumerated() {
      let rank = Double(i) + 0.5 / 32768
      let expected = p + epsilon * (rank / n - (n + 1) / (2 * n))
      let limit = keep.limit(UInt64(Float(value).bitPattern))
      // One rounding of a probability is far below a word.
      #expect((Double(limit!) - expected * 0x1p32).magnitude <= 1, "rank \(i)")
    }
  }

  @Test func probabilitiesStayBetweenNothingAndAll() {
    let histogram = bins((1...100).map { Double($0) })
    let rising = RankedKeep(probability: 0.5, epsilon: 3, histogram: histogram)
    #expect(rising.limit(UInt64(Float(1).bitPattern)) == 0 && rising.limit(UInt64(Float(100).bitPattern)) == nil)
    let falling = RankedKeep(probability: 0.5, epsilon: -3, histogram: histogram)
    #expect(falling.limit(UInt64(Float(1).bitPattern)) == nil && falling.limit(UInt64(Float(100).bitPattern)) == 0)
    let flat = RankedKeep(probability: 0.25, epsilon: 0, histogram: histogram)
    for value in 1...100 { #expect(flat.limit(UInt64(Float(value).bitPattern)) == 1 << 30) }
  }

  @Test(arguments: kernelTypes) func rankedDropsFollowTheElementsOwnLimit(dtype: DType) {
    let (count, start) = (1100, 7)
    let inputs = inputs(1, count, dtype, seed: 64)
    let d = inputs.differences[0]
    let keep = RankedKeep(probability: 0.5, epsilon: 0.8, histogram: bins(d))
    var vectors = noFilters(1)
    vectors.filters[0].drop = .ranked(RandomStream(seed: 1, name: "t", model: 0), keep)
    let expected = d.enumerated().map { i, value -> Double in
      guard let limit = keep.limit(UInt64(Float(value).magnitude.bitPattern)) else { return value }
      return ScalarPhilox.word(seed: 1, "t", model: 0, start + i) < limit ? value : 0
    }
    #expect(difference(rows(vectors, inputs, count: count, start: start).rows[0], expected) == nil)
    // Large changes survive more often than small ones.
    let order = d.indices.sorted { d[$0].magnitude < d[$1].magnitude }
    let kept = order.map { expected[$0] != 0 }
    #expect(kept.prefix(550).filter { $0 }.count < kept.suffix(550).filter { $0 }.count)
  }

  // MARK: - Trim

  @Test(arguments: kernelTypes) func tiesStayByTheLowestIndex(dtype: DType) {
    var random = SplitMix64(state: 65)
    for (count, start) in [(1, 0), (16, 0), (17, 5), (40, 1000), (1024, 0), (1025, 3), (2100, 65536)] {
      let inputs = Inputs([[Double](repeating: 0, count: count), quarters(count, &random)], dtype)
      let d = inputs.differences[0]
      for threshold in [0, 0.5, 1, 2, 3] {
        let places = count <= 40 ? Array(0...count) : [0, 1, 15, 16, 17, 31, 1023, 1024, 1025, count - 1, count]
        for tiesBefore in [0, .max] + places.map({ start + $0 }) {
          var vectors = noFilters(1)
          vectors.filters[0].cut = .below(threshold: threshold, tiesBefore: tiesBefore)
          let expected = d.enumerated().map { i, value -> Double in
            value.magnitude > threshold || value.magnitude == threshold && start + i < tiesBefore ? value : 0
          }
          let found = rows(vectors, inputs, count: count, start: start).rows[0]
          #expect(difference(found, expected) == nil, "\(count) from \(start), \(threshold) before \(tiesBefore)")
        }
      }
    }
  }

  @Test(arguments: kernelTypes) func aTrimOfEverythingLeavesZeros(dtype: DType) {
    let inputs = inputs(2, 1030, dtype, seed: 66)
    var vectors = noFilters(2)
    vectors.filters[1].cut = .everything
    let found = rows(vectors, inputs, count: 1030).rows
    #expect(found[0] == inputs.differences[0] && found[1].allSatisfy { $0 == 0 })
    #expect(vectors.filters[0].isNone && !vectors.filters[1].isNone)
  }

  @Test func theTrimSeesWhatTheDropHasLeft() {
    var vectors = noFilters(1)
    vectors.filters[0].drop = .bernoulli(RandomStream(seed: 0, name: "t", model: 0), limit: 1 << 31)
    vectors.filters[0].cut = .below(threshold: 0.5, tiesBefore: 0)
    #expect(!vectors.filters[0].isNone)
    var random = SplitMix64(state: 67)
    let inputs = Inputs([[Double](repeating: 0, count: 500), quarters(500, &random)], .f32)
    let expected = inputs.values[1].enumerated().map { i, d -> Double in
      d.magnitude > 0.5 && ScalarPhilox.word(seed: 0, "t", model: 0, i) < 1 << 31 ? d : 0
    }
    #expect(rows(vectors, inputs, count: 500).rows[0] == expected)
  }

  @Test func magnitudesAreRankedInBinary32OrBinary64() {
    // All equal in binary32, not in binary64.
    let values = [1, 1 + 0x1p-40, -1 - 0x1p-40, 1 - 0x1p-40, 1 + 0x1p-20]
    let inputs = Inputs([[0, 0, 0, 0, 0], values], .f64)
    for (narrow, expected) in [
      (true, [1, 1 + 0x1p-40, 0, 0, 1 + 0x1p-20]), (false, [1, 1 + 0x1p-40, -1 - 0x1p-40, 0, 1 + 0x1p-20]),
    ] as [(Bool, [Double])] {
      var vectors = noFilters(1, narrow: narrow)
      vectors.filters[0].cut = .below(threshold: 1, tiesBefore: 2)
      #expect(rows(vectors, inputs, count: 5).rows[0] == expected, "narrow: \(narrow)")
    }
  }
}

@Suite struct TaskVectorEndsTests {
  @Test(arguments: kernelTypes) func aCeilingTakesTheLargestAway(dtype: DType) {
    var random = SplitMix64(state: 71)
    for count in [5, 1030, 3000] {
      let inputs = Inputs([quarters(count, &random), quarters(count, &random)], dtype)
      let d = inputs.differences[0]
      for dropsBefore in [0, 1027, 7000, 7000 + count / 2, .max] {
        var vectors = noFilters(1)
        vectors.filters[0].ceiling = .above(threshold: 1.5, dropsBefore: dropsBefore)
        #expect(!vectors.filters[0].isNone)
        let expected = d.enumerated().map { i, value in
          value.magnitude > 1.5 || value.magnitude == 1.5 && 7000 + i < dropsBefore ? 0 : value
        }
        let found = rows(vectors, inputs, count: count, start: 7000)
        #expect(difference(found.rows[0], expected) == nil && found.poison == 0, "\(count) \(dropsBefore)")
      }
    }
  }

  @Test(arguments: kernelTypes) func aMaskOfTheBlockDecides(dtype: DType) {
    var random = SplitMix64(state: 72)
    let count = 2100
    let inputs = Inputs([quarters(count, &random), quarters(count, &random)], dtype)
    let mask = (0..<count).map { _ in UInt8(random.below(2)) }
    mask.withUnsafeBufferPointer { bytes in
      var vectors = noFilters(1)
      vectors.filters[0].drop = .masked(BlockMask(bytes: bytes.baseAddress!, start: 512))
      let expected = zip(inputs.differences[0], mask).map { $1 == 0 ? 0 : $0 }
      #expect(difference(rows(vectors, inputs, count: count, start: 512).rows[0], expected) == nil)
    }
  }
}
