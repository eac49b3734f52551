import Testing

@testable import TensorKernels

@Suite struct CombineTests {
  private func combine(
    _ inputs: Inputs, from: Int = 0, count: Int, reference: Int, total: Double, _ coefficients: [Double], _ outputType: DType,
    misalignment: Int = 0
  ) -> GuardedBytes {
    let output = GuardedBytes(count: count * outputType.size, misalignment: misalignment)
    Combine.run(
      inputs.kernel, from: from, count: count, reference: reference, total: total, coefficients: coefficients,
      output: output.start, outputType)
    #expect(output.isIntact, "\(count) elements of \(outputType)")
    return output
  }

  /// The formula of the page, step by step in the arithmetic type: K - 1 fused additions in the order of the inputs.
  private func emulated(_ x: [[Double]], _ i: Int, _ reference: Int, _ total: Double, _ c: [Double], _ dtype: DType) -> Double {
    if dtype.isWide {
      var sum = x[reference][i] * total
      for k in x.indices where k != reference { sum.addProduct(-c[k], x[reference][i] - x[k][i]) }
      return sum
    }
    let center = Float(x[reference][i])
    var sum = center * Float(total)
    for k in x.indices where k != reference { sum.addProduct(-Float(c[k]), center - Float(x[k][i])) }
    return Double(sum)
  }

  private static let forms: [(DType, DType)] = [(.bf16, .bf16), (.f16, .f16), (.f32, .f32), (.f32, .f64), (.f64, .f64)]

