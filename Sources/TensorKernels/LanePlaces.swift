// Which elements of a chunk, or which random words, are inside a bracket: a list of their places, made of the marks of eight lanes at a time without a branch. A
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

  /// Room for the places of a chunk, and for the lanes past the last of them.
  static let room = KernelGeometry.chunk + 8

  /// Lend room for the places of a chunk. It comes from the heap: it is more than the stack lends.
  @inline(__always)
  static func withChunk<Result>(_ body: (LanePlaces) -> Result) -> Result {
    withUnsafeTemporaryAllocation(of: UInt16.self, capacity: room) { with($0.baseAddress!, body) }
  }

  /// - Parameter list: `room` places.
  @inline(__always)
  static func with<Result>(_ list: UnsafeMutablePointer<UInt16>, _ body: (LanePlaces) -> Result) -> Result {
    orders.withUnsafeBufferPointer { body(LanePlaces(list: list, orders: $0.baseAddress!)) }
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
      let order = orders[Int(PackedMask.packed(inside))]
      place.storeBytes(
        of: order &+ UInt16(truncatingIfNeeded: 8 &* v), toByteOffset: 2 &* count, as: SIMD8<UInt16>.self)
      count &+= inside.nonzeroBitCount
    }
    above &+= over
    return count
  }

  /// List the words from `low` up to `high`, which is not listed, and mark those below `low` with 1, the others with 0.
  /// - Parameter count: at most a chunk.
  /// - Returns: how many are listed.
  @inline(never)
  func fill(
    _ words: UnsafePointer<UInt32>, count: Int, from low: UInt64, to high: UInt64, marks: UnsafeMutablePointer<UInt8>
  ) -> Int {
    let (source, place, target) = (UnsafeRawPointer(words), UnsafeMutableRawPointer(list), UnsafeMutableRawPointer(marks))
    // Below 2^32 every word is, which has no 32 bits.
    let (all, most) = (SIMD8<Int32>(repeating: low >> 32 > 0 ? -1 : 0), SIMD8<Int32>(repeating: high >> 32 > 0 ? -1 : 0))
    let (least, end) = (UInt32(truncatingIfNeeded: low), UInt32(truncatingIfNeeded: high))
    var found = 0
    for i in stride(from: 0, to: count & ~7, by: 8) {
      let eight = source.loadUnaligned(fromByteOffset: 4 &* i, as: SIMD8<UInt32>.self)
      let below = masks(of: eight, below: least) | all
      let inside = ~below & (masks(of: eight, below: end) | most) & 1
      target.storeBytes(of: Float.bytes(below & 1), toByteOffset: i, as: UInt64.self)
      let bits = Float.bytes(inside)
      let order = orders[Int(PackedMask.packed(bits))]
      place.storeBytes(of: order &+ UInt16(truncatingIfNeeded: i), toByteOffset: 2 &* found, as: SIMD8<UInt16>.self)
      found &+= bits.nonzeroBitCount
    }
    for i in count & ~7..<count {
      let word = UInt64(words[i])
      marks[i] = word < low ? 1 : 0
      list[found] = UInt16(truncatingIfNeeded: i)
      found &+= word >= low && word < high ? 1 : 0
    }
    return found
  }
}
