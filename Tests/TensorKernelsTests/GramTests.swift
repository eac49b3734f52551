import Testing

@testable import TensorKernels

@Suite struct GramTests {
  private func gram(
    _ inputs: Inputs, from: Int = 0, count: Int, reference: Int?, crossTerms: Bool = false, pairs: RowPairs? = nil,
    into start: [Double]? = nil
  ) -> [Double] {
    let rowCount = reference == nil || crossTerms ? inputs.rows.count : inputs.rows.count - 1
    let pairs = pairs ?? RowPairs(rows: rowCount)
    let sums = GuardedBytes(count: pairs.count * 8)
    sums.store(start ?? [Double](repeating: 0, count: pairs.count))
    let workspace = inputs.workspace
    Gram.accumulate(
      inputs.kernel, from: from, count: count, reference: reference, crossTerms: crossTerms, pairs: pairs,
      sums: sums.start.assumingMemoryBound(to: Double.self), workspace: workspace.start)
    #expect(sums.isIntact && workspace.isIntact, "\(count) elements of \(inputs.dtype)")
    return sums.load(as: Double.self)
  }

  /// The rows that the page names, differences rounded as the arithmetic type does.
  private func rows(_ x: [[Double]], _ reference: Int?, _ crossTerms: Bool, _ dtype: DType) -> [[Double]] {
    guard let reference else { return x }
    let differences = x.indices.filter { $0 != reference }.map { k in
      zip(x[k], x[reference]).map { dtype.isWide ? $0 - $1 : Double(Float($0) - Float($1)) }
    }
    return crossTerms ? [x[reference]] + differences : differences
  }

  /// Reduction: 64 fused additions a lane in the arithmetic type, then one per chunk and four of lanes in binary64.
  private func bound(_ x: [Double], _ y: [Double], _ dtype: DType) -> Double {
    let chunks = Double(x.count / 1024 + 5)
    return (64 * (dtype.isWide ? 0x1p-53 : 0x1p-24) + chunks * 0x1p-53) * dotOfMagnitudes(x, y)
  }

  private static let forms: [(inputCount: Int, reference: Int?, crossTerms: Bool)] = [
    (1, nil, false), (3, nil, false), (4, 0, false), (4, 2, false), (4, 1, true),
  ]

  @Test(arguments: kernelTypes) func sumsAreTheProductsOfTheRows(dtype: DType) {
    let seed: UInt64 = 41
    var random = SplitMix64(state: seed)
    for count in lengths {
      for (inputCount, reference, crossTerms) in Self.forms {
        if count > 4096, inputCount < 4 { continue }
        let inputs = Inputs((0..<inputCount).map { _ in random.values(count) }, dtype)
        let rows = rows(inputs.values, reference, crossTerms, dtype)
        let sums = gram(inputs, count: count, reference: reference, crossTerms: crossTerms)
        var p = 0
        for i in rows.indices {
          for j in i..<rows.count {
            let error = (sums[p] - accurateDot(rows[i], rows[j])).magnitude
            #expect(error <= bound(rows[i], rows[j], dtype), "seed \(seed): (\(i), \(j)) of \(count) elements")
            p += 1
          }
        }
        #expect(p == sums.count)
      }
    }
  }

  @Test(arguments: [2, 5, 9]) func manyInputsKeepTheirOrder(inputCount: Int) {
    // Whole numbers: every product and sum is exact, so any confusion of rows shows.
    let values = (0..<inputCount).map { k -> [Double] in
      let step = k + 3
      return (0..<40).map { i -> Double in Double((i * step + k) % 11) }
    }
    let inputs = Inputs(values, .bf16)
    for reference in 0..<inputCount {
      let rows = rows(values, reference, true, .bf16)
      let expected = RowPairs(rows: inputCount).pairs.map { accurateDot(rows[Int($0.0)], rows[Int($0.1)]) }
      #expect(gram(inputs, count: 40, reference: reference, crossTerms: true) == expected)
    }
  }

