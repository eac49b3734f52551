import Testing

@testable import TensorKernels

// Exact: quarters, with factors that are powers of two.
@Suite struct TallMaskTests {
  private struct Outcome {
    var masks: [[UInt8]]
    var merged: [Double]
    var sums: [Double]
    var poison: Double
  }

  private func run(
    _ masks: TallMasks, _ inputs: Inputs, from: Int = 0, count: Int, lambda: Double = 1, addsBase: Bool = true, _ type: DType,
    writesBits: Bool = true, writesMerged: Bool = true
  ) -> Outcome {
    let rows = (0..<masks.lambdas.count).map { _ in GuardedBytes(count: (count + 7) / 8, misalignment: 3) }
    let merged = GuardedBytes(count: count * type.size)
    let workspace = inputs.workspace
    var sums = [Double](repeating: 0, count: masks.sums)
    let poison = rows.map { $0.start.assumingMemoryBound(to: UInt8.self) }.withUnsafeBufferPointer { table in
      masks.run(
        inputs.block(from: from, count: count, workspace: workspace),
        .init(
          lambda: lambda, addsBase: addsBase, merged: writesMerged ? merged.start : nil, type,
          bits: writesBits ? table.baseAddress : nil), sums: &sums)
    }
    #expect(merged.isIntact && workspace.isIntact && rows.allSatisfy(\.isIntact))
    return Outcome(masks: rows.map(\.bytes), merged: merged.values(as: type), sums: sums, poison: poison)
  }

  private func sum(_ models: Int) -> DisjointMerge {
    let ones = [Double](repeating: 1, count: models)
    return DisjointMerge(noFilters(models), SignElection(.none, zeroSign: 0, factors: ones), .sum, weights: ones)
  }

