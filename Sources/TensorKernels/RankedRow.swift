// A ranked row: which elements of one row stay, when the limit of an element's random word depends on the rank of its magnitude.
//
//   keep[e] = word[e] < limit[rank(e)], rank 0..n-1 ascending in |d|, equal magnitudes by the lowest index; limits rise or fall with the rank
//
// 1. A histogram of the magnitudes: over the upper bits of their patterns, 8 powers of two below the row's largest, the rest in one bin.
//    A bin has two halves: the magnitude of which the upper bits are all there is (and 0, in the lowest bin), and those above it. The
//    differences of BF16 or F16 weights have few bits, so most elements are in first halves, many in each.
// 2. A word outside all limits decides by itself. Else, the elements of a first half are equal: their ranks are those of the half, in the
//    order in which they come. The elements of a second half have ranks between two numbers, so limits between two limits, and a word
//    outside these decides.
// 3. Of the few that are left the rank is counted: the elements below, and the equal ones before. If there are too many (an outlier so
//    far away that the row shares the lowest bin), the row is sorted by radix.
//
// Result: exact in all cases. Cost: passes to bin, to count and to decide; n / 8 vector steps for each element that is left.

/// Patterns of magnitudes: UInt32 in binary32, UInt64 in binary64.
protocol MagnitudePattern: FixedWidthInteger, UnsignedInteger, SIMDScalar, Codable {
  /// Bits below the exponent.
  static var fraction: Int { get }
}

extension UInt32: MagnitudePattern { static var fraction: Int { 23 } }
extension UInt64: MagnitudePattern { static var fraction: Int { 52 } }

struct RankedRow {
  /// Room for one row.
  final class Scratch {
    /// Of a row whose elements lie apart, side by side.
    fileprivate let patterns: UnsafeMutableRawPointer
    fileprivate let words: UnsafeMutablePointer<UInt32>
    fileprivate let mask: UnsafeMutablePointer<UInt8>
    /// Of each element: twice its bin, and one more in the second half.
    fileprivate let halves: UnsafeMutablePointer<UInt16>
    fileprivate let listed: UnsafeMutablePointer<Int32>
    /// In a chunk, those whose words do not decide by themselves.
    fileprivate let open: UnsafeMutablePointer<UInt16>
    /// Of each element: how many of its half bin come before it.
    fileprivate let earlier: UnsafeMutablePointer<UInt32>
    /// Of each half bin: how many elements, then its first rank; one more for the end of the last.
    fileprivate let firsts: UnsafeMutablePointer<UInt32>
    /// Two rows each, to sort from one into the other; made when first wanted.
    fileprivate lazy var keys = UnsafeMutablePointer<UInt64>.allocate(capacity: 2 * length)
    fileprivate lazy var places = UnsafeMutablePointer<Int32>.allocate(capacity: 2 * length)
    private var isSorting = false
    fileprivate let length: Int

    init(length: Int) {
      self.length = length
      let count = RankedRow.halves(length)
      patterns = .allocate(byteCount: 8 * length + 64, alignment: 64)
      words = .allocate(capacity: length)
      mask = .allocate(capacity: length)
      halves = .allocate(capacity: length)
      listed = .allocate(capacity: length + 1)
      open = .allocate(capacity: LanePlaces.room)
      earlier = .allocate(capacity: length)
      firsts = .allocate(capacity: count + 1)
    }

    fileprivate func sorting() -> (keys: UnsafeMutablePointer<UInt64>, places: UnsafeMutablePointer<Int32>) {
      isSorting = true
      return (keys, places)
    }

    deinit {
      patterns.deallocate()
      words.deallocate()
      mask.deallocate()
      halves.deallocate()
      listed.deallocate()
      open.deallocate()
      earlier.deallocate()
      firsts.deallocate()
      if isSorting {
        keys.deallocate()
        places.deallocate()
      }
    }

    static func bytes(length: Int) -> Int { length * 47 + RankedRow.halves(length) * 4 + LanePlaces.room * 2 + 160 }
  }

  /// Per rank the word below which an element stays, the last one twice.
  let limits: UnsafePointer<UInt64>
  let length: Int
  let scratch: Scratch

  /// Bits of a pattern that number its bin, 3 of them the power of two.
  private static func binBits(_ length: Int) -> Int {
    let bits = length.bitWidth - 1 - length.leadingZeroBitCount
    return bits <= 12 ? min(max(bits - 1, 5), 10) : min(bits - 2, 14)
  }

