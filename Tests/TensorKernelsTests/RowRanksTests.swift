import Testing

@testable import TensorKernels

@Suite struct RowRanksTests {
  private func mask(
    _ inputs: Inputs, start: Int, count: Int, length: Int, step: Int, p: Double, s: Double, narrow: Bool = true
  ) -> [UInt8] {
    let bytes = GuardedBytes(count: count)
    RowRanks(probability: p, slope: s, length: length, stream: RandomStream(seed: 5, name: "w", model: 3), narrow: narrow)
      .mask(
        inputs.kernel, model: 1, start: start, count: count, step: step, scratch: RowRanks.Scratch(length: length, step: step),
        into: bytes.start.assumingMemoryBound(to: UInt8.self))
    #expect(bytes.isIntact)
    return bytes.bytes
  }

  @Test(arguments: kernelTypes) func ranksDecideTheChance(dtype: DType) {
    var random = SplitMix64(state: 9)
    // Rows of 35 that touch each other, and rows of 7 that are 5 apart; equal magnitudes everywhere.
    let count = 210
    let inputs = Inputs([quarters(count, &random), quarters(count, &random)], dtype)
    let d = inputs.differences[0]
    for (length, step, narrow) in [(35, 1, true), (35, 1, false), (7, 5, true), (7, 5, false), (1, 1, true), (210, 1, true)] {
      let found = mask(inputs, start: 630, count: count, length: length, step: step, p: 0.5, s: 0.4, narrow: narrow)
      for slab in stride(from: 0, to: count, by: length * step) {
        for offset in 0..<step {
          let row = (0..<length).map { slab + offset + $0 * step }
          for (rank, e) in row.sorted(by: { (d[$0].magnitude, $0) < (d[$1].magnitude, $1) }).enumerated() {
            let chance = length == 1 ? 0.5 : 0.5 + 0.4 * (2 * Double(rank) / Double(length - 1) - 1)
            let word = ScalarPhilox.word(seed: 5, "w", model: 3, 630 + e)
            #expect((found[e] == 1) == (Double(word) < (chance * 0x1p32 + 0.5).rounded(.down)), "\(length) \(step) \(e)")
          }
        }
      }
    }
  }

  @Test func theEndsKeepAllOrNothing() {
    let inputs = Inputs([[0, 0, 0], [3, 1, 2]], .f32)
    #expect(mask(inputs, start: 0, count: 3, length: 3, step: 1, p: 1, s: 0) == [1, 1, 1])
    #expect(mask(inputs, start: 0, count: 3, length: 3, step: 1, p: 0, s: 0) == [0, 0, 0])
    // The smallest never, the largest always.
    let found = mask(inputs, start: 0, count: 3, length: 3, step: 1, p: 0.5, s: 0.5)
    #expect(found[0] == 1 && found[1] == 0)
  }
}
