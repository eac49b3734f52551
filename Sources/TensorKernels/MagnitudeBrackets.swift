// Exact order statistics of |d_i| in about one sweep: a sample says between which two magnitudes the wanted one must lie, and a
// sweep counts what is above and inside. Right whatever the sample says; a bad one only costs another sweep.
//
//   above_i += [pattern > high_i],   inside_i[half((pattern - low_i) >> shift_i)] += 1 where low_i <= pattern <= high_i
//
// Patterns are the bits of a magnitude, which order non-negative floats. A bin has two halves: its lowest pattern, and the others. The
// differences of 16-bit models have few bits, so the wanted magnitude is usually the lowest of its bin, and then it is known after this
// one sweep. The most frequent of these, as the sample has them, are also counted cell by cell, so that a cut through equal magnitudes
// can be placed without another sweep. Where low = high nothing is scattered: the count of equals is what is neither above nor below.
// Shapes, types and NaN rule: TaskVectors.swift. Counts are whole numbers, so the order of work does not matter.
// Traffic: (K + 1) * size bytes per element.

/// Between which patterns one model's threshold is looked for.
public struct MagnitudeBracket: Sendable {
  /// A multiple of a bin's patterns.
  public let low: UInt64
  public let high: UInt64
  /// The model's place among the counters: first those above `high`, then the halves of the bins.
  public let offset: Int
  /// Patterns of a bin, as a power of two.
  public let shift: Int
  /// Per half of a bin the slot of its cell counters, from 1; 0: it has none.
  let slots: [UInt8]

  /// At most this many bins, and one more for the alignment.
  static let binBits = 11
  /// Cell counters per bracket; the first is of no use.
  public static let slots = 8

  /// - Parameters:
  ///   - offset: where the bracket's counters begin.
  ///   - candidates: patterns to count cell by cell, `slots - 1` at most; those that are not the lowest of a bin are not counted.
  public init(low: UInt64, high: UInt64, offset: Int, candidates: [UInt64] = []) {
    let shift = max(0, 64 - (high - low).leadingZeroBitCount - Self.binBits)
    (self.low, self.high, self.offset, self.shift) = ((low >> UInt64(shift)) << UInt64(shift), high, offset, shift)
    let first = self.low
    var slots = [UInt8](repeating: 0, count: 2 * (Int((high - first) >> UInt64(shift)) + 1))
    for (slot, pattern) in (low == high ? [low] : candidates).prefix(Self.slots - 1).enumerated() where pattern >= first {
      let half = 2 * Int((pattern - first) >> UInt64(shift))
      if half < slots.count, (pattern - first) % (1 << UInt64(shift)) == 0 { slots[half] = UInt8(slot + 1) }
    }
    self.slots = slots
  }

  public var counters: Int { slots.count + 1 }
  var isSingle: Bool { low == high }

  /// The lowest pattern of the bin of which `half` is a half.
  public func pattern(_ half: Int) -> UInt64 { low + UInt64(half / 2) << UInt64(shift) }

  /// The slot that counts a half cell by cell; nil: none.
  public func slot(_ half: Int) -> Int? { slots[half] > 0 ? Int(slots[half]) : nil }
}

/// Magnitudes of all elements of a tensor, or of a part that is spread evenly over it.
public final class MagnitudeSample: @unchecked Sendable {
  // @unchecked: each place is written by the worker that has its stretch, and read when all are done.
  private static let piece = KernelGeometry.chunk

  let models: Int
  let spacing: Int
  /// The stretches to look at; nil: the whole tensor.
  public let ranges: [Range<Int>]?
  /// Elements looked at, per model.
  public let count: Int
  private let room: Int
  private let patterns: UnsafeMutablePointer<UInt64>

  /// - Parameter elements: of the tensor.
  public init(models: Int, elements: Int) {
    self.models = models
    let pieces = Self.pieces(models: models, elements: elements)
    if elements <= pieces * Self.piece {
      (spacing, ranges, count) = (max(1, elements), nil, elements)
    } else {
      let spacing = elements / pieces / Self.piece * Self.piece
      self.spacing = spacing
      ranges = (0..<pieces).map { $0 * spacing..<$0 * spacing + Self.piece }
      count = pieces * Self.piece
    }
    room = count
    patterns = .allocate(capacity: max(1, (models + 1) * room))
  }

  deinit { patterns.deallocate() }

  /// Of a small tensor an eighth: to sort a sample costs more per element than to count.
  private static func pieces(models: Int, elements: Int) -> Int {
    min(models <= 16 ? 32 : 8, max(2, elements / (8 * piece)))
  }