  /// Halves of bins; one more bin holds the largest magnitude.
  private static func halves(_ length: Int) -> Int { 2 << binBits(length) + 2 }

  /// Fill `mask` with 1 for what stays, 0 for what goes. Elements of all three arrays are `step` apart.
  @inline(__always)
  func mask<Pattern: MagnitudePattern>(
    _ patterns: UnsafePointer<Pattern>, _ words: UnsafePointer<UInt32>, step: Int, into mask: UnsafeMutablePointer<UInt8>
  ) {
    if step == 1 { return decide(patterns, words, mask) }
    let row = scratch.patterns.assumingMemoryBound(to: Pattern.self)
    for i in 0..<length { (row[i], scratch.words[i]) = (patterns[i * step], words[i * step]) }
    decide(row, scratch.words, scratch.mask)
    for i in 0..<length { mask[i * step] = scratch.mask[i] }
  }

  @inline(never)
  private func decide<Pattern: MagnitudePattern>(
    _ patterns: UnsafePointer<Pattern>, _ words: UnsafePointer<UInt32>, _ mask: UnsafeMutablePointer<UInt8>
  ) {
    if length < 64 {
      for i in 0..<length { scratch.listed[i] = Int32(truncatingIfNeeded: i) }
      return settle(length, patterns, words, mask)
    }
    bin(patterns)
    count()
    let left = undecided(among: decide(words, into: mask), words)
    if left > 0 { settle(left, patterns, words, mask) }
  }

  /// The half bin of each element.
  @inline(__always)
  private func bin<Pattern: MagnitudePattern>(_ patterns: UnsafePointer<Pattern>) {
    let halves = scratch.halves
    let shift = Pattern(Pattern.fraction + 3 - Self.binBits(length))
    var largest: Pattern = 0
    for i in 0..<length { largest = max(largest, patterns[i]) }
    let span = Pattern(8) << Pattern.fraction
    let lowest = ((largest > span ? largest - span : 0) >> shift) << shift
    let sign = Pattern(Pattern.bitWidth - 1)
    for i in 0..<length {
      let bin = (max(patterns[i], lowest) &- lowest) &>> shift
      // What the first half holds: 0 in the lowest bin. A number other than 0 has an opposite with the top bit.
      let first = (lowest &+ bin &<< shift) & (0 &- ((0 &- bin) &>> sign))
      halves[i] = UInt16(truncatingIfNeeded: bin &<< 1 | (0 &- (patterns[i] ^ first)) &>> sign)
    }
  }

  /// How many elements each half bin has, and the first rank of each.
  @inline(__always)
  private func count() {
    let (halves, earlier, firsts) = (scratch.halves, scratch.earlier, scratch.firsts)
    let count = Self.halves(length)
    firsts.update(repeating: 0, count: count)
    for i in 0..<length {
      let half = Int(halves[i])
      let before = firsts[half]
      earlier[i] = before
      firsts[half] = before &+ 1
    }
    var first: UInt32 = 0
    for half in 0..<count { (firsts[half], first) = (first, first &+ firsts[half]) }
    firsts[count] = first
  }

  /// Decide the elements whose words are not below all limits, nor above: by the rank that each has if those of its half bin are equal. List
  /// those of second halves.
  /// - Returns: how many are listed.
  @inline(__always)
  private func decide(_ words: UnsafePointer<UInt32>, into mask: UnsafeMutablePointer<UInt8>) -> Int {
    let (halves, earlier, firsts, listed) = (scratch.halves, scratch.earlier, scratch.firsts, scratch.listed)
    let (low, high) = (min(limits[0], limits[length]), max(limits[0], limits[length]))
    return LanePlaces.with(scratch.open) { places in
      var count = 0
      for start in stride(from: 0, to: length, by: KernelGeometry.chunk) {
        let open = places.fill(
          words + start, count: min(KernelGeometry.chunk, length - start), from: low, to: high, marks: mask + start)
        for place in 0..<open {
          let i = start &+ places[place]
          let half = Int(halves[i])
          let rank = firsts[half] &+ earlier[i]
          // Below 0 in 64 bits: the word is below the limit.
          mask[i] = UInt8(truncatingIfNeeded: (UInt64(words[i]) &- limits[Int(rank)]) &>> 63)
          listed[count] = Int32(truncatingIfNeeded: i)
          count &+= half & 1
        }
      }
      return count
    }
  }

