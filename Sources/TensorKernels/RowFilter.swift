// What the filters leave of one row of a chunk: in one pass while the row is filled (TaskVectorRow.swift), or in a pass each, where a
// chunk holds only some of the magnitudes equal to a limit, or a drop depends on the rank.
//
// Shapes, types and NaN rule: TaskVectors.swift. Traffic: that of TaskVectorRow.swift; further passes over a row in L1.

/// One model's filter as the chunks of a block take it: numbers and addresses only, see TaskVectorChunk.
struct RowFilter {
  private enum Drop {
    case none
    /// By bits that are known, those of the block's first chunk first.
    case known(UnsafePointer<SIMD8<Int32>>)
    /// By bits that are to be made, and where they are to be kept, the first chunk's first.
    case bernoulli(RandomStream, limit: UInt32, UnsafeMutablePointer<SIMD8<Int32>>?)
    case ranked(RandomStream, Unmanaged<RankedKeep>)
    case masked(BlockMask)
  }

  private var drop = Drop.none
  private var cutsAll = false
  private var threshold = 0.0
  private var tiesBefore = Int.max
  private var ceiling = Double.infinity
  private var dropsBefore = 0
  private let narrow: Bool
  private let factor: Double

  /// - Parameters:
  ///   - filter: which must live as long as this; nil: everything stays.
  ///   - start: first element of the block, counted from the tensor's start.
  ///   - factor: what the row is multiplied by after the filter.
  init<Element: KernelElement>(
    _ filter: TaskVectorFilter?, _: Element.Type, start: Int, factor: Double, narrow: Bool
  ) {
    (self.narrow, self.factor) = (narrow, factor)
    guard let filter else { return }
    switch filter.drop {
    case .none: break
    case .bernoulli(let stream, let limit, let mask):
      if let known = mask?.known(start, paired: Element.isPaired) {
        drop = .known(known)
      } else {
        drop = .bernoulli(stream, limit: limit, mask?.wanted(start, paired: Element.isPaired))
      }
    case .ranked(let stream, let keep): drop = .ranked(stream, Unmanaged.passUnretained(keep))
    case .masked(let mask): drop = .masked(mask)
    }
    if case .above(let ceiling, let dropsBefore) = filter.ceiling { (self.ceiling, self.dropsBefore) = (ceiling, dropsBefore) }
    switch filter.cut {
    case .none: break
    case .everything: cutsAll = true
    case .below(let threshold, let tiesBefore): (self.threshold, self.tiesBefore) = (threshold, tiesBefore)
    }
  }

  // MARK: - One pass

