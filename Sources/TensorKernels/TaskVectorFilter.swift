// The filters of task vectors: what a random drop, a ceiling and a trim leave of one row of a chunk, a pass each. What needs one pass only is
// done while the row is filled (TaskVectorRow.swift).
//
// Shapes, types and NaN rule: TaskVectors.swift. Traffic: rows in L1.

/// Which elements of one model's task vector count.
public struct TaskVectorFilter: Sendable {
  public enum Drop: Sendable {
    case none
    /// Keep where the word is below `limit`, and remember it in the mask.
    case bernoulli(RandomStream, limit: UInt32, DropMask? = nil)
    /// Keep with a probability that depends on the magnitude's rank.
    case ranked(RandomStream, RankedKeep)
    /// Keep where the block's mask is not 0; the mask begins with the block, and lives as long as the call.
    case masked(BlockMask)
  }

  public enum Cut: Sendable {
    case none
    case everything
    /// Trim what is below `threshold`, and what is equal to it from element `tiesBefore` on.
    case below(threshold: Double, tiesBefore: Int)
  }

  public enum Ceiling: Sendable {
    case none
    /// Trim what is above `threshold`, and what is equal to it before element `dropsBefore`.
    case above(threshold: Double, dropsBefore: Int)
  }

  public var drop = Drop.none
  public var ceiling = Ceiling.none
  public var cut = Cut.none

  public init() {}

  public var isNone: Bool { if case .none = drop, case .none = cut, case .none = ceiling { true } else { false } }
}

/// One byte per element of a block: 1 where it stays, 0 where it goes.
public struct BlockMask: @unchecked Sendable {
  // @unchecked: read by the worker that made it.
  let bytes: UnsafePointer<UInt8>
  /// Its first element, counted from the tensor's start.
  let start: Int

  public init(bytes: UnsafePointer<UInt8>, start: Int) {
    self.bytes = bytes
    self.start = start
  }
}

/// DELLA's keep probability: p + epsilon * (rank / n - (n + 1) / (2 n)), between 0 and 1.
///
/// The rank is read off the cumulative histogram of the magnitudes over 65536 bins of the binary32 pattern, linearly inside a bin.
public final class RankedKeep: Sendable {
  static let binBits = 16
  private let probability: Double
  private let slope: Double
  private let total: Double
  private let below: [Double]

  /// - Parameter histogram: magnitudes per bin, `1 << 16` of them.
  public init(probability: Double, epsilon: Double, histogram: UnsafePointer<UInt64>) {
    self.probability = probability
    slope = epsilon
    var below: [Double] = [0]
    below.reserveCapacity(1 << Self.binBits + 1)
    var sum = 0.0
    for bin in 0..<(1 << Self.binBits) {
      sum += Double(histogram[bin])
      below.append(sum)
    }
    self.below = below
    total = sum
  }

  func limit(_ pattern: UInt64) -> UInt32? {
    let bin = Int(pattern >> 15)
    let inside = (Double(pattern & 0x7FFF) + 0.5) / 32768
    let rank = below[bin] + inside * (below[bin + 1] - below[bin])
    let p = probability + slope * (rank / total - (total + 1) / (2 * total))
    return RandomStream.limit(keeping: min(max(p, 0), 1))
  }
}

/// What a filter does to a chunk, where one pass over the row can do it: drop by a known mask, then trim.
struct FilterPass {
  /// The mask of the tensor's first chunk.
  private var masks: UnsafePointer<SIMD8<Int32>>?
  private var threshold = 0.0
  private var tiesBefore = Int.max
  private var ceiling = Double.infinity
  private var dropsBefore = 0

  /// nil: one pass is not enough.
  init?<Element: KernelElement>(_ filter: borrowing TaskVectorFilter, _: Element.Type) {
    if case .above(let ceiling, let dropsBefore) = filter.ceiling {
      (self.ceiling, self.dropsBefore) = (ceiling, dropsBefore)
    }
    switch filter.drop {
    case .none: break
    case .bernoulli(_, _, let kept):
      guard let known = kept?.known(0, paired: Element.isPaired) else { return nil }
      masks = known
    case .ranked, .masked: return nil
    }
    switch filter.cut {
    case .none: break
    case .everything: return nil
    case .below(let threshold, let tiesBefore): (self.threshold, self.tiesBefore) = (threshold, tiesBefore)
    }
  }

