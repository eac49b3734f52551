import TensorKernels

/// The search for one order statistic of magnitudes: between which patterns it is, until the counts of a bracket say what it is.
struct MagnitudeSearch: Sendable {
  var low: UInt64 = 0
  var high: UInt64
  /// What it may well be.
  var candidates: [UInt64] = []
  /// Are magnitudes ranked in binary32?
  private let narrow: Bool

  init(narrow: Bool) {
    self.narrow = narrow
    high = Self.largest(narrow)
  }

  private static func largest(_ narrow: Bool) -> UInt64 { narrow ? 0x7FFF_FFFF : 0x7FFF_FFFF_FFFF_FFFF }

  /// - Parameter offset: of its counters among all.
  func bracket(offset: Int) -> MagnitudeBracket {
    MagnitudeBracket(low: low, high: high, offset: offset, candidates: candidates)
  }

  /// The brackets of all searches that are on, their counters one after the other, and how many counters that makes.
  static func brackets(_ searches: [MagnitudeSearch?]) -> (brackets: [MagnitudeBracket?], counters: Int) {
    var counters = 0
    let brackets = searches.map { search in
      let bracket = search?.bracket(offset: counters)
      counters += bracket?.counters ?? 0
      return bracket
    }
    return (brackets, counters)
  }

  /// The magnitude of a pattern.
  func value(_ pattern: UInt64) -> Double {
    narrow ? Double(Float(bitPattern: UInt32(pattern))) : Double(bitPattern: pattern)
  }

  /// The wanted magnitude, from counts of a bracket; else go on in the bin that holds it, or beside the bracket if it is not there.
  /// - Parameters:
  ///   - counts: of all brackets, each from its `offset` on.
  ///   - rank: of the wanted magnitude, 1 for the largest.
  /// - Returns: the half of a bin that is all of its equals, and how many are above and equal; nil: not known yet.
  mutating func narrowDown(_ bracket: MagnitudeBracket, _ counts: [Int], rank: Int) -> (half: Int, above: Int, equal: Int)? {
    let inside = counts[(bracket.offset + 1)..<(bracket.offset + bracket.counters)]
    var above = counts[bracket.offset]
    if above >= rank {
      (low, high) = (bracket.high + 1, Self.largest(narrow))
    } else if above + inside.reduce(0, +) < rank {
      (low, high) = (0, bracket.low - 1)
    } else {
      // Second halves come after first ones, as their magnitudes do.
      var half = inside.endIndex - 1
      while above + counts[half] < rank {
        above += counts[half]
        half -= 1
      }
      let place = half - inside.startIndex
      if place % 2 == 0 { return (place, above, counts[half]) }
      let pattern = bracket.pattern(place)
      (low, high) = (pattern + 1, min(bracket.high, pattern + 1 << UInt64(bracket.shift) - 1))
    }
    return nil
  }
}
