import Testing

@testable import TensorKernels

@Suite struct CentreTests {
  private func combine(
    _ rows: CentredRows, _ inputs: Inputs, from: Int = 0, count: Int, beta: Double, _ coefficients: [Double],
    addition: [Double]? = nil, _ outputType: DType, misalignment: Int = 0
  ) -> GuardedBytes {
    let output = GuardedBytes(count: count * outputType.size, misalignment: misalignment)
    let workspace = inputs.workspace
    func run(_ addition: UnsafePointer<Double>?) {
      rows.combine(
        inputs.kernel, from: from, count: count, centreCoefficient: beta, coefficients: coefficients, addition: addition,
        output: output.start, outputType, workspace: workspace.start)
    }
    if let addition { addition.withUnsafeBufferPointer { run($0.baseAddress) } } else { run(nil) }
    #expect(output.isIntact && workspace.isIntact, "\(count) elements of \(inputs.dtype)")
    return output
  }

  /// m itself: beta 1, all others 0. -0.0 may come as 0.
  private func centre(_ rows: CentredRows, _ inputs: Inputs, count: Int) -> [Double] {
    let outputType: DType = inputs.dtype == .f32 ? .f64 : inputs.dtype
    return combine(rows, inputs, count: count, beta: 1, [Double](repeating: 0, count: inputs.rows.count), outputType)
      .values(as: outputType)
  }

  private func gram(_ rows: CentredRows, _ inputs: Inputs, from: Int = 0, count: Int, into start: [Double]? = nil) -> [Double] {
    let pairs = RowPairs(rows: inputs.rows.count + 1)
    let sums = GuardedBytes(count: pairs.count * 8)
    sums.store(start ?? [Double](repeating: 0, count: pairs.count))
    let workspace = inputs.workspace
    rows.accumulateGram(
      inputs.kernel, from: from, count: count, pairs: pairs, sums: sums.start.assumingMemoryBound(to: Double.self),
      workspace: workspace.start)
    #expect(sums.isIntact && workspace.isIntact)
    return sums.load(as: Double.self)
  }

  private func plain(_ count: Int, _ kind: MedianKind) -> CentredRows {
    CentredRows(scales: [Double](repeating: 1, count: count), centre: .median(kind, SortingNetwork(count: count)))
  }

  // MARK: - Medians