  /// Of the `count` listed elements, keep those on the list that another rank of their half bin may decide otherwise.
  @inline(__always)
  private func undecided(among count: Int, _ words: UnsafePointer<UInt32>) -> Int {
    let (halves, listed, firsts) = (scratch.halves, scratch.listed, scratch.firsts)
    var left = 0
    for place in 0..<count {
      let i = listed[place]
      let (half, word) = (Int(halves[Int(i)]), UInt64(words[Int(i)]))
      listed[left] = i
      // Below the one limit, not below the other.
      let (one, other) = (word &- limits[Int(firsts[half])], word &- limits[Int(firsts[half + 1])])
      left &+= Int(truncatingIfNeeded: (one ^ other) &>> 63)
    }
    return left
  }

  // MARK: - The rest

  /// Decide the `count` listed elements.
  private func settle<Pattern: MagnitudePattern>(
    _ count: Int, _ patterns: UnsafePointer<Pattern>, _ words: UnsafePointer<UInt32>, _ mask: UnsafeMutablePointer<UInt8>
  ) {
    // By then a sort takes less time.
    if count > 96 { return sort(patterns, words, mask) }
    for place in 0..<count {
      let i = Int(scratch.listed[place])
      mask[i] = UInt64(words[i]) < limits[rank(of: i, patterns)] ? 1 : 0
    }
  }

  /// How many elements of the row are lower than element `i`, or equal and before it. Reads up to 7 elements past the row's end.
  @inline(__always)
  private func rank<Pattern: MagnitudePattern>(of i: Int, _ patterns: UnsafePointer<Pattern>) -> Int {
    let row = UnsafeRawPointer(patterns)
    let pattern = SIMD8(repeating: patterns[i])
    // 1 where a pattern is below a bound. No magnitude has its top bit set, so that of a difference is its sign; a comparison would go
    // lane by lane.
    func below(_ bound: SIMD8<Pattern>, at place: Int) -> SIMD8<Pattern> {
      let vector = row.loadUnaligned(fromByteOffset: place &* MemoryLayout<Pattern>.size, as: SIMD8<Pattern>.self)
      return (vector &- bound) &>> Pattern(Pattern.bitWidth - 1)
    }
    func first(_ lanes: Int) -> SIMD8<Pattern> {
      (SIMD8(0, 1, 2, 3, 4, 5, 6, 7) &- Pattern(truncatingIfNeeded: lanes)) &>> Pattern(Pattern.bitWidth - 1)
    }
    var counts = SIMD8<Pattern>.zero
    let (own, last) = (i & ~7, length & ~7)
    var place = 0
    while place < own {
      counts &+= below(pattern &+ 1, at: place)
      place &+= 8
    }
    var bound = pattern &+ first(i &- own)
    while place < last {
      counts &+= below(bound, at: place)
      (place, bound) = (place &+ 8, pattern)
    }
    counts &+= below(bound, at: place) & first(length &- last)
    return Int(truncatingIfNeeded: counts.wrappedSum())
  }

  /// Decide all elements of the row in the order of their magnitudes: a radix sort by bytes, equal ones as they come.
  private func sort<Pattern: MagnitudePattern>(
    _ patterns: UnsafePointer<Pattern>, _ words: UnsafePointer<UInt32>, _ mask: UnsafeMutablePointer<UInt8>
  ) {
    var (keys, places) = scratch.sorting()
    var (otherKeys, otherPlaces) = (keys + length, places + length)
    for i in 0..<length {
      keys[i] = UInt64(patterns[i])
      places[i] = Int32(truncatingIfNeeded: i)
    }
    withUnsafeTemporaryAllocation(of: Int.self, capacity: 256) { space in
      let starts = space.baseAddress!
      for shift in stride(from: UInt64(0), to: UInt64(Pattern.bitWidth), by: 8) {
        starts.initialize(repeating: 0, count: 256)
        for i in 0..<length { starts[Int(keys[i] >> shift & 255)] += 1 }
        // All the same: nothing to move.
        if starts[Int(keys[0] >> shift & 255)] == length { continue }
        var sum = 0
        for bin in 0..<256 { (starts[bin], sum) = (sum, sum + starts[bin]) }
        for i in 0..<length {
          let bin = Int(keys[i] >> shift & 255)
          let place = starts[bin]
          otherKeys[place] = keys[i]
          otherPlaces[place] = places[i]
          starts[bin] = place + 1
        }
        swap(&keys, &otherKeys)
        swap(&places, &otherPlaces)
      }
    }
    for rank in 0..<length {
      let i = Int(places[rank])
      mask[i] = UInt64(words[i]) < limits[rank] ? 1 : 0
    }
  }
}
