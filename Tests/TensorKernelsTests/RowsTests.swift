import Testing

@testable import TensorKernels

@Suite struct RowsTests {
  @Test(arguments: 0...9) func pairsAreTheUpperTriangleRowByRow(rows: Int) {
    let pairs = RowPairs(rows: rows)
    var expected: [[Int32]] = []
    for i in 0..<rows { for j in i..<rows { expected.append([Int32(i), Int32(j)]) } }
    #expect(pairs.pairs.map { [$0.0, $0.1] } == expected)
    #expect(pairs.count == rows * (rows + 1) / 2)
    #expect(pairs.rows == rows)
  }

  @Test(arguments: 0...9) func diagonalPairsAreTheSquares(rows: Int) {
    let pairs = RowPairs(diagonal: rows)
    #expect(pairs.pairs.map { [$0.0, $0.1] } == (0..<Int32(rows)).map { [$0, $0] })
    #expect(pairs.count == rows && pairs.rows == rows)
  }

  @Test(arguments: 0...9) func diagonalTellsWhereTheSquaresStand(rows: Int) {
    let pairs = RowPairs(rows: rows).pairs
    #expect(RowPairs.diagonal(rows: rows) == pairs.indices.filter { pairs[$0].0 == pairs[$0].1 })
  }

  /// Rows 0..<count of random numbers, 1024 each.
  private func randomRows<Scalar: ArithmeticScalar>(_ bytes: GuardedBytes, _ count: Int, _: Scalar.Type, seed: UInt64) -> Rows<
    Scalar
  > {
    var random = SplitMix64(state: seed)
    let rows = Rows<Scalar>(bytes.start)
    for row in 0..<count { for i in 0..<KernelGeometry.chunk { rows[row][i] = Scalar(random.signed()) } }
    return rows
  }

  private func sums<Scalar>(_ rows: Rows<Scalar>, _ pairs: RowPairs, vectors: Int, from start: Double = 0) -> [Double] {
    let bytes = GuardedBytes(count: max(8, pairs.count * 8))
    let sums = bytes.start.assumingMemoryBound(to: Double.self)
    for p in 0..<max(1, pairs.count) { sums[p] = start }
    rows.addProducts(pairs, vectors: vectors, sums)
    #expect(bytes.isIntact)
    return Array(bytes.load(as: Double.self).prefix(pairs.count))
  }

  /// The 16 lanes of a product one by one, as the page says.
  private func plain<Scalar: ArithmeticScalar>(
    _ x: UnsafeMutablePointer<Scalar>, _ y: UnsafeMutablePointer<Scalar>, vectors: Int
  )
    -> Double
  {
    let halves = [0, 1].map { first -> Double in
      var lanes = [Scalar](repeating: 0, count: 8)
      for v in stride(from: first, to: vectors, by: 2) {
        for i in 0..<8 { lanes[i].addProduct(x[8 * v + i], y[8 * v + i]) }
      }
      let four = (0..<4).map { Double(lanes[$0]) + Double(lanes[$0 + 4]) }
      return (four[0] + four[2]) + (four[1] + four[3])
    }
    return halves[0] + halves[1]
  }

  @Test(arguments: 0...9) func everyPairsSumIsThatOfItsRowsAlone(count: Int) {
    let bytes = GuardedBytes(count: 9 * 1024 * 4)
    let rows = randomRows(bytes, 9, Float.self, seed: 21)
    for vectors in [2, 6, 128] {
      for pairs in [RowPairs(rows: count), RowPairs(diagonal: count)] {
        let expected = pairs.pairs.map { plain(rows[Int($0.0)], rows[Int($0.1)], vectors: vectors) }
        #expect(sums(rows, pairs, vectors: vectors) == expected, "\(count) rows of \(vectors) vectors")
      }
    }
  }

  @Test func sumsAreAddedToWhatIsThere() {
    let bytes = GuardedBytes(count: 2 * 1024 * 8)
    let rows = randomRows(bytes, 2, Double.self, seed: 22)
    let once = sums(rows, RowPairs(rows: 2), vectors: 128)
    #expect(sums(rows, RowPairs(rows: 2), vectors: 128, from: 2.5) == once.map { 2.5 + $0 })
  }

  @Test(arguments: [2, 4, 64, 128]) func aSumIsThatOfItsVectors(vectors: Int) {
    let seed: UInt64 = 23
    let bytes = GuardedBytes(count: 2 * 1024 * 8)
    let rows = randomRows(bytes, 2, Double.self, seed: seed)
    let (x, y) = ((0..<8 * vectors).map { rows[0][$0] }, (0..<8 * vectors).map { rows[1][$0] })
    // Reduction: at most 64 fused additions a lane and 4 of lanes, each half a unit of at most sum |x y|.
    let bound = 68 * 0x1p-53 * dotOfMagnitudes(x, y)
    #expect((sums(rows, RowPairs(rows: 2), vectors: vectors)[1] - accurateDot(x, y)).magnitude <= bound, "seed \(seed)")
  }

  @Test(arguments: [0, 1, 15, 16, 17, 100, 1023, 1024]) func tilesCoverAChunkAndPadItWithZeros(count: Int) {
    let values = (0..<1030).map { Double($0 % 200 + 1) }
    let inputs = Inputs([values, values.map { -$0 }], .f16)
    var seen: [Double] = []
    var tiles: [Int] = []
    Rows<Float>.tiles(F16Element.self, inputs.kernel, from: 3, count: count) { tile, table, offset in
      tiles.append(tile)
      let (first, second) = (F16Element.load(table[0], offset), F16Element.load(table[1], offset))
      #expect(first.low == -second.low && first.high == -second.high)
      seen += (0..<8).map { Double(first.low[$0]) } + (0..<8).map { Double(first.high[$0]) }
    }
    let padding = [Double](repeating: 0, count: (16 - count % 16) % 16)
    #expect(seen == Array(values[3..<3 + count]) + padding)
    #expect(tiles == Array(0..<(count + 15) / 16))
  }

  @Test func rowsLieSideBySide() {
    let bytes = GuardedBytes(count: 3 * 1024 * 4, fill: 0xFF)
    let rows = Rows<Float>(bytes.start)
    rows.set(1, 127, SIMD8(repeating: 7))
    #expect(rows.vector(1, 127) == SIMD8(repeating: 7))
    #expect(rows[1][1023] == 7 && rows[1][1015].isNaN && rows[2][0].isNaN)
  }
}