  @Test(arguments: forms) func everyElementIsTheFormulaRoundedOnce(input: DType, output: DType) {
    let seed: UInt64 = 31
    var random = SplitMix64(state: seed)
    for count in lengths {
      for inputCount in count > 4096 ? [3] : [1, 2, 3, 5] {
        let inputs = Inputs((0..<inputCount).map { _ in random.values(count) }, input)
        let c = random.values(inputCount)
        let (total, reference) = (c.reduce(0, +), random.below(inputCount))
        let x = inputs.values
        let expected = GuardedBytes(count: count * output.size)
        expected.store((0..<count).map { emulated(x, $0, reference, total, c, input) }, as: output)
        // Exact: the same operations in the same order.
        let result = combine(inputs, count: count, reference: reference, total: total, c, output)
        #expect(
          difference(result.bytes, expected.bytes) == nil,
          "seed \(seed): \(count) elements of \(inputCount) inputs about \(reference)")
      }
    }
  }

  @Test(arguments: forms) func everyReferenceGivesTheLinearCombination(input: DType, output: DType) {
    let seed: UInt64 = 32
    var random = SplitMix64(state: seed)
    let (count, k) = (500, 5)
    let inputs = Inputs((0..<k).map { _ in random.values(count) }, input)
    let x = inputs.values
    let c = random.values(k)
    let total = c.reduce(0, +)
    // Reduction: K + 3 roundings in arithmetic type (total, coefficients, difference, sums) of at most sum |c| (|x_r| + |x|), and
    // one into the output.
    let unit = input.isWide ? 0x1p-53 : 0x1p-24
    let store = output == .bf16 ? 0x1p-8 : output == .f16 ? 0x1p-11 : output == .f32 ? 0x1p-24 : 0
    for reference in 0..<k {
      let result = combine(inputs, count: count, reference: reference, total: total, c, output).values(as: output)
      for i in 0..<count {
        let column = (0..<k).map { x[$0][i] }
        let exact = accurateDot(c, column)
        let size = (0..<k).reduce(0) { $0 + (c[$1] * x[reference][i]).magnitude + (c[$1] * column[$1]).magnitude }
        let bound = Double(k + 3) * unit * 2 * size + store * (exact.magnitude + 0x1p-14)
        #expect((result[i] - exact).magnitude <= bound, "seed \(seed): about \(reference), element \(i)")
      }
    }
  }

  @Test(arguments: forms) func equalInputsComeOutBitForBit(input: DType, output: DType) {
    // Coefficients whose sum is 1 only up to rounding: the total is given apart.
    let c = [0.1, 0.2, 0.3, 0.4 - 0x1p-54]
    var values = [0.0, -0.0, 1, -1, 0.1, 65504, -0x1p-24, 0x1p-130, .infinity, .nan]
    var random = SplitMix64(state: 33)
    values += random.values(30)
    if input == .f64 { values += [0x1p-1074, 1.7e308] }
    let inputs = Inputs([[Double]](repeating: values, count: 4), input)
    for reference in 0..<4 {
      let result = combine(inputs, count: values.count, reference: reference, total: 1, c, output)
      let stored = inputs.values[0]
      for (i, value) in result.values(as: output).enumerated() {
        if stored[i].isFinite {
          #expect(value.bitPattern == stored[i].bitPattern, "\(stored[i]) about \(reference)")
        } else {
          #expect(!value.isFinite)
        }
      }
    }
  }

  @Test(arguments: forms) func theReferenceComesOutWhereAllOtherCoefficientsAreZero(input: DType, output: DType) {
    var random = SplitMix64(state: 34)
    let rows = (0..<3).map { _ in random.values(100) + [0.0, -0.0, 1e-6] }
    let inputs = Inputs(rows, input)
    for reference in 0..<3 {
      // Its own coefficient is not used.
      var c = [0.0, 0.0, 0.0]
      c[reference] = .nan
      let result = combine(inputs, count: 103, reference: reference, total: 1, c, output).values(as: output)
      #expect(difference(result.map(\.bitPattern), inputs.values[reference].map(\.bitPattern)) == nil)
    }
  }

  @Test(arguments: forms) func aSharedNegativeZeroIsKeptUnlessACoefficientIsNegative(input: DType, output: DType) {
    let inputs = Inputs([[Double]](repeating: [-0.0], count: 3), input)
    for c in [[0.5, 0.25, 0.25], [1, 0, 0], [0, 0, 1]] {
      let result = combine(inputs, count: 1, reference: 0, total: 1, c, output).values(as: output)
      #expect(result[0] == 0 && result[0].sign == .minus, "\(c)")
    }
  }

  @Test(arguments: forms) func aNaNOrInfinityStaysInItsElement(input: DType, output: DType) {
    for (bad, count) in [(Double.nan, 33), (.infinity, 33), (-.infinity, 47)] {
      for spoilt in 0..<3 {
        for place in [0, 16, count - 1] {
          var rows = [[Double]](repeating: [Double](repeating: 0.5, count: count), count: 3)
          rows[spoilt][place] = bad
          let result = combine(Inputs(rows, input), count: count, reference: 0, total: 1, [0.5, 0.25, 0.25], output)
            .values(as: output)
          #expect(result.indices.filter { !result[$0].isFinite } == [place])
          if bad.isNaN { #expect(result[place].isNaN) }
        }
      }
    }
  }

  @Test(arguments: forms) func neitherOffsetNorAlignmentNorCutChangesABit(input: DType, output: DType) {
    let seed: UInt64 = 35
    var random = SplitMix64(state: seed)
    let rows = (0..<3).map { _ in random.values(1100) }
    let c = [0.3, -0.2, 0.9]
    let whole = combine(Inputs(rows, input), count: 1100, reference: 1, total: 1, c, output).bytes
    for misalignment in [1, 2, 3, 7] {
      let inputs = Inputs(rows, input, misalignment: misalignment)
      for (from, count) in [(0, 1100), (1, 17), (16, 16), (5, 1024), (1099, 1), (1100, 0)] {
        let part = combine(inputs, from: from, count: count, reference: 1, total: 1, c, output, misalignment: misalignment + 1)
        let expected = Array(whole[from * output.size..<(from + count) * output.size])
        #expect(difference(part.bytes, expected) == nil, "\(from), \(count)")
      }
    }
  }

  @Test func aBinary64OutputKeepsWhatBinary32Loses() {
    let inputs = Inputs([[1.0], [0x1p-20]], .f32)
    let result = combine(inputs, count: 1, reference: 0, total: 1 + 0x1p-10, [1, 0x1p-10], .f64).values(as: .f64)
    // (1 + 2^-10) - 2^-10 (1 - 2^-20) = 1 + 2^-30: needs 31 bits.
    #expect(result == [1 + 0x1p-30])
  }
}