  /// The mask of the chunk at element `start`, if there is one, and between which magnitudes stay; nil: more passes are needed.
  @inline(__always)
  func chunk<Scalar: ArithmeticScalar>(
    _ start: Int, _ length: Int, _: Scalar.Type, narrow: Bool
  ) -> (mask: UnsafePointer<SIMD8<Int32>>?, least: Scalar, most: Scalar)? {
    if tiesBefore > start, tiesBefore < start + length { return nil }
    if dropsBefore > start, dropsBefore < start + length { return nil }
    if masks != nil, start % KernelGeometry.chunk != 0 { return nil }
    let (threshold, ceiling) = (Scalar(threshold), Scalar(ceiling))
    let least = TaskVectorFilter.least(threshold, tiesStay: tiesBefore >= start + length, narrow: narrow)
    guard let most = TaskVectorFilter.most(ceiling, tiesStay: dropsBefore < start + length, narrow: narrow) else { return nil }
    return (masks.map { $0 + start / KernelGeometry.chunk * DropMask.vectors }, least, most)
  }
}

extension TaskVectorFilter {
  /// The least magnitude that a trim at `threshold` leaves, in the type in which they are ranked.
  static func least<Scalar: ArithmeticScalar>(_ threshold: Scalar, tiesStay: Bool, narrow: Bool) -> Scalar {
    tiesStay ? threshold : narrow ? Scalar(Float(threshold).nextUp) : threshold.nextUp
  }

  /// The largest magnitude that a ceiling leaves, in the type in which they are ranked; nil: none.
  static func most<Scalar: ArithmeticScalar>(_ ceiling: Scalar, tiesStay: Bool, narrow: Bool) -> Scalar? {
    if tiesStay { return ceiling }
    return ceiling > 0 ? narrow ? Scalar(Float(ceiling).nextDown) : ceiling.nextDown : nil
  }
}