  /// Bit j of byte b is element 8 b + j; past the end 0.
  private func bits(_ mask: [Bool]) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: (mask.count + 7) / 8)
    for (i, isKept) in mask.enumerated() where isKept { bytes[i / 8] |= 1 << UInt8(i % 8) }
    return bytes
  }

  private func plain(_ inputs: Inputs, tau: [Double], _ lambdas: [Double]) -> [[Bool]] {
    zip(inputs.differences, lambdas).map { d, lambda in
      d.indices.map { d[$0].magnitude > lambda * (tau[$0] - d[$0]).magnitude }
    }
  }

  @Test(arguments: kernelTypes) func masksAreWhereTheModelExceedsTheRest(dtype: DType) {
    var random = SplitMix64(state: 101)
    let lambdas = [0.25, 0.5, 1, 0]
    for count in isOptimised ? [1, 7, 8, 9, 15, 16, 17, 1023, 1024, 1025, 2100] : [1, 7, 8, 9, 17, 1025] {
      let inputs = Inputs((0...4).map { _ in quarters(count, &random) }, dtype)
      let d = inputs.differences
      let tau = (0..<count).map { i in d.reduce(0) { $0 + $1[i] } }
      let expected = plain(inputs, tau: tau, lambdas)
      let found = run(TallMasks(sum(4), lambdas: lambdas, consensus: nil), inputs, count: count, dtype)
      for k in 0..<4 {
        #expect(found.masks[k] == bits(expected[k]), "\(count) of \(dtype), model \(k)")
        #expect(found.sums[k] == Double(expected[k].filter { $0 }.count))
      }
      let base = inputs.values[0]
      let merged = (0..<count).map { stored(base[$0] + tau[$0], dtype) }
      #expect(difference(found.merged, merged) == nil && found.sums[4] == 0 && found.poison == 0)
    }
  }

  @Test(arguments: kernelTypes) func bitsStandInTheOrderOfTheElements(dtype: DType) {
    // One element alone, at each place: BF16's lanes hold even and odd elements.
    for element in 0..<40 {
      var model = [Double](repeating: 0, count: 40)
      model[element] = 1
      let inputs = Inputs([[Double](repeating: 0, count: 40), model], dtype)
      let found = run(TallMasks(sum(1), lambdas: [0.4], consensus: nil), inputs, count: 40, dtype)
      #expect(found.masks == [bits(model.map { $0 != 0 })], "element \(element)")
    }
  }

  @Test func theComparisonIsStrict() {
    // |d| = lambda |tau - d|: not kept. Nothing changed: not kept. The last: just above.
    let inputs = Inputs([[0, 0, 0], [1, 0, 1.25], [2, 0, 2]], .f32)
    let found = run(TallMasks(sum(2), lambdas: [0.5, 0.5], consensus: nil), inputs, count: 3, .f32)
    #expect(found.masks == [[0b100], [0b101]])
  }

  @Test(arguments: kernelTypes) func aConsensusKeepsWhatEnoughMasksWant(dtype: DType) {
    var random = SplitMix64(state: 102)
    let lambdas = [0.5, 0.25, 1]
    let count = 1041
    let inputs = Inputs((0...3).map { _ in quarters(count, &random) }, dtype)
    let (base, d) = (inputs.values[0], inputs.differences)
    let tau = (0..<count).map { i in d.reduce(0) { $0 + $1[i] } }
    let masks = plain(inputs, tau: tau, lambdas)
    for consensus in 0...4 {
      for addsBase in [true, false] {
        let found = run(
          TallMasks(sum(3), lambdas: lambdas, consensus: consensus), inputs, count: count, lambda: 0.5, addsBase: addsBase,
          dtype)
        let kept = (0..<count).map { i in masks.filter { $0[i] }.count >= consensus ? tau[i] : 0 }
        let expected = (0..<count).map { stored((addsBase ? base[$0] : 0) + 0.5 * kept[$0], dtype) }
        #expect(difference(found.merged, expected) == nil, "\(consensus) of \(dtype)")
        #expect(found.sums == masks.map { Double($0.filter { $0 }.count) } + [Double(kept.filter { $0 != 0 }.count)])
        #expect(found.masks == masks.map(bits), "the masks themselves stay as they are")
      }
    }
  }

  @Test func theMaskLooksAtTheWholeChangeAndTauAtTheTrimmedOne() {
    // The trim takes 1 away from tau, but the mask asks for it: |1| > 0.4 |0 - 1|.
    var merge = sum(2)
    var vectors = noFilters(2)
    vectors.filters[0].cut = .below(threshold: 2, tiesBefore: 0)
    merge = DisjointMerge(vectors, merge.election, .sum, weights: merge.weights)
    let inputs = Inputs([[0, 0], [1, 4], [0, -1]], .f32)
    let found = run(TallMasks(merge, lambdas: [0.5, 0.5], consensus: nil), inputs, count: 2, .f64)
    #expect(found.merged == [0, 3] && found.masks == [[0b11], [0b00]])
  }

  @Test func eitherOutputMayBeLeftOut() {
    let inputs = Inputs([[0, 0], [1, 2], [3, 4]], .bf16)
    let masks = TallMasks(sum(2), lambdas: [0.25, 0.25], consensus: nil)
    let all = run(masks, inputs, count: 2, .bf16)
    let noBits = run(masks, inputs, count: 2, .bf16, writesBits: false)
    #expect(noBits.masks == [[0xA5], [0xA5]] && noBits.merged == all.merged && noBits.sums == all.sums)
    let noMerged = run(masks, inputs, count: 2, .bf16, writesMerged: false)
    #expect(noMerged.masks == all.masks && noMerged.merged == [stored(0, .bf16), 0].map { _ in noMerged.merged[0] })
    #expect(noMerged.sums == all.sums)
  }

  @Test(arguments: kernelTypes) func onlyThePoisonedElementIsNaN(dtype: DType) {
    for (input, element) in [(0, 2), (1, 1030), (2, 17)] {
      var values = [[Double]](repeating: [Double](repeating: 1, count: 1040), count: 3)
      (values[1], values[2]) = (values[1].map { $0 + 1 }, values[2].map { $0 + 2 })
      values[input][element] = .nan
      let inputs = Inputs(values, dtype)
      for consensus in [nil, 1] {
        let found = run(
          TallMasks(sum(2), lambdas: [0.25, 0.25], consensus: consensus), inputs, count: 1040, dtype)
        #expect(found.merged.indices.filter { !found.merged[$0].isFinite } == [element] && found.poison.isNaN)
      }
    }
  }
}
