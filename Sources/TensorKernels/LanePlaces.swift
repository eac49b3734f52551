// Which elements of a chunk are inside a bracket: a list of their places, made of the marks of eight lanes at a time without a branch. A
// loop over the marks of each vector would guess wrong at most of those where a few are marked.

/// Places in a row of a chunk, in order.
struct LanePlaces {
  private let list: UnsafeMutablePointer<UInt16>
  private let orders: UnsafePointer<SIMD8<UInt16>>

  /// For each set of lanes, as bits, their numbers, in order.
  private static let orders: [SIMD8<UInt16>] = (0..<256).map { (set: Int) in
    var order = SIMD8<UInt16>.zero
    for (place, lane) in (0..<8).filter({ set >> $0 & 1 > 0 }).enumerated() { order[place] = UInt16(lane) }
    return order
  }

  /// Lend room for the places of a chunk.
  @inline(__always)
  static func withChunk<Result>(_ body: (LanePlaces) -> Result) -> Result {
    withUnsafeTemporaryAllocation(of: UInt16.self, capacity: KernelGeometry.chunk + 8) { list in
      orders.withUnsafeBufferPointer { body(LanePlaces(list: list.baseAddress!, orders: $0.baseAddress!)) }
    }
  }

  /// The place at a position of the list.
  @inline(__always)
  subscript(position: Int) -> Int { Int(list[position]) }

  /// List the elements of a row whose magnitudes are from `least` to `most`, and count those above.
  /// - Parameters:
  ///   - vectors: of the row, eight elements each.
  ///   - above: one more in the lane of each that is above.
  /// - Returns: how many are listed.
  // A function of its own: in a larger one the compiler would call what narrows the lanes.
  @inline(never)
  func fill<Scalar: ArithmeticScalar>(
    _ rows: Rows<Scalar>, _ k: Int, vectors: Int, from least: SIMD8<Scalar>, to most: SIMD8<Scalar>, narrow: Bool,
    above: inout SIMD8<Scalar.Count>
  ) -> Int {
    let place = UnsafeMutableRawPointer(list)
    var (count, over) = (0, SIMD8<Scalar.Count>.zero)
    for v in 0..<vectors {
      let rank = Scalar.magnitudes(rows.vector(k, v), narrow: narrow)
      let tooLarge = Scalar.isBelow(most, rank)
      over &-= tooLarge
      let inside = ~Scalar.bytes(tooLarge | Scalar.isBelow(rank, least)) & 0x0101_0101_0101_0101
      // The product has byte i as bit i of its top byte.
      let order = orders[Int(truncatingIfNeeded: (inside &* 0x0102_0408_1020_4080) &>> 56)]
      place.storeBytes(
        of: order &+ UInt16(truncatingIfNeeded: 8 &* v), toByteOffset: 2 &* count, as: SIMD8<UInt16>.self)
      count &+= inside.nonzeroBitCount
    }
    above &+= over
    return count
  }
}
