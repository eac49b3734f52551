import Testing

@testable import TensorKernels

// Exact: a difference and a product, each rounded once. Masks are given, not drawn.
@Suite struct TaskVectorRowTests {
  private struct Found {
    var values: [Double] = []
    var kept = 0
    var poison = 0.0
    /// Sums of magnitudes, where the row is not multiplied.
    var before = 0.0
    var after = 0.0
  }

  private func run<Element: KernelElement>(
    _: Element.Type, _ inputs: Inputs, _ count: Int, _ kept: [Bool]?, least: Double, factor: Double
  ) -> Found {
    let workspace = inputs.workspace
    let block = inputs.block(count: count, workspace: workspace)
    let chunk = TaskVectorChunk<Element>(block, offset: 0, models: 2)
    var row = TaskVectorRow(chunk, 1, narrow: !inputs.dtype.isWide)
    // Bit 31 - b of word l of vector g stands for lane l of vector 32 g + b.
    var bits = [SIMD8<Int32>](repeating: .zero, count: DropMask.vectors)
    for i in 0..<count where kept?[i] == true {
      let place = i & ~15 | Element.position(of: i & 15)
      bits[place / 256][place % 8] |= Int32(truncatingIfNeeded: 1 << UInt32(31 - place / 8 % 32))
    }
    row.most = 2.5
    (row.least, row.factor) = (Element.Arithmetic(least), Element.Arithmetic(factor))
    let (result, sums) = bits.withUnsafeBufferPointer { bits in
      row.mask = bits.baseAddress
      return switch (kept != nil, least > 0) {
      case (true, true):
        (
          row.run(drops: Yes.self, cuts: Yes.self, clips: Yes.self, scales: Yes.self),
          row.magnitudes(drops: Yes.self, cuts: Yes.self)
        )
      case (true, false):
        (
          row.run(drops: Yes.self, cuts: No.self, clips: No.self, scales: Yes.self),
          row.magnitudes(drops: Yes.self, cuts: No.self)
        )
      case (false, true):
        (
          row.run(drops: No.self, cuts: Yes.self, clips: Yes.self, scales: Yes.self),
          row.magnitudes(drops: No.self, cuts: Yes.self)
        )
      case (false, false):
        (
          row.run(drops: No.self, cuts: No.self, clips: No.self, scales: No.self),
          row.magnitudes(drops: No.self, cuts: No.self)
        )
      }
    }
    #expect(workspace.isIntact)
    let values = (0..<16 * ((count + 15) / 16)).map { Double(chunk.rows[1][$0 & ~15 | Element.position(of: $0 & 15)]) }
    #expect(values[count...].allSatisfy { $0 == 0 }, "padding")
    #expect(sums.poison.isNaN == result.poison.isNaN)
    return Found(
      values: Array(values[..<count]), kept: result.kept, poison: result.poison, before: sums.all, after: sums.kept)
  }

  private func run(_ inputs: Inputs, _ count: Int, _ kept: [Bool]?, least: Double, factor: Double) -> Found {
    switch inputs.dtype {
    case .bf16: run(BF16Element.self, inputs, count, kept, least: least, factor: factor)
    case .f16: run(F16Element.self, inputs, count, kept, least: least, factor: factor)
    case .f32: run(F32Element.self, inputs, count, kept, least: least, factor: factor)
    default: run(F64Element.self, inputs, count, kept, least: least, factor: factor)
    }
  }

  @Test(arguments: kernelTypes) func aRowIsDroppedTrimmedAndMultiplied(dtype: DType) {
    var random = SplitMix64(state: 91)
    for count in [1, 15, 16, 17, 255, 256, 257, 511, 1023, 1024] {
      let inputs = Inputs((0..<3).map { _ in quarters(count, &random) }, dtype)
      let d = inputs.differences[1]
      let mask = (0..<count).map { _ in random.below(2) == 1 }
      for (kept, least) in [(mask, 1.0), (mask, 0), (nil, 0.5), (nil, 0)] as [([Bool]?, Double)] {
        let factor = kept == nil && least == 0 ? 1 : -1.5
        let left = d.indices.map { i in
          kept?[i] ?? true ? d[i].magnitude >= least && (least == 0 || d[i].magnitude <= 2.5) ? d[i] : 0 : 0
        }
        let found = run(inputs, count, kept, least: least, factor: factor)
        #expect(difference(found.values, left.map { inputs.rounded($0 * factor) }) == nil, "\(count) of \(dtype)")
        if least > 0 { #expect(found.kept == left.filter { $0 != 0 }.count, "\(count) of \(dtype)") }
        #expect(found.poison == 0)
        // Sums of quarters are exact.
        #expect(found.before == d.reduce(0) { $0 + $1.magnitude } && found.after == left.reduce(0) { $0 + $1.magnitude })
      }
    }
  }

  @Test(arguments: kernelTypes) func whatIsDroppedOrTrimmedPoisonsAsWell(dtype: DType) {
    for element in [0, 16, 40] {
      var values = [[Double]](repeating: [Double](repeating: 1, count: 41), count: 3)
      values[2][element] = -.infinity
      let inputs = Inputs(values, dtype)
      #expect(run(inputs, 41, [Bool](repeating: false, count: 41), least: 3, factor: 0).poison.isNaN)
      #expect(run(inputs, element, nil, least: 0, factor: 1).poison == 0)
    }
  }
}
