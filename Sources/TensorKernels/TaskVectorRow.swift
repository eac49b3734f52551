// One row of a chunk of task vectors in one pass over its input and the base: the row itself, or its norms.
//
//   d = x_i - x_0;   0 where the mask is 0;   0 where |d| > most, and where |d| < least;   times f
//   |d|_1 before and after that (f = 1)
//
// Shapes, types and NaN rule: TaskVectors.swift. Arithmetic: a difference and a product in the elements' arithmetic type, each
// rounded once; sums of at most 64 magnitudes per lane in that type, then binary64. Traffic: 2 * size bytes read per element, and one row
// in L1 written.

struct TaskVectorRow<Element: KernelElement> {
  typealias Scalar = Element.Arithmetic

  /// What a random drop has kept of the chunk.
  var mask: UnsafePointer<SIMD8<Int32>>?
  /// The least magnitude that stays, as magnitudes are ranked.
  var least: Scalar = 0
  /// The largest magnitude that stays; only looked at where there is a least one too.
  var most = Scalar.infinity
  var factor: Scalar = 1

  /// Are magnitudes ranked in binary32?
  private let narrow: Bool
  // Each a field of its own, not the chunk: a struct that is copied as a whole waits until the row before has been stored.
  private let base: UnsafeRawPointer
  private let model: UnsafeRawPointer
  private let row: UnsafeMutablePointer<SIMD8<Scalar>>
  private let length: Int

  /// - Parameters:
  ///   - k: the model, whose row is filled, padded with zeros to a multiple of 16.
  ///   - narrow: are magnitudes ranked in binary32?
  @inline(__always)
  init(_ chunk: TaskVectorChunk<Element>, _ k: Int, narrow: Bool = true) {
    let offset = (chunk.block.from + chunk.offset) * Element.size
    (base, model) = (chunk.block.inputs.table[0] + offset, chunk.block.inputs.table[k + 1] + offset)
    row = UnsafeMutableRawPointer(chunk.rows[k]).assumingMemoryBound(to: SIMD8<Scalar>.self)
    (length, self.narrow) = (chunk.length, narrow)
  }

  /// What a filter does to lanes, and what it has met so far.
  private struct Pass {
    let least: SIMD8<Scalar>
    let most: SIMD8<Scalar>
    let narrow: Bool
    /// The masks of the lanes that come next, the highest bits first.
    var bits = SIMD8<Int32>.zero
    var trimmed = SIMD8<Scalar.Count>.zero
    var others = SIMD8<Scalar.Count>.zero
    // The sums of what comes and, of norms, of what stays.
    var low = SIMD8<Scalar>.zero
    var high = SIMD8<Scalar>.zero
    var keptLow = SIMD8<Scalar>.zero
    var keptHigh = SIMD8<Scalar>.zero

    @inline(__always)
    mutating func filter(_ lanes: Lanes<Scalar>, drops: Bool, cuts: Bool, clips: Bool) -> Lanes<Scalar> {
      var (low, high) = (lanes.low, lanes.high)
      if drops {
        low = Scalar.kept(low, mask: bits &>> 31)
        high = Scalar.kept(high, mask: (bits &<< 1) &>> 31)
        bits = bits &<< 2
      }
      if cuts {
        let (rank, other) = (Scalar.magnitudes(low, narrow: narrow), Scalar.magnitudes(high, narrow: narrow))
        var (first, second) = (Scalar.isBelow(rank, least), Scalar.isBelow(other, least))
        if clips {
          first |= Scalar.isBelow(most, rank)
          second |= Scalar.isBelow(most, other)
        }
        (low, high) = (Scalar.cleared(low, where: first), Scalar.cleared(high, where: second))
        trimmed &+= first
        others &+= second
      }
      return Lanes(low: low, high: high)
    }
  }

  /// Fill the row.
  /// - Returns: `poison`, 0 or NaN if a difference is not finite, and how many elements cuts have left.
  @inline(never)
  func run<Drops: Choice, Cuts: Choice, Clips: Choice, Scales: Choice>(
    drops _: Drops.Type, cuts _: Cuts.Type, clips _: Clips.Type, scales _: Scales.Type
  ) -> (poison: Double, kept: Int) {
    let choices = (drops: Drops.isYes, cuts: Cuts.isYes, clips: Clips.isYes, scales: Scales.isYes)
    var pass = Pass(least: SIMD8(repeating: least), most: SIMD8(repeating: most), narrow: narrow)
    let factor = SIMD8<Scalar>(repeating: factor)
    let whole = length / 16
    for tile in 0..<whole {
      if choices.drops, tile % 16 == 0 { pass.bits = mask![tile / 16] }
      set(tile, difference(tile &* (16 &* Element.size)), &pass, factor, choices)
    }
    if length > 16 * whole {
      if choices.drops, whole % 16 == 0 { pass.bits = mask![whole / 16] }
      set(whole, tail, &pass, factor, choices)
    }
    return (laneSum(pass.low + pass.high), 16 * ((length + 15) / 16) + Int((pass.trimmed &+ pass.others).wrappedSum()))
  }