  public static func bytes(models: Int, elements: Int) -> Int {
    (models + 1) * min(elements, pieces(models: models, elements: elements) * piece) * 8
  }

  public var isWhole: Bool { ranges == nil }

  /// Where the pattern of an element goes.
  func place(_ model: Int, _ element: Int) -> UnsafeMutablePointer<UInt64> {
    let inPiece = isWhole ? element : element / spacing * Self.piece + element % spacing
    return patterns + model * room + inPiece
  }

  /// The `rank`-th largest pattern of a model (from 1), how many are above it and how many equal to it.
  ///
  /// Every 16th pattern of a large sample says between which two it must be; only those inside are ranked, if it is there.
  public func largest(_ rank: Int, model: Int, narrow: Bool) -> (pattern: UInt64, above: Int, equal: Int) {
    let scratch = patterns + models * room
    let all = patterns + model * room
    guard count >= 8192 else { return largest(rank, of: all, count, narrow, scratch) }
    let part = count / 16
    let some = scratch + (count - part)
    let share = Double(rank) / Double(count)
    let spread = 4 * (Double(part) * share * (1 - share)).squareRoot() + 4
    let (first, last) = (Int(share * Double(part) - spread), Int(share * Double(part) + spread) + 1)
    for i in 0..<part { some[i] = all[16 * i + i % 16] }
    let high = first >= 1 ? largest(first, of: some, part, narrow, scratch).pattern : .max
    let low = last <= part ? largest(last, of: some, part, narrow, scratch).pattern : 0
    var (above, inside) = (0, 0)
    for i in 0..<count {
      let pattern = all[i]
      scratch[inside] = pattern
      above &+= pattern > high ? 1 : 0
      inside &+= pattern >= low && pattern <= high ? 1 : 0
    }
    guard above < rank, rank <= above + inside else { return largest(rank, of: all, count, narrow, scratch) }
    let found = largest(rank - above, of: scratch, inside, narrow, scratch)
    return (found.pattern, above + found.above, found.equal)
  }

  /// Digits of 11 bits from the top; after each, only what shares the digits so far is looked at.
  private func largest(
    _ rank: Int, of patterns: UnsafeMutablePointer<UInt64>, _ count: Int, _ narrow: Bool,
    _ scratch: UnsafeMutablePointer<UInt64>
  ) -> (pattern: UInt64, above: Int, equal: Int) {
    var source = patterns
    var (left, shift, above, prefix) = (count, narrow ? 31 : 63, 0, UInt64(0))
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: 2048) { bins in
      while shift > 0 {
        let width = min(11, shift)
        shift -= width
        let mask = UInt64(1) << UInt64(width) - 1
        bins.update(repeating: 0)
        for i in 0..<left { bins[Int(source[i] >> UInt64(shift) & mask)] += 1 }
        var bin = Int(mask)
        while bin > 0, above + Int(bins[bin]) < rank {
          above += Int(bins[bin])
          bin -= 1
        }
        var kept = 0
        for i in 0..<left {
          let pattern = source[i]
          scratch[kept] = pattern
          kept &+= Int(pattern >> UInt64(shift) & mask) == bin ? 1 : 0
        }
        (source, left, prefix) = (scratch, kept, prefix << UInt64(width) | UInt64(bin))
      }
    }
    return (prefix, above, left)
  }
}

extension MagnitudeSample {
  /// The patterns from `low` to `high` that a model's sample has more than once, the most frequent first, `count` at most.
  public func frequent(from low: UInt64, to high: UInt64, model: Int, count: Int) -> [UInt64] {
    let inside = UnsafeBufferPointer(start: patterns + model * room, count: self.count).filter { $0 >= low && $0 <= high }
      .sorted()
    var runs: [(pattern: UInt64, length: Int)] = []
    for pattern in inside {
      if runs.last?.pattern == pattern { runs[runs.count - 1].length += 1 } else { runs.append((pattern, 1)) }
    }
    return runs.filter { $0.length > 1 }.sorted { ($1.length, $0.pattern) < ($0.length, $1.pattern) }.prefix(count).map(
      \.pattern)
  }
}