extension TaskVectors {
  @inline(__always)
  func filter<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, start: Int, length: Int, vectors: Int
  ) {
    let filter = filters[k]
    switch filter.drop {
    case .none: break
    case .bernoulli(let stream, let limit, let mask):
      if let known = mask?.known(start, paired: Element.isPaired) {
        drop(rows, k, known, vectors)
      } else {
        let wanted = mask?.wanted(start, paired: Element.isPaired)
        drop(Element.self, rows, k, stream, limit, start, length, vectors, into: wanted)
      }
    case .ranked(let stream, let keep): drop(Element.self, rows, k, stream, keep, start, length, vectors)
    case .masked(let mask): drop(Element.self, rows, k, mask, start, length)
    }
    if case .above(let threshold, let dropsBefore) = filter.ceiling {
      clip(Element.self, rows, k, Element.Arithmetic(threshold), dropsBefore, start, length, vectors)
    }
    switch filter.cut {
    case .none: break
    case .everything: for v in 0..<vectors { rows.set(k, v, .zero) }
    case .below(let threshold, let tiesBefore):
      trim(Element.self, rows, k, Element.Arithmetic(threshold), tiesBefore, start, length, vectors)
    }
  }

  // MARK: - Random drop

  /// The words of a chunk in the order of its elements.
  @inline(__always)
  private func words<Scalar>(
    _ rows: Rows<Scalar>, _ stream: RandomStream, _ start: Int, _ length: Int
  ) -> UnsafeMutablePointer<UInt32> {
    let words = UnsafeMutableRawPointer(rows[wordsRow]).assumingMemoryBound(to: UInt32.self)
    let shift = start % 4
    stream.fill(words, start: start - shift, count: 16 * ((length + 15) / 16) + shift)
    return words + shift
  }

  /// - Parameter kept: receives the chunk's mask.
  @inline(__always)
  private func drop<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, _ stream: RandomStream, _ limit: UInt32, _ start: Int,
    _ length: Int, _ vectors: Int, into kept: UnsafeMutablePointer<SIMD8<Int32>>?
  ) {
    typealias Scalar = Element.Arithmetic
    let words = UnsafeMutableRawPointer(rows[wordsRow])
    order(Element.self, rows, stream, start, length, vectors)
    for group in 0..<(vectors + 31) / 32 {
      var bits = SIMD8<Int32>.zero
      var bit: Int32 = 1
      for v in 32 * group..<min(32 * group + 32, vectors) {
        let mask = masks(of: words.load(fromByteOffset: 32 * v, as: SIMD8<UInt32>.self), below: limit)
        rows.set(k, v, Scalar.kept(rows.vector(k, v), mask: mask))
        bits |= mask & bit
        bit &<<= 1
      }
      if let kept { kept[group] = bits }
    }
  }

  /// The words of a chunk in the order of the row's lanes, in the row of words.
  @inline(__always)
  func order<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ stream: RandomStream, _ start: Int, _ length: Int, _ vectors: Int
  ) {
    let place = UnsafeMutableRawPointer(rows[wordsRow])
    let count = 16 * ((length + 15) / 16)
    if start % 4 == 0 {
      let words = place.assumingMemoryBound(to: UInt32.self)
      if Element.isPaired {
        stream.fillPaired(words, start: start, count: count)
      } else {
        stream.fill(words, start: start, count: count)
      }
      return
    }
    let words = UnsafeRawPointer(words(rows, stream, start, length))
    for tile in 0..<vectors / 2 {
      let sixteen = words.loadUnaligned(fromByteOffset: 64 * tile, as: SIMD16<UInt32>.self)
      place.storeBytes(
        of: Element.isPaired ? sixteen.evenHalf : sixteen.lowHalf, toByteOffset: 64 * tile, as: SIMD8<UInt32>.self)
      place.storeBytes(
        of: Element.isPaired ? sixteen.oddHalf : sixteen.highHalf, toByteOffset: 64 * tile + 32, as: SIMD8<UInt32>.self)
    }
  }

  @inline(__always)
  private func drop<Scalar: ArithmeticScalar>(
    _ rows: Rows<Scalar>, _ k: Int, _ kept: UnsafePointer<SIMD8<Int32>>, _ vectors: Int
  ) {
    for group in 0..<(vectors + 31) / 32 {
      var bits = kept[group]
      for v in 32 * group..<min(32 * group + 32, vectors) {
        let mask = (bits &<< 31) &>> 31
        rows.set(k, v, Scalar.kept(rows.vector(k, v), mask: mask))
        bits = bits &>> 1
      }
    }
  }

  @inline(__always)
  private func drop<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, _ stream: RandomStream, _ keep: RankedKeep, _ start: Int,
    _ length: Int, _ vectors: Int
  ) {
    let words = words(rows, stream, start, length)
    let row = rows[k]
    for position in 0..<(8 * vectors) {
      let element = position & ~15 | Element.element(at: position & 15)
      let limit = keep.limit(Element.Arithmetic.pattern(row[position], narrow: true))
      if let limit, words[element] >= limit { row[position] = 0 }
    }
  }

  @inline(__always)
  private func drop<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, _ mask: BlockMask, _ start: Int, _ length: Int
  ) {
    let row = rows[k]
    let bytes = UnsafeRawPointer(mask.bytes + (start - mask.start))
    for tile in 0..<length / 16 {
      let sixteen = SIMD16<Int32>(truncatingIfNeeded: bytes.loadUnaligned(fromByteOffset: 16 * tile, as: SIMD16<UInt8>.self))
      let masks = 0 &- sixteen
      let low = Element.isPaired ? masks.evenHalf : masks.lowHalf
      let high = Element.isPaired ? masks.oddHalf : masks.highHalf
      rows.set(k, 2 * tile, Element.Arithmetic.kept(rows.vector(k, 2 * tile), mask: low))
      rows.set(k, 2 * tile + 1, Element.Arithmetic.kept(rows.vector(k, 2 * tile + 1), mask: high))
    }
    for i in length & ~15..<length where mask.bytes[start - mask.start + i] == 0 {
      row[i & ~15 | Element.position(of: i & 15)] = 0
    }
  }

  // MARK: - Trim

  @inline(__always)
  private func clip<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, _ threshold: Element.Arithmetic, _ dropsBefore: Int,
    _ start: Int, _ length: Int, _ vectors: Int
  ) {
    typealias Scalar = Element.Arithmetic
    if dropsBefore > start, dropsBefore < start + length {
      let row = rows[k]
      for position in 0..<(8 * vectors) {
        let element = position & ~15 | Element.element(at: position & 15)
        let magnitude = narrow ? Scalar(Float(row[position].magnitude)) : row[position].magnitude
        if magnitude > threshold || magnitude == threshold && start + element < dropsBefore { row[position] = 0 }
      }
      return
    }
    guard let most = TaskVectorFilter.most(threshold, tiesStay: dropsBefore < start + length, narrow: narrow) else {
      for v in 0..<vectors { rows.set(k, v, .zero) }
      return
    }
    for v in 0..<vectors {
      let values = rows.vector(k, v)
      rows.set(k, v, Scalar.kept(values, rank: Scalar.magnitudes(values, narrow: narrow), upTo: most))
    }
  }

  @inline(__always)
  private func trim<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, _ threshold: Element.Arithmetic, _ tiesBefore: Int,
    _ start: Int, _ length: Int, _ vectors: Int
  ) {
    typealias Scalar = Element.Arithmetic
    if tiesBefore > start, tiesBefore < start + length {
      let row = rows[k]
      for position in 0..<(8 * vectors) {
        let element = position & ~15 | Element.element(at: position & 15)
        let magnitude = narrow ? Scalar(Float(row[position].magnitude)) : row[position].magnitude
        if magnitude < threshold || magnitude == threshold && start + element >= tiesBefore { row[position] = 0 }
      }
      return
    }
    let least = TaskVectorFilter.least(threshold, tiesStay: tiesBefore >= start + length, narrow: narrow)
    for v in 0..<vectors {
      let values = rows.vector(k, v)
      rows.set(k, v, Scalar.kept(values, rank: Scalar.magnitudes(values, narrow: narrow), from: least))
    }
  }
}