  @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33]) func mediansAreThoseOfSorting(inputCount: Int) {
    let seed: UInt64 = 51
    var random = SplitMix64(state: seed)
    for dtype in kernelTypes {
      for count in lengths where count <= (inputCount > 9 || !isOptimised ? 1025 : 4096) {
        // Few distinct values, so that there are ties; all of them, and the means of two, are exact in every type.
        let values = (0..<inputCount).map { _ in (0..<count).map { _ in Double(random.below(17) - 8) * 0.25 } }
        let inputs = Inputs(values, dtype)
        let columns = (0..<count).map { i in values.map { $0[i] }.sorted() }
        let lower = columns.map { $0[(inputCount - 1) / 2] }
        let standard = columns.map { ($0[(inputCount - 1) / 2] + $0[inputCount / 2]) / 2 }
        #expect(
          difference(centre(plain(inputCount, .lower), inputs, count: count), lower) == nil,
          "seed \(seed): \(count) of \(dtype)")
        let mean = centre(plain(inputCount, .standard), inputs, count: count)
        #expect(difference(mean, standard) == nil, "seed \(seed): \(count) of \(dtype)")
      }
    }
  }

  @Test func subnormalMediansAreExact() {
    let step = 0x1p-149
    let inputs = Inputs([[step, -step, 0], [-3 * step, 2 * step, -0.0], [2 * step, -step, step]], .f32)
    #expect(centre(plain(3, .lower), inputs, count: 3) == [step, -step, 0])
  }

  // MARK: - Centres

  @Test(arguments: kernelTypes) func anAffineCentreIsTheWeightedSumOfTheScaledInputs(dtype: DType) {
    // Quarters and small whole numbers: exact in every type.
    let values = [[1.0, -2, 3, 0], [4, 4, -8, 1], [2, 0, 6, -1]]
    let rows = CentredRows(scales: [2, 0.5, 1], centre: .affine(weights: [0.25, 0.5, -1]))
    let expected = (0..<4).map { values[0][$0] * 0.5 + values[1][$0] * 0.25 - values[2][$0] }
    #expect(centre(rows, Inputs(values, dtype), count: 4) == expected)
    #expect(centre(plain(3, .lower).about([0, 0, 1]), Inputs(values, dtype), count: 4) == values[2])
  }

  @Test(arguments: kernelTypes) func scalesAreAppliedBeforeTheMedian(dtype: DType) {
    let values = [[1.0, 2, -1], [2, -4, 8], [-3, 0.5, 1]]
    let rows = CentredRows(scales: [4, 0.5, 1], centre: .median(.lower, SortingNetwork(count: 3)))
    #expect(centre(rows, Inputs(values, dtype), count: 3) == [1, 0.5, 1])
  }

  @Test(arguments: kernelTypes) func inputsTakeTheSignsOfTheReference(dtype: DType) {
    let values = [[1.0, -2, 3, 0, 5], [-4, -5, -6, -7, 0], [-1, 2, 9, -9, -5]]
    let rows = CentredRows(scales: [1, 1, 1], signReference: 0, centre: .affine(weights: [0, 0, 0]))
    // Where the reference is 0, or the input, nothing changes.
    let expected: [[Double]] = [values[0], [4, -5, 6, -7, 0], [1, -2, 9, -9, 5]]
    for k in 0..<3 {
      var c = [0.0, 0, 0]
      c[k] = 1
      let result = combine(rows, Inputs(values, dtype), count: 5, beta: 0, c, dtype).values(as: dtype)
      #expect(result == expected[k], "input \(k)")
    }
  }

  // MARK: - Gram

  @Test(arguments: kernelTypes) func sumsAreTheProductsOfCentreAndResiduals(dtype: DType) {
    let seed: UInt64 = 52
    var random = SplitMix64(state: seed)
    for count in lengths {
      let k = 4
      let inputs = Inputs((0..<k).map { _ in random.values(count) }, dtype)
      let scales = [1.5, 0.75, 1, 2]
      let rows = CentredRows(scales: scales, centre: .median(.standard, SortingNetwork(count: k)))
      // Each row as the arithmetic type has it: scaled, centred and subtracted with one rounding each.
      func rounded(_ value: Double) -> Double { dtype.isWide ? value : Double(Float(value)) }
      let u = inputs.values.enumerated().map { k, row in row.map { rounded($0 * scales[k]) } }
      let m = (0..<count).map { i in
        let column = u.map { $0[i] }.sorted()
        return rounded(rounded(column[1] + column[2]) * 0.5)
      }
      let all = [m] + u.map { row in zip(row, m).map { rounded($0 - $1) } }
      let sums = gram(rows, inputs, count: count)
      let unit = dtype.isWide ? 0x1p-53 : 0x1p-24
      for (p, pair) in RowPairs(rows: k + 1).pairs.enumerated() {
        let (x, y) = (all[Int(pair.0)], all[Int(pair.1)])
        // Reduction, as in GramTests.
        let bound = (64 * unit + Double(count / 1024 + 5) * 0x1p-53) * dotOfMagnitudes(x, y)
        #expect((sums[p] - accurateDot(x, y)).magnitude <= bound, "seed \(seed): \(pair) of \(count) elements of \(dtype)")
      }
    }
  }

  @Test(arguments: kernelTypes) func callsOverWholeChunksEqualOneCallBitForBit(dtype: DType) {
    var random = SplitMix64(state: 53)
    let inputs = Inputs((0..<3).map { _ in random.values(3000) }, dtype)
    let rows = plain(3, .lower)
    let whole = gram(rows, inputs, count: 3000)
    let first = gram(rows, inputs, count: 2048)
    #expect(gram(rows, inputs, from: 2048, count: 952, into: first) == whole)
    let (c, beta) = ([0.3, 0.2, -0.7], 1.2)
    let bytes = combine(rows, inputs, count: 3000, beta: beta, c, dtype).bytes
    for (from, count) in [(0, 1), (17, 1500), (2999, 1), (1024, 1976)] {
      let part = combine(rows, inputs, from: from, count: count, beta: beta, c, dtype, misalignment: 3)
      let expected = Array(bytes[from * dtype.size..<(from + count) * dtype.size])
      #expect(difference(part.bytes, expected) == nil, "\(from), \(count)")
    }
  }

  @Test(arguments: kernelTypes) func aNaNMakesTheSumsOfItsRowNaN(dtype: DType) {
    for (centre, k) in [(CentredRows.Centre.median(.lower, SortingNetwork(count: 3)), 1), (.affine(weights: [1, 0, 0]), 2)] {
      for place in [0, 17, 1040] {
        var values = [[Double]](repeating: [Double](repeating: 0.5, count: 1041), count: 3)
        values[k][place] = .nan
        let sums = gram(CentredRows(scales: [1, 1, 1], centre: centre), Inputs(values, dtype), count: 1041)
        for (p, pair) in RowPairs(rows: 4).pairs.enumerated() where Int(pair.0) == k + 1 || Int(pair.1) == k + 1 {
          #expect(sums[p].isNaN, "pair \(pair), element \(place)")
        }
      }
    }
  }

  // MARK: - Combination

  @Test(arguments: [(DType.bf16, DType.bf16), (.f16, .f16), (.f32, .f32), (.f32, .f64), (.f64, .f64)])
  func everyElementIsTheFormulaRoundedOnce(input: DType, output: DType) {
    let seed: UInt64 = 54
    var random = SplitMix64(state: seed)
    let (k, beta, c) = (3, 0.75, [0.3, -0.4, 0.9])
    for count in lengths {
      let inputs = Inputs((0..<k).map { _ in random.values(count) }, input)
      let x = inputs.values
      let expected = GuardedBytes(count: count * output.size)
      expected.store(
        (0..<count).map { i in
          let column = x.map { $0[i] }
          let m = column.sorted()[1]
          if input.isWide {
            var sum = m * beta
            for k in 0..<k { sum.addProduct(c[k], column[k]) }
            return sum
          }
          var sum = Float(m) * Float(beta)
          for k in 0..<k { sum.addProduct(Float(c[k]), Float(column[k])) }
          return Double(sum)
        }, as: output)
      // Exact: the same operations in the same order.
      let result = combine(plain(k, .lower), inputs, count: count, beta: beta, c, output)
      #expect(difference(result.bytes, expected.bytes) == nil, "seed \(seed): \(count) elements")
    }
  }

  @Test(arguments: [(DType.f32, DType.f32), (.f32, .f64), (.f64, .f64)])
  func anAdditionIsAddedElementByElement(input: DType, output: DType) {
    for count in lengths {
      let values = (0..<2).map { k in (0..<count).map { Double(($0 * (k + 2)) % 13) } }
      let addition = (0..<count).map { Double($0 % 7) * 0.5 - 1 }
      let rows = CentredRows(scales: [1, 1], centre: .affine(weights: [1, 0]))
      let result = combine(rows, Inputs(values, input), count: count, beta: 2, [0, 1], addition: addition, output)
      let expected = (0..<count).map { i -> Double in 2 * values[0][i] + values[1][i] + addition[i] }
      #expect(difference(result.values(as: output), expected) == nil)
    }
  }

  // MARK: - Sorting network

  private func sorted<Scalar: ArithmeticScalar>(_ columns: [SIMD8<Scalar>]) -> [SIMD8<Scalar>] {
    // Beside it, the same in other orders: side by side they may not disturb one another.
    let width = SortingNetwork.width
    var wide = columns.indices.flatMap { i in (0..<width).map { columns[(i + $0) % columns.count] } }
    let network = SortingNetwork(count: columns.count)
    wide.withUnsafeMutableBufferPointer { if let start = $0.baseAddress { network.sort(start) } }
    for w in 1..<width { for i in columns.indices { #expect(wide[width * i + w] == wide[width * i]) } }
    return columns.indices.map { wide[width * $0] }
  }

  /// A network that sorts all sequences of 0 and 1 sorts everything (Knuth, "The art of computer programming", 5.3.4).
  @Test(arguments: 0...10) func networkSortsAllSequencesOfZeroAndOne(count: Int) {
    for first in stride(from: 0, to: 1 << count, by: 8) {
      // Eight sequences at once, one per lane.
      let columns = (0..<count).map { k in SIMD8<Float>((0..<8).map { Float((first + $0) >> k & 1) }) }
      let result = sorted(columns)
      for lane in 0..<8 {
        let ones = (0..<count).filter { (first + lane) >> $0 & 1 == 1 }.count
        #expect(result.map { $0[lane] } == (0..<count).map { $0 < count - ones ? 0 : 1 }, "sequence \(first + lane)")
      }
    }
  }

  @Test func networkOrdersInfinitiesAndZeros() {
    let values: [Double] = [0, .infinity, -1, -.infinity, 0x1p-1070, -0x1p-1070]
    let result = sorted(values.map { SIMD8(repeating: $0) })
    #expect(result == values.sorted().map { SIMD8(repeating: $0) })
  }

  @Test(arguments: [11, 16, 17, 31, 32, 33, 64, 100]) func largeNetworksSortRandomNumbers(count: Int) {
    let seed: UInt64 = 55
    var random = SplitMix64(state: seed)
    for _ in 0..<(isOptimised ? 50 : 3) {
      let columns = (0..<count).map { _ in SIMD8<Double>((0..<8).map { _ in random.signed() }) }
      let result = sorted(columns)
      for lane in 0..<8 { #expect(result.map { $0[lane] } == columns.map { $0[lane] }.sorted(), "seed \(seed)") }
    }
  }
}