extension TaskVectors {
  /// Take a block's magnitudes into a sample.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addSample(_ block: TaskVectorBlock, to sample: MagnitudeSample) -> Double {
    switch block.inputs.dtype {
    case .bf16: take(BF16Element.self, block, sample)
    case .f16: take(F16Element.self, block, sample)
    case .f32: take(F32Element.self, block, sample)
    case .f64: take(F64Element.self, block, sample)
    default: preconditionFailure("magnitude sample has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func take<Element: KernelElement>(_: Element.Type, _ block: TaskVectorBlock, _ sample: MagnitudeSample) -> Double {
    let narrow = self.narrow
    return chunks(Element.self, block) { rows, offset, length, _ in
      let whole = length & ~15
      for k in 0..<models {
        let row = rows[k]
        let place = sample.place(k, block.start + offset)
        // In whichever order the row holds them: a sample has none.
        for i in 0..<whole { place[i] = Element.Arithmetic.pattern(row[i], narrow: narrow) }
        for i in whole..<length {
          place[i] = Element.Arithmetic.pattern(row[whole + Element.position(of: i & 15)], narrow: narrow)
        }
      }
    }
  }

  /// Count the magnitudes of a block against the brackets. The block starts at a multiple of a chunk.
  /// - Parameters:
  ///   - brackets: per model, or several for all models in turn; nil: nothing is counted.
  ///   - counts: each bracket's counters from its `offset` on.
  ///   - cells: bracket i's elements in slot s of cell c, at `(i * cellCount + c) * MagnitudeBracket.slots + s`.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addCounts(
    _ block: TaskVectorBlock, _ brackets: [MagnitudeBracket?], into counts: UnsafeMutablePointer<UInt64>,
    cells: UnsafeMutablePointer<Int>, cellCount: Int
  ) -> Double {
    switch block.inputs.dtype {
    case .bf16: count(BF16Element.self, block, brackets, counts, cells, cellCount)
    case .f16: count(F16Element.self, block, brackets, counts, cells, cellCount)
    case .f32: count(F32Element.self, block, brackets, counts, cells, cellCount)
    case .f64: count(F64Element.self, block, brackets, counts, cells, cellCount)
    default: preconditionFailure("magnitude count has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func count<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ brackets: [MagnitudeBracket?], _ counts: UnsafeMutablePointer<UInt64>,
    _ cells: UnsafeMutablePointer<Int>, _ cellCount: Int
  ) -> Double {
    typealias Scalar = Element.Arithmetic
    let narrow = self.narrow
    return chunks(Element.self, block) { rows, offset, length, vectors in
      for (place, bracket) in brackets.enumerated() {
        guard let bracket else { continue }
        let k = place % models
        let counters = counts + bracket.offset
        let own = cells + (place * cellCount + (block.start + offset) / Self.cell) * MagnitudeBracket.slots
        let least = SIMD8<Scalar>(repeating: Scalar.value(pattern: bracket.low, narrow: narrow))
        let most = SIMD8<Scalar>(repeating: Scalar.value(pattern: bracket.high, narrow: narrow))
        // The padding of the last 16 is 0.
        let padding = bracket.low == 0 ? 8 * vectors - length : 0
        var above = SIMD8<Scalar.Count>.zero
        if bracket.isSingle {
          var below = SIMD8<Scalar.Count>.zero
          for v in 0..<vectors {
            let rank = Scalar.magnitudes(rows.vector(k, v), narrow: narrow)
            above &-= Scalar.isBelow(most, rank)
            below &-= Scalar.isBelow(rank, least)
          }
          let equal = 8 * vectors - Int(above.wrappedSum()) - Int(below.wrappedSum()) - padding
          counters[1] += UInt64(equal)
          own[1] += equal
        } else {
          let row = rows[k]
          let (low, shift) = (bracket.low, UInt64(bracket.shift))
          let rest = UInt64(1) << shift &- 1
          bracket.slots.withUnsafeBufferPointer { slots in
            for v in 0..<vectors {
              let rank = Scalar.magnitudes(rows.vector(k, v), narrow: narrow)
              let over = Scalar.isBelow(most, rank)
              above &-= over
              // A byte for each lane, 1 where the magnitude is inside: few are.
              var inside = ~Scalar.bytes(over | Scalar.isBelow(rank, least)) & 0x0101_0101_0101_0101
              while inside != 0 {
                let place = Scalar.pattern(row[8 * v + inside.trailingZeroBitCount / 8], narrow: narrow) &- low
                // A number below 2^63 other than 0 has an opposite with the top bit.
                let half = Int(truncatingIfNeeded: (place &>> shift) &<< 1 | (0 &- (place & rest)) &>> 63)
                counters[1 &+ half] &+= 1
                own[Int(slots[half])] &+= 1
                inside &= inside &- 1
              }
            }
            counters[1] -= UInt64(padding)
            own[Int(slots[0])] -= padding
          }
        }
        counters[0] += UInt64(above.wrappedSum())
      }
    }
  }
}
