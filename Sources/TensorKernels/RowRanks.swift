// Row ranks: keep masks of task vectors whose chance to stay grows with the rank of the magnitude in its row (DELLA).
//
//   keep d[e] with probability p + s (2 (rank - 1) / (n - 1) - 1), rank 1..n ascending in |d| within the row of n elements, equal
//   magnitudes by the lowest index; a row of one element: p
//
// Magnitudes are ranked in binary32, or in binary64 where an input is F64. The random words are those of Philox.swift: which
// elements stay depends on seed, tensor, model and element alone.
// Shapes: inputs [n], the base first; a row is `length` elements, `step` apart. Types: F32, F64, F16 or BF16, all the same.
// Cost: a radix sort of the row's bit patterns, three passes over pairs of pattern and place in 64 bits (eight passes over both apart in
// binary64), less those in which all patterns have the same digit.

public struct RowRanks: Sendable {
  /// Room for the patterns and words of a block and for the keys of a row.
  public final class Scratch {
    /// Of a block: UInt32, or UInt64 in binary64.
    fileprivate let patterns: UnsafeMutableRawPointer
    fileprivate let words: UnsafeMutablePointer<UInt32>
    /// Two rows each, to sort from one into the other.
    fileprivate let keys: UnsafeMutablePointer<UInt64>
    fileprivate let places: UnsafeMutablePointer<Int32>

    /// - Parameters:
    ///   - block: elements of the largest block.
    ///   - row: elements of a row.
    public init(block: Int, row: Int) {
      patterns = .allocate(byteCount: block * 8 + 128, alignment: 64)
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

    public static func bytes(block: Int, row: Int) -> Int { block * 12 + row * 24 + 384 }
  }

  public let stream: RandomStream
  /// Are magnitudes ranked in binary32?
  public let narrow: Bool
  /// Per rank the word below which an element stays; 2^32 keeps every word.
  private let limits: [UInt64]

  /// - Parameters:
  ///   - probability: p.
  ///   - slope: s: from p - s for the smallest to p + s for the largest.
  ///   - length: elements of a row.
  ///   - narrow: magnitudes are ranked in binary32.
  public init(probability: Double, slope: Double, length: Int, stream: RandomStream, narrow: Bool) {
    limits = (0..<length).map { rank in
      let share = length > 1 ? 2 * Double(rank) / Double(length - 1) - 1 : 0
      // As RandomStream.limit(keeping:) has it.
      return UInt64(min(max(probability + slope * share, 0), 1) * 0x1p32 + 0.5)
    }
    self.stream = stream
    self.narrow = narrow
  }

  /// Fill `mask` with 1 for what stays of |x_model - x_0|, 0 for what goes.
  /// - Parameters:
  ///   - model: index among the inputs.
  ///   - start: first element of the block, counted from the tensor's start.
  ///   - count: a multiple of `step` rows, which lie between one another.
  public func mask(
    _ inputs: KernelInputs, model: Int, start: Int, count: Int, step: Int, scratch: Scratch,
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
    let length = limits.count
    limits.withUnsafeBufferPointer { limits in
      for slab in stride(from: 0, to: count, by: length * step) {
        for first in slab..<slab + step {
          if narrow {
            let keys = sortPairs(scratch, first: first, length: length, step: step)
            for rank in 0..<length {
              let element = first + Int(truncatingIfNeeded: keys[rank] & 0xFFFF_FFFF) * step
              mask[element] = UInt64(words[element]) < limits[rank] ? 1 : 0
            }
          } else {
            let places = sort(scratch, first: first, length: length, step: step)
            for rank in 0..<length {
              let element = first + Int(places[rank]) * step
              mask[element] = UInt64(words[element]) < limits[rank] ? 1 : 0
            }
          }
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
      // The room ends with a spare 16.
      if narrow {
        let (first, second) = (Element.Arithmetic.patterns32(low), Element.Arithmetic.patterns32(high))
        var ordered = SIMD16<UInt32>(lowHalf: first, highHalf: second)
        if Element.isPaired { (ordered.evenHalf, ordered.oddHalf) = (first, second) }
        patterns.storeBytes(of: ordered, toByteOffset: tile * 64, as: SIMD16<UInt32>.self)
      } else {
        for i in 0..<16 {
          let position = Element.position(of: i)
          let value = position < 8 ? low[position] : high[position - 8]
          patterns.storeBytes(
            of: Element.Arithmetic.pattern(value, narrow: false), toByteOffset: tile * 128 + i * 8, as: UInt64.self)
        }
      }
    }
  }

  /// The row's patterns and places, ascending; equal patterns by their places.
  private func sortPairs(_ scratch: Scratch, first: Int, length: Int, step: Int) -> UnsafePointer<UInt64> {
    let patterns = scratch.patterns.assumingMemoryBound(to: UInt32.self) + first
    var (keys, others) = (scratch.keys, scratch.keys + length)
    // Digits of 11, 10 and 10 bits.
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: 4096) { space in
      let starts = space.baseAddress!
      starts.initialize(repeating: 0, count: 4096)
      for i in 0..<length {
        let pattern = patterns[i * step]
        keys[i] = UInt64(pattern) << 32 | UInt64(truncatingIfNeeded: i)
        starts[Int(pattern & 2047)] += 1
        starts[2048 + Int(pattern >> 11 & 1023)] += 1
        starts[3072 + Int(pattern >> 21)] += 1
      }
      for (offset, bins, shift) in [(0, 2048, UInt64(32)), (2048, 1024, 43), (3072, 1024, 53)] {
        let starts = starts + offset
        let mask = UInt64(bins - 1)
        // All the same: nothing to move.
        if Int(starts[Int(keys[0] >> shift & mask)]) == length { continue }
        var sum: Int32 = 0
        for bin in 0..<bins { (starts[bin], sum) = (sum, sum &+ starts[bin]) }
        for i in 0..<length {
          let key = keys[i]
          let bin = Int(truncatingIfNeeded: key >> shift & mask)
          others[Int(starts[bin])] = key
          starts[bin] &+= 1
        }
        swap(&keys, &others)
      }
    }
    return UnsafePointer(keys)
  }

  /// The row's places in ascending order of their binary64 patterns, equal ones as they come: a radix sort by bytes.
  private func sort(_ scratch: Scratch, first: Int, length: Int, step: Int) -> UnsafePointer<Int32> {
    let patterns = scratch.patterns.assumingMemoryBound(to: UInt64.self) + first
    var (keys, places) = (scratch.keys, scratch.places)
    var (otherKeys, otherPlaces) = (keys + length, places + length)
    for i in 0..<length {
      keys[i] = patterns[i * step]
      places[i] = Int32(truncatingIfNeeded: i)
    }
    withUnsafeTemporaryAllocation(of: Int.self, capacity: 256) { space in
      let starts = space.baseAddress!
      for shift in stride(from: UInt64(0), to: 64, by: 8) {
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
