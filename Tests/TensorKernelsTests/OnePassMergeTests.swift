import Testing

@testable import TensorKernels

// Exact: in one pass or row by row, the bits and the counts are the same.
@Suite struct OnePassMergeTests {
  private static let count = 2 * KernelGeometry.chunk + 16

  /// - Parameter length: of a block; one that is no multiple of 16 goes row by row.
  private func run(_ merge: DisjointMerge, _ inputs: Inputs, lambda: Double, length: Int) -> (bits: [UInt8], sums: [Double]) {
    let size = inputs.dtype.size
    let output = GuardedBytes(count: Self.count * size)
    let workspace = inputs.workspace
    var sums = [Double](repeating: 0, count: merge.sums)
    for from in stride(from: 0, to: Self.count, by: length) {
      _ = merge.run(
        inputs.block(from: from, count: min(length, Self.count - from), workspace: workspace), lambda: lambda, addsBase: true,
        output: output.start + from * size, inputs.dtype, sums: &sums)
    }
    #expect(output.isIntact && workspace.isIntact)
    return (output.bytes, sums)
  }

  @Test(arguments: filterKinds)
  func onePassGivesWhatTheRowsGive(kind: String) {
    let seed: UInt64 = 17
    var random = SplitMix64(state: seed)
    for dtype in [DType.bf16, .f16, .f32] {
      for models in 1...5 {
        let inputs = Inputs((0...models).map { _ in quarters(Self.count, &random) }, dtype)
        for (vote, zeroSign, rule, factors) in [
          (SignElection.Rule.mass, 1.0, DisjointMerge.Rule.mean, [1.0, 1, 1, 1, 1]), (.mass, -1, .sum, [0.5, 2, -1, 0.25, 4]),
          (.mass, 0, .mean, [1, 2, 3, 4, 5]), (.mass, 1, .max, [1, 1, 1, 1, 1]), (.mass, 1, .mean, [2, 0, -2, 0.1, 1]),
          (.none, 1, .sum, [0.5, 2, -1, 0.25, 4]), (.none, 1, .mean, [1, 2, 3, 4, 5]), (.count, 1, .sum, [1, 1, 1, 1, 1]),
        ] {
          let weights = Array(factors.prefix(models))
          let merge = DisjointMerge(
            filters(kind, models), SignElection(vote, zeroSign: zeroSign, factors: weights), rule, weights: weights)
          let whole = run(merge, inputs, lambda: 0.7, length: Self.count)
          let rows = run(merge, inputs, lambda: 0.7, length: 1000)
          #expect(whole.sums == rows.sums, "seed \(seed): \(models) of \(dtype), \(rule), \(weights)")
          #expect(whole.bits == rows.bits, "seed \(seed): \(models) of \(dtype), \(rule), \(weights)")
        }
      }
    }
  }

  @Test func whatIsNotFiniteIsLeftToTheRows() {
    var random = SplitMix64(state: 18)
    var values = (0...3).map { _ in quarters(Self.count, &random) }
    (values[1][5], values[3][1030], values[0][2000]) = (.infinity, .nan, -.infinity)
    let inputs = Inputs(values, .bf16)
    // What is not finite is trimmed, and still makes its element NaN.
    let merge = DisjointMerge(
      filters("clip", 3), SignElection(.mass, zeroSign: 1, factors: [1, 1, 1]), .mean, weights: [1, 1, 1])
    let (whole, rows) = (run(merge, inputs, lambda: 1, length: Self.count), run(merge, inputs, lambda: 1, length: 1000))
    #expect(whole.bits == rows.bits && whole.sums == rows.sums)
    let found = whole.bits.withUnsafeBytes { raw in
      (0..<Self.count).filter {
        Float(bitPattern: UInt32(raw.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)) << 16).isNaN
      }
    }
    #expect(found == [5, 1030, 2000])
  }
}