  @inline(__always)
  private func set(
    _ tile: Int, _ lanes: Lanes<Scalar>, _ pass: inout Pass, _ factor: SIMD8<Scalar>,
    _ choices: (drops: Bool, cuts: Bool, clips: Bool, scales: Bool)
  ) {
    pass.low.addProduct(lanes.low, .zero)
    pass.high.addProduct(lanes.high, .zero)
    var kept = pass.filter(lanes, drops: choices.drops, cuts: choices.cuts, clips: choices.clips)
    if choices.scales { kept = Lanes(low: kept.low * factor, high: kept.high * factor) }
    row[2 &* tile] = kept.low
    row[2 &* tile &+ 1] = kept.high
  }

  /// Add the row's magnitudes up, before and after its filter, without filling it.
  @inline(never)
  func magnitudes<Drops: Choice, Cuts: Choice>(
    drops _: Drops.Type, cuts _: Cuts.Type
  ) -> (poison: Double, all: Double, kept: Double) {
    let (drops, cuts) = (Drops.isYes, Cuts.isYes)
    var pass = Pass(least: SIMD8(repeating: least), most: SIMD8(repeating: most), narrow: narrow)
    let whole = length / 16
    for tile in 0..<whole {
      if drops, tile % 16 == 0 { pass.bits = mask![tile / 16] }
      add(difference(tile &* (16 &* Element.size)), &pass, drops, cuts)
    }
    if length > 16 * whole {
      if drops, whole % 16 == 0 { pass.bits = mask![whole / 16] }
      add(tail, &pass, drops, cuts)
    }
    // A difference that is not finite makes its sum so.
    let poison = laneSum(pass.low * 0 + pass.high * 0)
    return (poison, laneSum(pass.low) + laneSum(pass.high), laneSum(pass.keptLow) + laneSum(pass.keptHigh))
  }

  @inline(__always)
  private func add(_ lanes: Lanes<Scalar>, _ pass: inout Pass, _ drops: Bool, _ cuts: Bool) {
    let all = Lanes(low: Scalar.magnitudes(lanes.low, narrow: false), high: Scalar.magnitudes(lanes.high, narrow: false))
    let kept = pass.filter(all, drops: drops, cuts: cuts, clips: cuts)
    pass.low += all.low
    pass.high += all.high
    pass.keptLow += kept.low
    pass.keptHigh += kept.high
  }

  /// Add the squares of the row's differences up, without filling it.
  @inline(never)
  func squares() -> (poison: Double, sum: Double) {
    var (low, high) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
    for tile in 0..<length / 16 {
      let lanes = difference(tile &* (16 &* Element.size))
      low.addProduct(lanes.low, lanes.low)
      high.addProduct(lanes.high, lanes.high)
    }
    if length % 16 > 0 {
      let lanes = tail
      low.addProduct(lanes.low, lanes.low)
      high.addProduct(lanes.high, lanes.high)
    }
    // What is not finite makes its sum so; a finite difference whose square overflows does too, and is told apart by the caller.
    return (laneSum(low * 0 + high * 0), laneSum(low) + laneSum(high))
  }

  // MARK: - Differences

  @inline(__always)
  private func difference(_ offset: Int) -> Lanes<Scalar> {
    let (x, y) = (Element.load(base, offset), Element.load(model, offset))
    return Lanes(low: y.low - x.low, high: y.high - x.high)
  }

  /// The last differences, which are fewer than 16, padded with zeros.
  private var tail: Lanes<Scalar> {
    // Not inlined: what a closure shares with a loop would be written to memory in each of its turns.
    @inline(never) get {
      let (done, size) = ((length & ~15) * Element.size, 16 * Element.size)
      return withUnsafeTemporaryAllocation(byteCount: 2 * size, alignment: 64) { padded in
        padded.initializeMemory(as: UInt8.self, repeating: 0)
        let (x, y) = (padded.baseAddress!, padded.baseAddress! + size)
        x.copyMemory(from: base + done, byteCount: length * Element.size - done)
        y.copyMemory(from: model + done, byteCount: length * Element.size - done)
        let (base, other) = (Element.load(x, 0), Element.load(y, 0))
        return Lanes(low: other.low - base.low, high: other.high - base.high)
      }
    }
  }
}
