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

  private func sums<Scalar>(_ rows: Rows<Scalar>, _ pairs: [(Int32, Int32)], vectors: Int) -> [Double] {
    let bytes = GuardedBytes(count: pairs.count * 8)
    let sums = bytes.start.assumingMemoryBound(to: Double.self)
    for p in pairs.indices { sums[p] = 0 }
    pairs.withUnsafeBufferPointer { rows.addDotProducts($0.baseAddress!, pairs.count, vectors: vectors, sums) }
    #expect(bytes.isIntact)
    return bytes.load(as: Double.self)
  }

  @Test func aPairsSumDoesNotDependOnItsNeighbours() {
    let bytes = GuardedBytes(count: 9 * 1024 * 4)
    let rows = randomRows(bytes, 9, Float.self, seed: 21)
    let all = RowPairs(rows: 9).pairs
    let alone = all.map { sums(rows, [$0], vectors: 128)[0] }
    // Lists of every length modulo 4, which is how many pairs are summed together.
    for count in [1, 2, 3, 4, 5, 6, 7, 8, 43, 44, 45] {
      #expect(sums(rows, Array(all[..<count]), vectors: 128) == Array(alone[..<count]), "\(count) pairs")
      #expect(sums(rows, Array(all[1..<count]) + [all[0]], vectors: 128) == Array(alone[1..<count]) + [alone[0]])
    }
  }

  @Test func sumsAreAddedToWhatIsThere() {
    let bytes = GuardedBytes(count: 2 * 1024 * 8)
    let rows = randomRows(bytes, 2, Double.self, seed: 22)
    let once = sums(rows, [(0, 1)], vectors: 128)[0]
    var total = 2.5
    [(Int32(0), Int32(1))].withUnsafeBufferPointer { rows.addDotProducts($0.baseAddress!, 1, vectors: 128, &total) }
    #expect(total == 2.5 + once)
  }

  @Test(arguments: [2, 4, 64, 128]) func aSumIsThatOfItsVectors(vectors: Int) {
    let seed: UInt64 = 23
    let bytes = GuardedBytes(count: 2 * 1024 * 8)
    let rows = randomRows(bytes, 2, Double.self, seed: seed)
    let (x, y) = ((0..<8 * vectors).map { rows[0][$0] }, (0..<8 * vectors).map { rows[1][$0] })
    // Reduction: at most 64 fused additions a lane and 4 of lanes, each half a unit of at most sum |x y|.
    let bound = 68 * 0x1p-53 * dotOfMagnitudes(x, y)
    #expect((sums(rows, [(0, 1)], vectors: vectors)[0] - accurateDot(x, y)).magnitude <= bound, "seed \(seed)")
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
