// One row of a chunk of task vectors, made in one pass over its input and the base.
//
//   d = x_i - x_0;   0 where the mask is 0;   0 where |d| > most, and where |d| < least;   times f
//
// Shapes, types and NaN rule: TaskVectors.swift. Arithmetic: a difference and a product in the elements' arithmetic type, each
// rounded once. Traffic: 2 * size bytes read and one row in L1 written per element.

struct TaskVectorRow<Element: KernelElement> {
  typealias Scalar = Element.Arithmetic

  /// What a random drop has kept of the chunk.
  var mask: UnsafePointer<SIMD8<Int32>>?
  /// The least magnitude that stays, as magnitudes are ranked.
  var least: Scalar = 0
  /// The largest magnitude that stays; only looked at where there is a least one too.
  var most = Scalar.infinity
  /// Are magnitudes ranked in binary32?
  var narrow = true
  var factor: Scalar = 1
  /// Elements that `cuts` has left, after a run.
  private(set) var kept = 0

  private let inputs: KernelInputs
  private let model: Int
  private let from: Int
  private let length: Int
  private let rows: Rows<Scalar>

  /// - Parameters:
  ///   - k: the model, whose row is filled.
  ///   - offset: where the chunk begins in the block.
  ///   - length: elements of the chunk; the row is padded with zeros to a multiple of 16.
  @inline(__always)
  init(_ block: TaskVectorBlock, _ offset: Int, _ length: Int, _ rows: Rows<Scalar>, _ k: Int) {
    (inputs, model, from, self.length, self.rows) = (block.inputs, k, block.from + offset, length, rows)
  }

  private struct Sums {
    let least: SIMD8<Scalar>
    let most: SIMD8<Scalar>
    let factor: SIMD8<Scalar>
    var low = SIMD8<Scalar>.zero
    var high = SIMD8<Scalar>.zero
    var trimmed = SIMD8<Scalar.Count>.zero
    var others = SIMD8<Scalar.Count>.zero
  }

  /// Fill the row.
  /// - Returns: 0, or NaN if a difference is not finite.
  @inline(never)
  mutating func run<Drops: Choice, Cuts: Choice, Clips: Choice, Scales: Choice>(
    drops _: Drops.Type, cuts _: Cuts.Type, clips _: Clips.Type, scales _: Scales.Type
  ) -> Double {
    let choices = (drops: Drops.isYes, cuts: Cuts.isYes, clips: Clips.isYes, scales: Scales.isYes)
    var sums = Sums(
      least: SIMD8(repeating: least), most: SIMD8(repeating: most), factor: SIMD8(repeating: factor))
    let whole = length / 16
    let (base, model) = (inputs.table[0] + from * Element.size, inputs.table[model + 1] + from * Element.size)
    var bits = SIMD8<Int32>.zero
    for tile in 0..<whole {
      if choices.drops, tile % 16 == 0 { bits = mask![tile / 16] }
      let offset = tile &* (16 &* Element.size)
      let (x, y) = (Element.load(base, offset), Element.load(model, offset))
      set(tile, Lanes(low: y.low - x.low, high: y.high - x.high), &sums, &bits, choices)
    }
    let rest = length - 16 * whole
    if rest > 0 {
      withPaddedTail(inputs, size: Element.size, from: from + 16 * whole, count: rest) { table in
        let (x, y) = (Element.load(table[0], 0), Element.load(table[self.model + 1], 0))
        if choices.drops, whole % 16 == 0 { bits = mask![whole / 16] }
        set(whole, Lanes(low: y.low - x.low, high: y.high - x.high), &sums, &bits, choices)
      }
    }
    let trimmed = -Int((sums.trimmed &+ sums.others).wrappedSum())
    kept = 16 * ((length + 15) / 16) - trimmed
    return laneSum(sums.low + sums.high)
  }

  @inline(__always)
  private func set(
    _ tile: Int, _ lanes: Lanes<Scalar>, _ sums: inout Sums, _ bits: inout SIMD8<Int32>,
    _ choices: (drops: Bool, cuts: Bool, clips: Bool, scales: Bool)
  ) {
    var (low, high) = (lanes.low, lanes.high)
    sums.low.addProduct(low, .zero)
    sums.high.addProduct(high, .zero)
    if choices.drops {
      low = Scalar.kept(low, mask: (bits &<< 31) &>> 31)
      high = Scalar.kept(high, mask: (bits &<< 30) &>> 31)
      bits = bits &>> 2
    }
    if choices.cuts {
      let (rank, other) = (Scalar.magnitudes(low, narrow: narrow), Scalar.magnitudes(high, narrow: narrow))
      var (first, second) = (Scalar.isBelow(rank, sums.least), Scalar.isBelow(other, sums.least))
      if choices.clips {
        first |= Scalar.isBelow(sums.most, rank)
        second |= Scalar.isBelow(sums.most, other)
      }
      (low, high) = (Scalar.cleared(low, where: first), Scalar.cleared(high, where: second))
      sums.trimmed &+= first
      sums.others &+= second
    }
    if choices.scales { (low, high) = (low * sums.factor, high * sums.factor) }
    rows.set(model, 2 &* tile, low)
    rows.set(model, 2 &* tile &+ 1, high)
  }
}
