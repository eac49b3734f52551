// A sample of the magnitudes of a tensor: what an order statistic is, or between which two patterns it may be looked for.
//
// A tensor of up to 2048 elements is looked at in full; of larger ones 2 to 32 chunks (8 from 17 models on), evenly spread.
// Patterns are the bits of a magnitude, which order non-negative floats.
// Exact statistics of a sample come by radix, 11 bits at a time. Its brackets come from one histogram: 256 bins for each of the 8 powers
// of two below the largest, each in two halves (MagnitudeBrackets.swift); what is further below shares one bin.
// Memory: (K + 1) * count * 8 bytes.

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
  private var isReleased = false

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

  deinit { release() }

  /// Let go of the memory: of a sample that is not looked at any more, but held by what has taken it.
  public func release() {
    if !isReleased { patterns.deallocate() }
    isReleased = true
  }

  /// Of a small tensor an eighth: to take and rank a sample costs more per element than to count.
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

  /// A model's patterns, in any order.
  func all(model: Int) -> UnsafeBufferPointer<UInt64> { UnsafeBufferPointer(start: patterns + model * room, count: count) }

  /// The `rank`-th largest pattern of a model (from 1), how many are above it and how many equal to it.
  ///
  /// Digits of 11 bits from the top; after each, only what shares the digits so far is looked at.
  public func largest(_ rank: Int, model: Int, narrow: Bool) -> (pattern: UInt64, above: Int, equal: Int) {
    let scratch = patterns + models * room
    var source = patterns + model * room
    var (left, shift, above, prefix) = (self.count, narrow ? 31 : 63, 0, UInt64(0))
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
  /// A part of the patterns, and what stands out in it.
  public struct Bracket: Equatable, Sendable {
    public var low: UInt64
    public var high: UInt64
    /// Patterns inside that are met more than once, the most frequent first.
    public var frequent: [UInt64]
  }

  /// Powers of two below the largest magnitude that have bins, and bins of each.
  private static let (octaves, octaveBits) = (8, 8)

  /// Patterns of which the `first`-th and the `last`-th largest of a model's sample are the ends, or a little further apart.
  /// - Parameters:
  ///   - first: from 1; less: up to the largest pattern there is.
  ///   - last: more than there are: down to 0.
  ///   - count: of frequent patterns at most; those with more than 8 bits below the first are not found.
  public func bracket(from first: Int, to last: Int, model: Int, narrow: Bool, frequent count: Int) -> Bracket {
    let all = all(model: model)
    let shift = UInt64((narrow ? 23 : 52) - Self.octaveBits)
    let span = UInt64(Self.octaves) << (shift + UInt64(Self.octaveBits))
    var largest: UInt64 = 0
    for pattern in all { largest = max(largest, pattern) }
    let lowest = ((largest > span ? largest - span : 0) >> shift) << shift
    let rest = UInt64(1) << shift - 1
    let capacity = 2 * (Self.octaves << Self.octaveBits + 2)
    var bracket = Bracket(low: 0, high: narrow ? 0x7FFF_FFFF : 0x7FFF_FFFF_FFFF_FFFF, frequent: [])
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: capacity) { halves in
      halves.update(repeating: 0)
      for pattern in all {
        let place = max(pattern, lowest) &- lowest
        // A number below 2^63 other than 0 has an opposite with the top bit.
        halves[Int(truncatingIfNeeded: (place &>> shift) &<< 1 | (0 &- (place & rest)) &>> 63)] &+= 1
      }
      func ends(_ half: Int) -> (low: UInt64, high: UInt64) {
        let pattern = lowest + UInt64(half / 2) << shift
        return half % 2 == 0 ? (pattern, pattern) : (pattern + 1, pattern + rest)
      }
      var (half, passed) = (Int((largest - lowest) >> shift) * 2 + 1, 0)
      func pass(_ rank: Int) {
        while half > 0, passed + Int(halves[half]) < rank {
          passed += Int(halves[half])
          half -= 1
        }
      }
      if first >= 1 {
        pass(first)
        bracket.high = ends(half).high
      }
      let top = half
      guard last <= self.count else { return bracket.frequent = Self.frequent(halves, 2...max(2, top), count) { ends($0).low } }
      pass(last)
      // What is further below than the bins reach is in the first of them, whatever it is.
      bracket.low = half < 2 ? 0 : ends(half).low
      bracket.frequent = Self.frequent(halves, max(half, 2)...max(top, 2), count) { ends($0).low }
    }
    return bracket
  }

  /// The patterns of the fullest first halves with more than one element.
  private static func frequent(
    _ halves: UnsafeMutableBufferPointer<Int32>, _ range: ClosedRange<Int>, _ count: Int, _ pattern: (Int) -> UInt64
  ) -> [UInt64] {
    var full: [(half: Int, size: Int32)] = []
    for half in range where half % 2 == 0 && halves[half] > 1 { full.append((half, halves[half])) }
    full.sort { ($1.size, $0.half) < ($0.size, $1.half) }
    return full.prefix(count).map { pattern($0.half) }
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
    return chunks(Element.self, block) { chunk in
      let (rows, length) = (chunk.rows, chunk.length)
      let whole = length & ~15
      for k in 0..<models {
        let row = rows[k]
        let place = sample.place(k, chunk.start)
        // In whichever order the row holds them: a sample has none.
        for i in 0..<whole { place[i] = Element.Arithmetic.pattern(row[i], narrow: narrow) }
        for i in whole..<length {
          place[i] = Element.Arithmetic.pattern(row[whole + Element.position(of: i & 15)], narrow: narrow)
        }
      }
    }
  }
}
