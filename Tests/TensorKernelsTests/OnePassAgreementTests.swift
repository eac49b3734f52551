import Testing

@testable import TensorKernels

// Exact: in one pass or row by row, the bits are the same. Sums are of products of quarters, which are exact in any order.
@Suite struct OnePassAgreementTests {
  private static let count = 2 * KernelGeometry.chunk + 16
  private static let votes: [(SignElection.Rule, zeroSign: Double, factors: [Double])] = [
    (.count, 0, [1, 1, 1, 1, 1]), (.count, 1, [0.5, 2, -1, 0.25, 4]), (.count, -1, [2, 0, -2, 0.5, 1]),
    (.mass, 0, [1, 2, 3, 4, 5]), (.mass, 1, [0.5, 2, -1, 0.25, 4]), (.mass, -1, [1, 1, 1, 1, 1]), (.none, 0, [1, 2, 1, 1, 1]),
  ]

  /// - Parameter length: of a block; one that is no multiple of 16 goes row by row.
  private func run(
    _ vectors: AgreeingVectors, _ inputs: Inputs, _ centre: AgreeingVectors.Centre, length: Int
  ) -> (bits: [UInt8], sums: [Double], poison: Double) {
    let size = inputs.dtype.size
    let output = GuardedBytes(count: Self.count * size)
    let workspace = inputs.workspace
    let pairs = RowPairs(rows: vectors.vectors.models)
    var sums = [Double](repeating: 0, count: pairs.count)
    var poison = 0.0
    for from in stride(from: 0, to: Self.count, by: length) {
      let block = inputs.block(from: from, count: min(length, Self.count - from), workspace: workspace)
      poison += vectors.addProducts(block, pairs, to: &sums)
      poison += vectors.run(block, centre, lambda: 0.7, addsBase: true, output: output.start + from * size, inputs.dtype)
    }
    #expect(output.isIntact && workspace.isIntact)
    return (output.bytes, sums, poison)
  }

  @Test(arguments: filterKinds) func onePassGivesWhatTheRowsGive(kind: String) {
    let seed: UInt64 = 19
    var random = SplitMix64(state: seed)
    for dtype in [DType.bf16, .f16, .f32] {
      for models in 1...5 {
        let inputs = Inputs((0...models).map { _ in quarters(Self.count, &random) }, dtype)
        let coefficients: [Double] = (0..<models).map { 0.3 + 0.17 * Double($0) }
        for (rule, zeroSign, factors) in Self.votes {
          let vectors = AgreeingVectors(
            filters(kind, models), SignElection(rule, zeroSign: zeroSign, factors: Array(factors.prefix(models))))
          for centre in [AgreeingVectors.Centre.combination(coefficients), .median] {
            let whole = run(vectors, inputs, centre, length: Self.count)
            let rows = run(vectors, inputs, centre, length: 1000)
            #expect(whole.sums == rows.sums, "seed \(seed): \(models) of \(dtype), \(rule), \(zeroSign)")
            #expect(whole.bits == rows.bits, "seed \(seed): \(models) of \(dtype), \(rule), \(zeroSign)")
          }
        }
      }
    }
  }

  @Test func whatIsNotFiniteIsLeftToTheRows() {
    var random = SplitMix64(state: 20)
    var values = (0...3).map { _ in quarters(Self.count, &random) }
    (values[1][5], values[3][1030], values[0][2000]) = (.infinity, .nan, -.infinity)
    // Two that would cancel in a sum.
    (values[1][77], values[2][77]) = (.infinity, -.infinity)
    let inputs = Inputs(values, .bf16)
    let vectors = AgreeingVectors(filters("drop", 3), SignElection(.count, zeroSign: 0, factors: [1, 1, 1]))
    let whole = run(vectors, inputs, .combination([1, 1, 1]), length: Self.count)
    let rows = run(vectors, inputs, .combination([1, 1, 1]), length: 1000)
    #expect(whole.bits == rows.bits)
    #expect(whole.poison.isNaN && rows.poison.isNaN)
    let found = whole.bits.withUnsafeBytes { raw in
      (0..<Self.count).filter {
        Float(bitPattern: UInt32(raw.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)) << 16).isNaN
      }
    }
    #expect(found == [5, 77, 1030, 2000])
  }
}
