import Platform
import Synchronization
import TensorKernels

// Exact order statistics of scores: for each model the t-th largest, how many are above it, and how many are equal to it.
//
// Levels of histograms narrow the bit pattern down (MagnitudeHistogram.swift): two sweeps for binary32 patterns and up to 16
// models, three for more models (smaller histograms), four and six for binary64. Counts are whole numbers, so the result does not
// depend on who counts what.
// Memory: K * 2^16 * 8 bytes per worker (2^12 from 17 models on).

final class ThresholdSearch: Sendable {
  private struct State {
    var level = 0
    var above: [Int]
    var equal: [Int]
    var prefixes: [UInt64]
    var targets: [ThresholdTarget?]
    var counts: [UInt64]
  }

  let models: Int
  /// Are magnitudes ranked in binary32?
  let narrow: Bool
  private let binBits: Int
  private let state: Mutex<State>

  init(models: Int, narrow: Bool) {
    self.models = models
    self.narrow = narrow
    binBits = Self.binBits(models: models)
    state = Mutex(
      State(
        above: [Int](repeating: 0, count: models), equal: [Int](repeating: 0, count: models),
        prefixes: [UInt64](repeating: 0, count: models), targets: [],
        counts: [UInt64](repeating: 0, count: models << binBits)))
  }

  private static func binBits(models: Int) -> Int { models <= 16 ? 16 : 12 }

  /// Counters of the histograms of one worker.
  var counters: Int { models << binBits }

  /// Bytes of the histograms of one worker.
  static func bytes(models: Int) -> Int { models << binBits(models: models) * 8 }

  private var patternBits: Int { narrow ? 31 : 63 }
  var levels: Int { (patternBits + binBits - 1) / binBits }

  /// Bits below the bins of a level; the last level has what is left.
  private func shift(_ level: Int) -> Int { max(0, patternBits - (level + 1) * binBits) }
  private func bins(_ level: Int) -> Int { min(binBits, patternBits - level * binBits) }

  /// What the sweep of a level counts. On the first, before targets are known, every model takes part.
  func histogramLevels(_ level: Int) -> [HistogramLevel] {
    state.withLock { state in
      (0..<models).map { k in
        let isWanted = level == 0 || state.targets[k] != nil
        return HistogramLevel(prefix: isWanted ? state.prefixes[k] : nil, shift: shift(level), binBits: bins(level))
      }
    }
  }

  func add(_ counts: UnsafePointer<UInt64>) {
    state.withLock { state in for i in state.counts.indices { state.counts[i] += counts[i] } }
  }

  /// A level's counts are complete: the first caller draws the conclusion.
  /// - Parameter targets: per model what is wanted of so many elements; nil: nothing.
  func settle(_ level: Int, targets: () -> [ThresholdTarget?]) {
    state.withLock { state in
      guard state.level == level else { return }
      if level == 0 { state.targets = targets() }
      for k in 0..<models {
        guard let rank = state.targets[k]?.rank else { continue }
        let first = k << bins(level)
        var bin = 1 << bins(level) - 1
        while bin > 0, state.above[k] + Int(state.counts[first + bin]) < rank {
          state.above[k] += Int(state.counts[first + bin])
          bin -= 1
        }
        state.prefixes[k] = state.prefixes[k] << UInt64(bins(level)) | UInt64(bin)
        state.equal[k] = Int(state.counts[first + bin])
      }
      for i in state.counts.indices { state.counts[i] = 0 }
      state.level += 1
    }
  }

  /// Per model; nil: none was wanted.
  var found: [FoundThreshold?] {
    state.withLock { state in
      (0..<models).map { k in
        state.targets[k].map {
          let value = narrow ? Double(Float(bitPattern: UInt32(state.prefixes[k]))) : Double(bitPattern: state.prefixes[k])
          return FoundThreshold(value: value, above: state.above[k], equal: state.equal[k], target: $0)
        }
      }
    }
  }
}
