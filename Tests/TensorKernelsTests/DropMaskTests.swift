import Testing

@testable import TensorKernels

@Suite struct DropMaskTests {
  /// The filtered task vectors, by a disjoint merge of one model that adds nothing and divides by nothing.
  private func kept(_ inputs: Inputs, _ mask: DropMask?, start: Int, count: Int) -> [UInt8] {
    var vectors = TaskVectors(filters: [TaskVectorFilter()], narrow: true)
    vectors.filters[0].drop = .bernoulli(RandomStream(seed: 3, name: "t", model: 0), limit: 1 << 31, mask)
    let merge = DisjointMerge(
      vectors, SignElection(.none, zeroSign: 1, factors: [1]), .sum, weights: [1])
    let type = inputs.kernel.dtype
    let out = GuardedBytes(count: count * type.size)
    let space = GuardedBytes(count: KernelGeometry.workspaceBytes(rows: 2))
    var sums = [0.0, 0.0]
    _ = merge.run(
      TaskVectorBlock(inputs: inputs.kernel, from: 0, count: count, start: start, workspace: space.start), lambda: 1,
      addsBase: false, output: out.start, type, sums: &sums)
    #expect(out.isIntact && space.isIntact)
    return out.bytes
  }

  @Test(arguments: kernelTypes) func whatIsRememberedIsWhatWasDrawn(dtype: DType) {
    var random = SplitMix64(state: 21)
    // Two chunks and a tail, first in two blocks and then in one.
    let count = 2 * KernelGeometry.chunk + 77
    let inputs = Inputs([quarters(count, &random), quarters(count, &random)], dtype)
    let mask = DropMask(elements: count)
    let drawn = kept(inputs, nil, start: 0, count: count)
    #expect(kept(inputs, mask, start: 0, count: count) == drawn)
    #expect(kept(inputs, mask, start: 0, count: count) == drawn)
    mask.complete()
    #expect(kept(inputs, mask, start: 0, count: count) == drawn)
    let one = KernelGeometry.chunk
    #expect(kept(inputs, mask, start: 0, count: one) == Array(drawn[..<(one * dtype.size)]))
  }

  @Test func otherPlacesAreDrawnAgain() {
    var random = SplitMix64(state: 22)
    let count = KernelGeometry.chunk
    let inputs = Inputs([quarters(count, &random), quarters(count, &random)], .bf16)
    let mask = DropMask(elements: 2 * count)
    _ = kept(inputs, mask, start: 0, count: count)
    mask.complete()
    // Not at a chunk's beginning, and in another type's order.
    #expect(kept(inputs, mask, start: 40, count: 100) == kept(inputs, nil, start: 40, count: 100))
    var again = SplitMix64(state: 22)
    let wide = Inputs([quarters(count, &again), quarters(count, &again)], .f32)
    #expect(kept(wide, mask, start: 0, count: count) == kept(wide, nil, start: 0, count: count))
  }
}
