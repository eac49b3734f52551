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

extension TaskVectors {
  /// Count the magnitudes of a block against the brackets. The block starts at a multiple of a chunk.
  /// - Parameters:
  ///   - brackets: per model, or several for all models in turn; nil: nothing is counted.
  ///   - counts: each bracket's counters from its `offset` on.
  ///   - cells: bracket i's elements in slot s of cell c, at `(i * cellCount + c) * MagnitudeBracket.slots + s`.
  ///   - cellCount: 0: all brackets and cells share one, which means nothing.
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
    return LanePlaces.withChunk { places in
      chunks(Element.self, block) { chunk in
        let (rows, length, vectors) = (chunk.rows, chunk.length, chunk.vectors)
        for (place, bracket) in brackets.enumerated() {
          guard let bracket else { continue }
          let k = place % models
          let counters = counts + bracket.offset
          let own = cells + (cellCount > 0 ? (place * cellCount + chunk.start / Self.cell) * MagnitudeBracket.slots : 0)
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
            let listed = places.fill(rows, k, vectors: vectors, from: least, to: most, narrow: narrow, above: &above)
            let row = rows[k]
            let (low, shift) = (bracket.low, UInt64(bracket.shift))
            let rest = UInt64(1) << shift &- 1
            bracket.slots.withUnsafeBufferPointer { slots in
              for i in 0..<listed {
                let place = Scalar.pattern(row[places[i]], narrow: narrow) &- low
                // A number below 2^63 other than 0 has an opposite with the top bit.
                let half = Int(truncatingIfNeeded: (place &>> shift) &<< 1 | (0 &- (place & rest)) &>> 63)
                counters[1 &+ half] &+= 1
                own[Int(slots[half])] &+= 1
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
}
