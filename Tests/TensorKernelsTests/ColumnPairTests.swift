import Testing

@testable import TensorKernels

@Suite struct ColumnPairTests {
  private static let columns = 7

  @Test(arguments: [DType.f32, .f64], [true, false]) func productsAreAddedColumnByColumn(dtype: DType, hasBase: Bool) {
    var random = SplitMix64(state: 41)
    let inputs = Inputs((0..<(hasBase ? 3 : 2)).map { _ in random.values(60) }, dtype)
    let pair = ColumnPair(hasBase: hasBase, columns: Self.columns)
    let x = inputs.values
    let (a, b) = (x[hasBase ? 1 : 0], x[hasBase ? 2 : 1])
    let base = hasBase ? x[0] : [Double](repeating: 0, count: 60)
    for start in [0, 5, 700] {
      var sums = [Double](repeating: 0.5, count: 3 * Self.columns)
      pair.addProducts(inputs.kernel, count: 60, start: start, to: &sums)
      var expected = [Double](repeating: 0.5, count: 3 * Self.columns)
      for i in 0..<60 {
        let j = (start + i) % Self.columns
        let (p, q) = (a[i] - base[i], b[i] - base[i])
        expected[3 * j] += p * p
        expected[3 * j + 1] += p * q
        expected[3 * j + 2] += q * q
      }
      #expect(sums == expected, "start \(start)")
    }
  }

  @Test(arguments: [(DType.f32, DType.f32), (.f32, .f64), (.f64, .f64)], [true, false])
  func combinationsHaveTheirColumnsCoefficients(types: (DType, DType), hasBase: Bool) {
    var random = SplitMix64(state: 42)
    let inputs = Inputs((0..<(hasBase ? 3 : 2)).map { _ in random.values(60) }, types.0)
    let (c, d) = (random.values(Self.columns), random.values(Self.columns))
    let output = GuardedBytes(count: 60 * types.1.size)
    ColumnPair(hasBase: hasBase, columns: Self.columns)
      .combine(inputs.kernel, count: 60, start: 3, c, d, output: output.start, types.1)
    let x = inputs.values
    for (i, value) in output.values(as: types.1).enumerated() {
      let j = (3 + i) % Self.columns
      let base = hasBase ? x[0][i] : 0
      let expected = base + c[j] * (x[hasBase ? 1 : 0][i] - base) + d[j] * (x[hasBase ? 2 : 1][i] - base)
      #expect((value - expected).magnitude <= (types.1 == .f32 ? 0x1p-22 : 0x1p-50), "element \(i)")
    }
    #expect(output.isIntact)
  }

  @Test func equalInputsComeOutBitForBit() {
    for hasBase in [true, false] {
      let row = [1.5, -0.0, 0, -2.25, 0.1, 7, -0.3]
      let inputs = Inputs([[Double]](repeating: row, count: hasBase ? 3 : 2), .f64)
      let output = GuardedBytes(count: 56)
      let c = [0.25, 0.5, 0.75, 1, 0, 0.125, 2]
      ColumnPair(hasBase: hasBase, columns: 7)
        .combine(inputs.kernel, count: 7, start: 0, c, c.map { 1 - $0 }, output: output.start, .f64)
      #expect(sameBits(output.values(as: .f64), row) == nil)
    }
  }
}
