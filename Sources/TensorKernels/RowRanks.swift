// Row ranks: keep masks of task vectors whose chance to stay grows with the rank of the magnitude in its row (DELLA).
//
//   keep d[e] with probability p + s (2 (rank - 1) / (n - 1) - 1), rank 1..n ascending in |d| within the row of n elements, equal
//   magnitudes by the lowest index; a row of one element: p
//
// Magnitudes are ranked in binary32, or in binary64 where an input is F64. The random words are those of Philox.swift: which
// elements stay depends on seed, tensor, model and element alone.
// Shapes: inputs [n], the base first; a row is `length` elements, `step` apart. Types: F32, F64, F16 or BF16, all the same.
// No row is sorted: a histogram of its magnitudes bounds each element's rank, the bounds decide against the random word in all cases
// but a few of a row, and only for these the rank is counted out (RankedRow). Cost: the words, and about 10 instructions per element.

public struct RowRanks: Sendable {
  /// Room for a worker's rows.
  public final class Scratch {
    /// UInt32, or UInt64 in binary64.
    fileprivate let patterns: UnsafeMutableRawPointer
    fileprivate let words: UnsafeMutablePointer<UInt32>
    fileprivate let row: RankedRow.Scratch

    /// - Parameters:
    ///   - length: elements of a row.
    ///   - step: from one to the next.
    public init(length: Int, step: Int) {
      let part = RowRanks.part(length: length, step: step)
      patterns = .allocate(byteCount: part * 8 + 128, alignment: 64)
      words = .allocate(capacity: part + 64)
      row = RankedRow.Scratch(length: length)
    }

    deinit {
      patterns.deallocate()
      words.deallocate()
    }

    public static func bytes(length: Int, step: Int) -> Int {
      RowRanks.part(length: length, step: step) * 12 + RankedRow.Scratch.bytes(length: length) + 384
    }
  }

  public let stream: RandomStream
  /// Are magnitudes ranked in binary32?
  public let narrow: Bool
  private let length: Int
  /// Per rank the word below which an element stays, the last one twice; 2^32 keeps every word.
  private let limits: [UInt64]

  /// - Parameters:
  ///   - probability: p.
  ///   - slope: s: from p - s for the smallest to p + s for the largest.
  ///   - length: elements of a row.
  ///   - narrow: magnitudes are ranked in binary32.
  public init(probability: Double, slope: Double, length: Int, stream: RandomStream, narrow: Bool) {
    self.length = length
    limits = (0...length).map { rank in
      let share = length > 1 ? 2 * Double(min(rank, length - 1)) / Double(length - 1) - 1 : 0
      // As RandomStream.limit(keeping:) has it.
      return UInt64(min(max(probability + slope * share, 0), 1) * 0x1p32 + 0.5)
    }
    self.stream = stream
    self.narrow = narrow
  }

  /// Elements that are taken at a time: whole rows, and no fewer than make a loop worth it.
  private static func part(length: Int, step: Int) -> Int {
    let slab = length * step
    return (2047 + slab) / slab * slab
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
    case .bf16: parts(BF16Element.self, inputs, model, start, count, step, scratch, mask)
    case .f16: parts(F16Element.self, inputs, model, start, count, step, scratch, mask)
    case .f32: parts(F32Element.self, inputs, model, start, count, step, scratch, mask)
    case .f64: parts(F64Element.self, inputs, model, start, count, step, scratch, mask)
    default: preconditionFailure("row ranks have no kernel for \(inputs.dtype)")
    }
  }

  private func parts<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ model: Int, _ start: Int, _ count: Int, _ step: Int, _ scratch: Scratch,
    _ mask: UnsafeMutablePointer<UInt8>
  ) {
    let part = Self.part(length: length, step: step)
    for from in stride(from: 0, to: count, by: part) {
      let size = min(part, count - from)
      patterns(Element.self, inputs, model, from, size, scratch)
      let shift = (start + from) % 4
      stream.fill(scratch.words, start: start + from - shift, count: size + shift)
      let words = scratch.words + shift
      if narrow {
        rows(scratch.patterns.assumingMemoryBound(to: UInt32.self), words, size, step, scratch.row, mask + from)
      } else {
        rows(scratch.patterns.assumingMemoryBound(to: UInt64.self), words, size, step, scratch.row, mask + from)
      }
    }
  }

  @inline(__always)
  private func rows<Pattern: MagnitudePattern>(
    _ patterns: UnsafePointer<Pattern>, _ words: UnsafePointer<UInt32>, _ count: Int, _ step: Int, _ scratch: RankedRow.Scratch,
    _ mask: UnsafeMutablePointer<UInt8>
  ) {
    limits.withUnsafeBufferPointer { limits in
      let row = RankedRow(limits: limits.baseAddress!, length: length, scratch: scratch)
      for slab in stride(from: 0, to: count, by: length * step) {
        for first in slab..<slab + step { row.mask(patterns + first, words + first, step: step, into: mask + first) }
      }
    }
  }

  @inline(__always)
  private func patterns<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ model: Int, _ from: Int, _ count: Int, _ scratch: Scratch
  ) {
    let patterns = scratch.patterns
    Rows<Element.Arithmetic>.tiles(Element.self, inputs, from: from, count: count) { tile, table, byte in
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
}