  @Test(arguments: kernelTypes) func permutedInputsPermuteTheSumsBitForBit(dtype: DType) {
    let seed: UInt64 = 42
    var random = SplitMix64(state: seed)
    let (count, k) = (1500, 5)
    let values = (0..<k).map { _ in random.values(count) }
    let order = [3, 0, 4, 1, 2]
    func full(_ triangle: [Double]) -> [[Double]] {
      var matrix = [[Double]](repeating: [Double](repeating: 0, count: k - 1), count: k - 1)
      for (p, pair) in RowPairs(rows: k - 1).pairs.enumerated() {
        (matrix[Int(pair.0)][Int(pair.1)], matrix[Int(pair.1)][Int(pair.0)]) = (triangle[p], triangle[p])
      }
      return matrix
    }
    let plain = full(gram(Inputs(values, dtype), count: count, reference: 0))
    let permuted = full(gram(Inputs(order.map { values[$0] }, dtype), count: count, reference: order.firstIndex(of: 0)))
    // Rows of the permuted matrix, as inputs of the plain one: the reference has none.
    let names = order.filter { $0 != 0 }.map { $0 - 1 }
    for i in names.indices {
      for j in names.indices { #expect(permuted[i][j] == plain[names[i]][names[j]], "seed \(seed): \(i), \(j)") }
    }
  }

  @Test(arguments: kernelTypes) func callsOverWholeChunksEqualOneCallBitForBit(dtype: DType) {
    var random = SplitMix64(state: 43)
    let count = 4096
    let inputs = Inputs((0..<3).map { _ in random.values(count) }, dtype)
    let whole = gram(inputs, count: count, reference: 0)
    for cut in [1024, 2048, 3072] {
      let first = gram(inputs, count: cut, reference: 0)
      #expect(gram(inputs, from: cut, count: count - cut, reference: 0, into: first) == whole, "cut at \(cut)")
    }
    #expect(gram(inputs, from: 1024, count: 0, reference: 0, into: whole) == whole)
  }

  @Test(arguments: kernelTypes) func neitherOffsetNorAlignmentChangesABit(dtype: DType) {
    var random = SplitMix64(state: 44)
    let values = (0..<3).map { _ in random.values(1100) }
    let plain = gram(Inputs(values, dtype), count: 1100, reference: 1)
    for misalignment in [1, 2, 3, 7] {
      #expect(gram(Inputs(values, dtype, misalignment: misalignment), count: 1100, reference: 1) == plain)
      let shifted = Inputs(values.map { [9, 9, 9] + $0 + [9] }, dtype, misalignment: misalignment)
      #expect(gram(shifted, from: 3, count: 1100, reference: 1) == plain)
    }
  }

  @Test(arguments: kernelTypes) func crossTermsGiveTheProductsOfTheInputs(dtype: DType) {
    let seed: UInt64 = 45
    var random = SplitMix64(state: seed)
    let inputs = Inputs((0..<3).map { _ in random.values(1025) }, dtype)
    let x = inputs.values
    let sums = gram(inputs, count: 1025, reference: 0, crossTerms: true)
    // <x_1, x_2> = <r, r> + <r, d_1> + <r, d_2> + <d_1, d_2>; rows r, d_1, d_2. Differences may be rounded once.
    let product = sums[0] + sums[1] + sums[2] + sums[4]
    let unit = dtype.isWide ? 0x1p-53 : 0x1p-24
    #expect((product - accurateDot(x[1], x[2])).magnitude <= 5 * 66 * unit * 1025, "seed \(seed)")
  }

  @Test(arguments: kernelTypes) func diagonalPairsAreTheDiagonalOfAllPairs(dtype: DType) {
    var random = SplitMix64(state: 46)
    for k in 1...6 {
      let inputs = Inputs((0..<k).map { _ in random.values(1025) }, dtype)
      let all = gram(inputs, count: 1025, reference: nil)
      let squares = gram(inputs, count: 1025, reference: nil, pairs: RowPairs(diagonal: k))
      #expect(squares == RowPairs.diagonal(rows: k).map { all[$0] })
    }
  }

  @Test func binary32LanesTakeAtMostSixtyFourAdditions() {
    // The difference is d = 1 + 2^-9, d² = 1 + 2^-8 + 2^-18. Up to 64 of them add up exactly in 24 bits, more do not: the sum is
    // exact only if it is carried over to binary64 in time.
    let count = 4096
    let inputs = Inputs([[Double](repeating: 1, count: count), [Double](repeating: -0x1p-9, count: count)], .f16)
    let square = (1 + 0x1p-9) * (1 + 0x1p-9)
    #expect(gram(inputs, count: count, reference: 0) == [Double(count) * square])
    var lane: Float = 0
    for _ in 0..<count / 16 { lane.addProduct(1 + 0x1p-9, 1 + 0x1p-9) }
    #expect(Double(lane) != Double(count / 16) * square, "one lane for all would not be exact")
  }

  @Test(arguments: kernelTypes) func aNaNSpreadsToTheSumsOfItsRowOnly(dtype: DType) {
    for place in [0, 20, 1032] {
      var values = [[Double]](repeating: [Double](repeating: 0.5, count: 1033), count: 4)
      values[2][place] = .nan
      let sums = gram(Inputs(values, dtype), count: 1033, reference: 0)
      for (p, pair) in RowPairs(rows: 3).pairs.enumerated() {
        #expect(sums[p].isNaN == (pair.0 == 1 || pair.1 == 1), "input 2 is row 1")
      }
    }
  }

  @Test func subnormalDifferencesKeepTheirDigitsInBinary64() {
    // In F32 and F64 a difference of subnormal floats is an ordinary binary64, and so is its square.
    let step = Double(Float.leastNonzeroMagnitude)
    let inputs = Inputs([[3 * step, 0, -step], [step, step, step]], .f32)
    #expect(gram(inputs, count: 3, reference: 1) == [9 * step * step])
  }
}
