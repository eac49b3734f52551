// Row ranks: keep masks of task vectors whose chance to stay grows with the rank of the magnitude in its row (DELLA).
//
//   keep d[e] with probability p + s (2 (rank - 1) / (n - 1) - 1), rank 1..n ascending in |d| within the row of n elements, equal
//   magnitudes by the lowest index; a row of one element: p
//
// Magnitudes are ranked in binary32, or in binary64 where an input is F64. The random words are those of Philox.swift: which
// elements stay depends on seed, tensor, model and element alone.
// Shapes: inputs [n], the base first; a row is `length` elements, `step` apart. Types: F32, F64, F16 or BF16, all the same.
// Cost: a radix sort of the row's bit patterns, four passes (eight in binary64) of about 10 instructions per element.

public struct RowRanks: Sendable {
  /// One row of keys and places, and room to sort them.
  public final class Scratch {
    fileprivate var keys: [UInt64] = []
    fileprivate var places: [Int32] = []
    fileprivate var otherKeys: [UInt64] = []
    fileprivate var otherPlaces: [Int32] = []
    fileprivate var words: [UInt32] = []
    fileprivate var patterns: [UInt64] = []

    public init() {}

    /// Bytes for blocks of `block` elements and rows of `row`.
    public static func bytes(block: Int, row: Int) -> Int { block * 12 + row * 24 }
  }

  /// p.
  public let probability: Double
  /// s: from p - s for the smallest to p + s for the largest.
  public let slope: Double
  public let stream: RandomStream
  /// Are magnitudes ranked in binary32?
  public let narrow: Bool

  public init(probability: Double, slope: Double, stream: RandomStream, narrow: Bool) {
    self.probability = probability
    self.slope = slope
    self.stream = stream
    self.narrow = narrow
  }

  /// Fill `mask` with 1 for what stays of |x_model - x_0|, 0 for what goes.
  /// - Parameters:
  ///   - model: index among the inputs.
  ///   - start: first element of the block, counted from the tensor's start.
  ///   - count: a multiple of `length * step`, which hold `step` whole rows.
  public func mask(
    _ inputs: KernelInputs, model: Int, start: Int, count: Int, length: Int, step: Int, scratch: Scratch,
    into mask: UnsafeMutablePointer<UInt8>
  ) {
    switch inputs.dtype {
    case .bf16: patterns(BF16Element.self, inputs, model, count, scratch)
    case .f16: patterns(F16Element.self, inputs, model, count, scratch)
    case .f32: patterns(F32Element.self, inputs, model, count, scratch)
    case .f64: patterns(F64Element.self, inputs, model, count, scratch)
    default: preconditionFailure("row ranks have no kernel for \(inputs.dtype)")
    }
    fillWords(scratch, start, count)
    let shift = start % 4
    for slab in stride(from: 0, to: count, by: length * step) {
      for offset in 0..<step {
        let first = slab + offset
        sort(scratch, first: first, length: length, step: step)
        for rank in 0..<length {
          let share = length > 1 ? 2 * Double(rank) / Double(length - 1) - 1 : 0
          let limit = RandomStream.limit(keeping: min(max(probability + slope * share, 0), 1))
          let element = first + Int(scratch.places[rank]) * step
          mask[element] = limit.map { scratch.words[shift + element] < $0 ? 1 : 0 } ?? 1
        }
      }
    }
  }

  private func fillWords(_ scratch: Scratch, _ start: Int, _ count: Int) {
    let shift = start % 4
    let room = (count + shift + 31) / 32 * 32
    if scratch.words.count < room { scratch.words = [UInt32](repeating: 0, count: room) }
    scratch.words.withUnsafeMutableBufferPointer {
      stream.fill($0.baseAddress!, start: start - shift, count: count + shift)
    }
  }

  @inline(__always)
  private func patterns<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ model: Int, _ count: Int, _ scratch: Scratch
  ) {
    if scratch.patterns.count < count { scratch.patterns = [UInt64](repeating: 0, count: count) }
    scratch.patterns.withUnsafeMutableBufferPointer { patterns in
      Rows<Element.Arithmetic>.tiles(Element.self, inputs, from: 0, count: count) { tile, table, byte in
        let (base, lanes) = (Element.load(table[0], byte), Element.load(table[model], byte))
        let (low, high) = (lanes.low - base.low, lanes.high - base.high)
        for i in 0..<min(16, count - tile * 16) {
          let position = Element.position(of: i)
          let value = position < 8 ? low[position] : high[position - 8]
          patterns[tile * 16 + i] = Element.Arithmetic.pattern(value, narrow: narrow)
        }
      }
    }
  }

  /// The row's places in ascending order of their patterns, equal ones as they come: a radix sort by bytes.
  private func sort(_ scratch: Scratch, first: Int, length: Int, step: Int) {
    if scratch.keys.count < length {
      scratch.keys = [UInt64](repeating: 0, count: length)
      scratch.otherKeys = scratch.keys
      scratch.places = [Int32](repeating: 0, count: length)
      scratch.otherPlaces = scratch.places
    }
    for i in 0..<length {
      scratch.keys[i] = scratch.patterns[first + i * step]
      scratch.places[i] = Int32(truncatingIfNeeded: i)
    }
    withUnsafeTemporaryAllocation(of: Int.self, capacity: 256) { starts in
      for shift in stride(from: 0, to: narrow ? 32 : 64, by: 8) {
        starts.initialize(repeating: 0)
        for i in 0..<length { starts[Int(scratch.keys[i] >> UInt64(shift) & 255)] += 1 }
        // All the same: nothing to move.
        if starts[Int(scratch.keys[0] >> UInt64(shift) & 255)] == length { continue }
        var sum = 0
        for bin in 0..<256 { (starts[bin], sum) = (sum, sum + starts[bin]) }
        for i in 0..<length {
          let bin = Int(scratch.keys[i] >> UInt64(shift) & 255)
          scratch.otherKeys[starts[bin]] = scratch.keys[i]
          scratch.otherPlaces[starts[bin]] = scratch.places[i]
          starts[bin] += 1
        }
        swap(&scratch.keys, &scratch.otherKeys)
        swap(&scratch.places, &scratch.otherPlaces)
      }
    }
  }
}
