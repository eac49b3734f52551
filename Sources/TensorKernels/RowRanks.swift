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
  /// Room for the patterns and words of a block and for the keys of a row.
  public final class Scratch {
    fileprivate let patterns: UnsafeMutablePointer<UInt64>
    fileprivate let words: UnsafeMutablePointer<UInt32>
    /// Two rows each, to sort from one into the other.
    fileprivate let keys: UnsafeMutablePointer<UInt64>
    fileprivate let places: UnsafeMutablePointer<Int32>

    /// - Parameters:
    ///   - block: elements of the largest block.
    ///   - row: elements of a row.
    public init(block: Int, row: Int) {
      patterns = .allocate(capacity: block)
      words = .allocate(capacity: block + 64)
      keys = .allocate(capacity: 2 * row)
      places = .allocate(capacity: 2 * row)
    }

    deinit {
      patterns.deallocate()
      words.deallocate()
      keys.deallocate()
      places.deallocate()
    }

    public static func bytes(block: Int, row: Int) -> Int { block * 12 + row * 24 + 256 }
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
    let shift = start % 4
    stream.fill(scratch.words, start: start - shift, count: count + shift)
    let words = scratch.words + shift
    for slab in stride(from: 0, to: count, by: length * step) {
      for offset in 0..<step {
        let first = slab + offset
        let places = sort(scratch, first: first, length: length, step: step)
        for rank in 0..<length {
          let share = length > 1 ? 2 * Double(rank) / Double(length - 1) - 1 : 0
          let chance = min(max(probability + slope * share, 0), 1)
          let element = first + Int(places[rank]) * step
          // As RandomStream.limit(keeping:) has it, where 2^32 keeps every word.
          mask[element] = UInt64(words[element]) < UInt64(chance * 0x1p32 + 0.5) ? 1 : 0
        }
      }
    }
  }

  @inline(__always)
  private func patterns<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ model: Int, _ count: Int, _ scratch: Scratch
  ) {
    let patterns = scratch.patterns
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

  /// The row's places in ascending order of their patterns, equal ones as they come: a radix sort by bytes.
  private func sort(_ scratch: Scratch, first: Int, length: Int, step: Int) -> UnsafePointer<Int32> {
    var (keys, places) = (scratch.keys, scratch.places)
    var (otherKeys, otherPlaces) = (keys + length, places + length)
    for i in 0..<length {
      keys[i] = scratch.patterns[first + i * step]
      places[i] = Int32(truncatingIfNeeded: i)
    }
    withUnsafeTemporaryAllocation(of: Int.self, capacity: 256) { space in
      let starts = space.baseAddress!
      for shift in stride(from: UInt64(0), to: narrow ? 32 : 64, by: 8) {
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
    return UnsafePointer(places)
  }
}
