import TensorKernels

// Exact order statistics of the scores of a tensor: the t-th largest for each of R ranks, how many are above it, and how many equal to it.
//
// Levels of histograms narrow the bit pattern down (ElementScores.swift): two sweeps for binary32 patterns and up to 16 ranks, three for
// more (smaller histograms), four and six for binary64. Counts are whole numbers, so the result does not depend on who counts what.
// Memory: R * 2^16 * 8 bytes per worker (2^12 from 17 ranks on).

final class ThresholdSearch {
  let ranks: Int
  /// Are scores compared in binary32?
  let narrow: Bool
  private let binBits: Int
  private var above: [Int]
  private var equal: [Int]
  private var prefixes: [UInt64]
  private var targets: [ThresholdTarget?] = []
  private var counts: [UInt64]

  init(ranks: Int, narrow: Bool) {
    self.ranks = ranks
    self.narrow = narrow
    binBits = Self.binBits(ranks: ranks)
    above = [Int](repeating: 0, count: ranks)
    equal = above
    prefixes = [UInt64](repeating: 0, count: ranks)
    counts = [UInt64](repeating: 0, count: ranks << binBits)
  }

  private static func binBits(ranks: Int) -> Int { ranks <= 16 ? 16 : 12 }

  /// Counters of the histograms of one worker.
  var counters: Int { ranks << binBits }

  /// Bytes of the histograms of one worker.
  static func bytes(ranks: Int) -> Int { ranks << binBits(ranks: ranks) * 8 }

  private var patternBits: Int { narrow ? 31 : 63 }
  var levels: Int { (patternBits + binBits - 1) / binBits }

  /// Bits below the bins of a level; the last level has what is left.
  private func shift(_ level: Int) -> Int { max(0, patternBits - (level + 1) * binBits) }
  private func bins(_ level: Int) -> Int { min(binBits, patternBits - level * binBits) }

  /// What the sweep of a level counts. On the first, before targets are known, every rank takes part.
  func histogramLevels(_ level: Int) -> [HistogramLevel] {
    (0..<ranks).map { k in
      let isWanted = level == 0 || targets[k] != nil
      return HistogramLevel(prefix: isWanted ? prefixes[k] : nil, shift: shift(level), binBits: bins(level))
    }
  }

  func add(_ counts: UnsafePointer<UInt64>) { for i in self.counts.indices { self.counts[i] += counts[i] } }

  /// A level's counts are complete.
  /// - Parameter targets: what is wanted, asked for on the first level; nil: nothing.
  func settle(_ level: Int, targets wanted: () -> [ThresholdTarget?]) {
    if level == 0 { targets = wanted() }
    for k in 0..<ranks {
      guard let rank = targets[k]?.rank else { continue }
      let first = k << bins(level)
      var bin = 1 << bins(level) - 1
      while bin > 0, above[k] + Int(counts[first + bin]) < rank {
        above[k] += Int(counts[first + bin])
        bin -= 1
      }
      prefixes[k] = prefixes[k] << UInt64(bins(level)) | UInt64(bin)
      equal[k] = Int(counts[first + bin])
    }
    for i in counts.indices { counts[i] = 0 }
  }

  /// Per rank; nil: none was wanted.
  var found: [FoundThreshold?] {
    (0..<ranks).map { k in
      targets[k].map {
        let value = narrow ? Double(Float(bitPattern: UInt32(prefixes[k]))) : Double(bitPattern: prefixes[k])
        return FoundThreshold(value: value, above: above[k], equal: equal[k], target: $0)
      }
    }
  }
}