  /// Fill a row with its task vector, filtered and multiplied: in one pass, where that is enough.
  /// - Parameter count: receives how many elements are not 0 then; nil: they are not counted.
  /// - Returns: 0, or NaN if a difference is not finite.
  @inline(never)
  func fill<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ k: Int, _ count: UnsafeMutablePointer<Double>?
  ) -> Double {
    typealias Scalar = Element.Arithmetic
    // F64 may become 0 in binary32: then what a cut of zeros would leave is not all that is not 0.
    let zerosAreKnown = !(narrow && Element.self == F64Element.self)
    guard isOnePass(chunk), let most: Scalar = most(before: chunk.start + chunk.length), zerosAreKnown || most == .infinity
    else {
      let poison = TaskVectorRow(chunk, k).run(drops: No.self, cuts: No.self, clips: No.self, scales: No.self).poison
      apply(chunk, k)
      if factor != 1 { for v in 0..<chunk.vectors { chunk.rows.set(k, v, chunk.rows.vector(k, v) * Scalar(factor)) } }
      count?.pointee += chunk.rows.nonZeros(k, vectors: chunk.vectors)
      return poison
    }
    let countsByCut = count != nil && zerosAreKnown
    let smallest = narrow ? Scalar(Float.leastNonzeroMagnitude) : .leastNonzeroMagnitude
    var row = TaskVectorRow(chunk, k, narrow: narrow)
    row.mask = bits(chunk, k)
    row.least = max(least(before: chunk.start + chunk.length), countsByCut || most < .infinity ? smallest : 0)
    row.most = most
    row.factor = Scalar(factor)
    let result =
      switch (row.mask != nil, row.least > 0, row.most < .infinity) {
      case (false, false, _) where factor == 1: row.run(drops: No.self, cuts: No.self, clips: No.self, scales: No.self)
      case (false, false, _): row.run(drops: No.self, cuts: No.self, clips: No.self, scales: Yes.self)
      case (false, true, false): row.run(drops: No.self, cuts: Yes.self, clips: No.self, scales: Yes.self)
      case (false, true, true): row.run(drops: No.self, cuts: Yes.self, clips: Yes.self, scales: Yes.self)
      case (true, false, _): row.run(drops: Yes.self, cuts: No.self, clips: No.self, scales: Yes.self)
      case (true, true, false): row.run(drops: Yes.self, cuts: Yes.self, clips: No.self, scales: Yes.self)
      case (true, true, true): row.run(drops: Yes.self, cuts: Yes.self, clips: Yes.self, scales: Yes.self)
      }
    if let count {
      count.pointee += countsByCut && factor != 0 ? Double(result.kept) : chunk.rows.nonZeros(k, vectors: chunk.vectors)
    }
    return result.poison
  }

  /// Add |d|_1 of the task vector and of what the filter leaves of it, not multiplied: in one pass, where that is enough.
  /// - Returns: 0, or NaN if a difference is not finite.
  @inline(never)
  func addMagnitudes<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ k: Int, to all: UnsafeMutablePointer<Double>, kept: UnsafeMutablePointer<Double>
  ) -> Double {
    guard isOnePass(chunk), let most: Element.Arithmetic = most(before: chunk.start + chunk.length) else {
      let poison = TaskVectorRow(chunk, k).run(drops: No.self, cuts: No.self, clips: No.self, scales: No.self).poison
      all.pointee += chunk.rows.magnitudes(k, vectors: chunk.vectors)
      apply(chunk, k)
      kept.pointee += chunk.rows.magnitudes(k, vectors: chunk.vectors)
      return poison
    }
    var row = TaskVectorRow(chunk, k, narrow: narrow)
    row.mask = bits(chunk, k)
    row.least = least(before: chunk.start + chunk.length)
    row.most = most
    let sums =
      switch (row.mask != nil, row.least > 0 || row.most < .infinity) {
      case (false, _): row.magnitudes(drops: No.self, cuts: Yes.self)
      case (true, false): row.magnitudes(drops: Yes.self, cuts: No.self)
      case (true, true): row.magnitudes(drops: Yes.self, cuts: Yes.self)
      }
    all.pointee += sums.all
    kept.pointee += sums.kept
    return sums.poison
  }

  var drops: Bool { if case .none = drop { false } else { true } }
  var clips: Bool { ceiling < .infinity }

  /// Do a mask and limits say what stays in a chunk, and is the row not multiplied by 0?
  @inline(__always)
  func hasLimits<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>) -> Bool {
    let most: Element.Arithmetic? = most(before: chunk.start + chunk.length)
    return isOnePass(chunk) && factor != 0 && narrow && most != nil
  }

  /// Say what stays in a chunk that has limits.
  @inline(__always)
  func set<Element: KernelElement>(
    _ limits: UnsafeMutablePointer<RowLimits<Element.Arithmetic>>, _ chunk: TaskVectorChunk<Element>, _ k: Int
  ) {
    typealias Scalar = Element.Arithmetic
    let end = chunk.start + chunk.length
    limits.pointee.mask = bits(chunk, k)
    limits.pointee.least = max(least(before: end), Scalar(Float.leastNonzeroMagnitude))
    limits.pointee.most = most(before: end)!
    limits.pointee.factor = Scalar(factor)
  }

  /// Does a chunk need no more than a mask and limits that hold for all of it?
  @inline(__always)
  private func isOnePass<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>) -> Bool {
    if case .ranked = drop { return false }
    let (start, end) = (chunk.start, chunk.start + chunk.length)
    return !cutsAll && (tiesBefore <= start || tiesBefore >= end) && (dropsBefore <= start || dropsBefore >= end)
  }

  /// The least magnitude that stays in a chunk, in the type in which they are ranked.
  @inline(__always)
  private func least<Scalar: ArithmeticScalar>(before end: Int) -> Scalar {
    let least = Scalar(threshold)
    return tiesBefore >= end ? least : narrow ? Scalar(Float(least).nextUp) : least.nextUp
  }

  /// The largest magnitude that stays in a chunk, in the type in which they are ranked; nil: none.
  @inline(__always)
  private func most<Scalar: ArithmeticScalar>(before end: Int) -> Scalar? {
    let most = Scalar(ceiling)
    if dropsBefore < end { return most }
    return most > 0 ? narrow ? Scalar(Float(most).nextDown) : most.nextDown : nil
  }

  // MARK: - Random drop

  /// The chunk's mask, made where it is not known; nil: nothing is dropped, or not by a mask.
  @inline(__always)
  private func bits<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>, _ k: Int) -> UnsafePointer<SIMD8<Int32>>? {
    let place = chunk.offset / KernelGeometry.chunk * DropMask.vectors
    switch drop {
    case .none, .ranked: return nil
    case .known(let first): return first + place
    case .bernoulli(let stream, let limit, let wanted):
      let bits = wanted.map { $0 + place } ?? spareBits(chunk, k)
      mark(chunk, stream, limit, bits)
      return UnsafePointer(bits)
    case .masked(let mask):
      let bits = spareBits(chunk, k)
      let bytes = UnsafeRawPointer(mask.bytes + (chunk.start - mask.start))
      DropMask.mark(Element.self, bits, bytes: bytes, count: chunk.length)
      return UnsafePointer(bits)
    }
  }

  @inline(__always)
  private func spareBits<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ k: Int
  ) -> UnsafeMutablePointer<SIMD8<Int32>> {
    // Of as many models as a row has room for, more than are merged in one pass; those of the others are used up at once.
    let place = k % (KernelGeometry.chunk * MemoryLayout<Element.Arithmetic>.size / 32 / DropMask.vectors) * DropMask.vectors
    return UnsafeMutableRawPointer(chunk.rows[chunk.spareRow + 1]).assumingMemoryBound(to: SIMD8<Int32>.self) + place
  }

  /// Mark what the random words keep.
  @inline(__always)
  private func mark<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ stream: RandomStream, _ limit: UInt32, _ bits: UnsafeMutablePointer<SIMD8<Int32>>
  ) {
    if RandomStream.isWide, chunk.start % 4 == 0 {
      return stream.mark(bits, start: chunk.start, vectors: chunk.vectors, below: limit, paired: Element.isPaired)
    }
    let place = UnsafeMutableRawPointer(chunk.rows[chunk.spareRow])
    if !Element.isPaired || chunk.start % 4 != 0 {
      let words = UnsafeRawPointer(words(chunk, stream))
      for tile in 0..<chunk.vectors / 2 {
        let sixteen = words.loadUnaligned(fromByteOffset: 64 * tile, as: SIMD16<UInt32>.self)
        let (low, high) = Element.isPaired ? (sixteen.evenHalf, sixteen.oddHalf) : (sixteen.lowHalf, sixteen.highHalf)
        place.storeBytes(of: low, toByteOffset: 64 * tile, as: SIMD8<UInt32>.self)
        place.storeBytes(of: high, toByteOffset: 64 * tile + 32, as: SIMD8<UInt32>.self)
      }
    } else {
      stream.fillPaired(place.assumingMemoryBound(to: UInt32.self), start: chunk.start, count: 8 * chunk.vectors)
    }
    DropMask.mark(bits, words: place, vectors: chunk.vectors, below: limit)
  }

  /// The words of a chunk in the order of its elements.
  @inline(__always)
  private func words<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ stream: RandomStream
  ) -> UnsafeMutablePointer<UInt32> {
    let words = UnsafeMutableRawPointer(chunk.rows[chunk.spareRow]).assumingMemoryBound(to: UInt32.self)
    let shift = chunk.start % 4
    stream.fill(words, start: chunk.start - shift, count: 8 * chunk.vectors + shift)
    return words + shift
  }

  // MARK: - Several passes

  /// Filter a row that holds its task vector.
  @inline(never)
  private func apply<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>, _ k: Int) {
    typealias Scalar = Element.Arithmetic
    let (rows, vectors) = (chunk.rows, chunk.vectors)
    if case .ranked(let stream, let keep) = drop { drop(chunk, k, stream, keep) }
    if let bits = bits(chunk, k) {
      for v in 0..<vectors {
        rows.set(k, v, Scalar.kept(rows.vector(k, v), mask: (bits[v / 32] &<< Int32(v % 32)) &>> 31))
      }
    }
    if ceiling < .infinity { clip(chunk, k, Scalar(ceiling)) }
    if cutsAll {
      for v in 0..<vectors { rows.set(k, v, .zero) }
    } else if threshold > 0 || tiesBefore < .max {
      trim(chunk, k, Scalar(threshold))
    }
  }

  @inline(__always)
  private func drop<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ k: Int, _ stream: RandomStream, _ keep: Unmanaged<RankedKeep>
  ) {
    let words = words(chunk, stream)
    let row = chunk.rows[k]
    let keep = keep.takeUnretainedValue()
    for position in 0..<(8 * chunk.vectors) {
      let element = position & ~15 | Element.element(at: position & 15)
      let limit = keep.limit(Element.Arithmetic.pattern(row[position], narrow: true))
      if let limit, words[element] >= limit { row[position] = 0 }
    }
  }

  @inline(__always)
  private func clip<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>, _ k: Int, _ threshold: Element.Arithmetic) {
    typealias Scalar = Element.Arithmetic
    // Of the magnitudes equal to the threshold those before `dropsBefore` go.
    let below: Scalar? = most(before: .min)
    split(chunk, k, at: dropsBefore) { values, rank, isBefore in
      guard isBefore else { return Scalar.kept(values, rank: rank, upTo: threshold) }
      return below.map { Scalar.kept(values, rank: rank, upTo: $0) } ?? .zero
    }
  }

  @inline(__always)
  private func trim<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>, _ k: Int, _ threshold: Element.Arithmetic) {
    typealias Scalar = Element.Arithmetic
    // Of those equal to this one, all before `tiesBefore` stay.
    let above: Scalar = least(before: .max)
    split(chunk, k, at: tiesBefore) { values, rank, isBefore in
      Scalar.kept(values, rank: rank, from: isBefore ? threshold : above)
    }
  }

  /// Put `body` of each vector and its ranks into its place: for elements before an element of the tensor, and for those from it on.
  @inline(__always)
  private func split<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ k: Int, at element: Int,
    _ body: (SIMD8<Element.Arithmetic>, _ rank: SIMD8<Element.Arithmetic>, _ isBefore: Bool) -> SIMD8<Element.Arithmetic>
  ) {
    typealias Scalar = Element.Arithmetic
    let (rows, first) = (chunk.rows, min(max(element, chunk.start) - chunk.start, 8 * chunk.vectors))
    for v in 0..<chunk.vectors {
      let values = rows.vector(k, v)
      let rank = Scalar.magnitudes(values, narrow: narrow)
      guard v / 2 == first / 16, first % 16 > 0 else {
        rows.set(k, v, body(values, rank, v / 2 < first / 16))
        continue
      }
      // The 16 elements among which the border is: some lanes are before it.
      var mixed = body(values, rank, false)
      let before = body(values, rank, true)
      for lane in 0..<8 where Element.element(at: 8 * (v % 2) + lane) < first % 16 { mixed[lane] = before[lane] }
      rows.set(k, v, mixed)
    }
  }
}
