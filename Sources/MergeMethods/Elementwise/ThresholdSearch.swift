import Platform
import Synchronization
import TensorKernels

// Exact trimming thresholds: for each model the t-th largest magnitude, how many are above it, and how many are equal to it.
//
// Levels of histograms narrow the bit pattern down (MagnitudeHistogram.swift): two sweeps for binary32 patterns and up to 16
// models, three for more models (smaller histograms), four and six for binary64. Counts are whole numbers, so the result does not
// depend on who counts what. The tensors of a group share one search.
// Memory: K * 2^16 * 8 bytes per worker (2^12 from 17 models on).

/// What is asked of one model.
struct ThresholdTarget: Sendable {
  /// 1 for the largest.
  var rank: Int
  /// How many of the elements equal to the threshold stay: all, none, or as many as make `rank` elements.
  var ties: Ties

  enum Ties: Sendable { case all, none, fill }
}

/// What was found for one model.
struct FoundThreshold: Sendable {
  var value: Double
  var above: Int
  var equal: Int
  var target: ThresholdTarget

  /// How many of the equal ones stay.
  var keptTies: Int {
    switch target.ties {
    case .all: equal
    case .none: 0
    case .fill: target.rank - above
    }
  }
}

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

/// Memory that each worker adds whole numbers to, summed up at the end of a sweep.
final class CounterPool: Sendable {
  private struct Pages: ~Copyable, @unchecked Sendable {
    // @unchecked: a page belongs to whoever has taken it from the list.
    var free: [UnsafeMutablePointer<UInt64>] = []
    var all: [UnsafeMutablePointer<UInt64>] = []
    deinit { for page in all { page.deallocate() } }
  }

  private let count: Int
  private let pages = Mutex(Pages())

  init(count: Int) { self.count = count }

  /// Lend a page of counters, zero at first, to one worker.
  func use<Result>(_ body: (UnsafeMutablePointer<UInt64>) -> Result) -> Result {
    let page = UnsafeMutablePointer<UInt64>(
      bitPattern: pages.withLock { pages -> UInt in
        if let page = pages.free.popLast() { return UInt(bitPattern: page) }
        let page = UnsafeMutablePointer<UInt64>.allocate(capacity: count)
        page.initialize(repeating: 0, count: count)
        pages.all.append(page)
        return UInt(bitPattern: page)
      })!
    defer { pages.withLock { $0.free.append(UnsafeMutablePointer(bitPattern: UInt(bitPattern: page))!) } }
    return body(page)
  }

  /// Hand each page on and let go of it: a tensor that waits for its group holds none.
  func drain(_ body: (UnsafePointer<UInt64>) -> Void) {
    pages.withLock { pages in
      for page in pages.all {
        body(page)
        page.deallocate()
      }
      (pages.all, pages.free) = ([], [])
    }
  }
}

/// How many elements of each cell of a tensor are equal to its models' thresholds.
final class TieCells: @unchecked Sendable {
  // @unchecked: a cell is counted by one worker at a time, and read when all are done.
  let cells: Int
  let models: Int
  let counts: UnsafeMutablePointer<Int>
  /// Of the tie that is looked for inside a cell: how many come before it, and where it was found.
  let remaining: UnsafeMutablePointer<Int>
  let found: UnsafeMutablePointer<Int>

  init(models: Int, elements: Int) {
    cells = max(1, (elements + TaskVectors.cell - 1) / TaskVectors.cell)
    self.models = models
    counts = .allocate(capacity: cells * models)
    counts.initialize(repeating: 0, count: cells * models)
    remaining = .allocate(capacity: models)
    remaining.initialize(repeating: 0, count: models)
    found = .allocate(capacity: models)
    found.initialize(repeating: 0, count: models)
  }

  deinit {
    counts.deallocate()
    remaining.deallocate()
    found.deallocate()
  }

  func clear() { counts.update(repeating: 0, count: cells * models) }

  func total(_ model: Int) -> Int { (0..<cells).reduce(0) { $0 + counts[model * cells + $1] } }

  /// The cell in which the `rank`-th tie (from 1) of a model stands, and its rank inside.
  func cell(_ model: Int, rank: Int) -> (cell: Int, rank: Int) {
    var left = rank
    for cell in 0..<cells {
      let count = counts[model * cells + cell]
      if left <= count { return (cell, left) }
      left -= count
    }
    preconditionFailure("a tie is asked for that is not there")
  }
}

/// What the tensors of a group share while thresholds are looked for over all of them.
final class GroupThresholds: Sendable {
  let search: ThresholdSearch
  /// Per model, of the tensor that came first: it must be the same for all.
  let density: [Double]
  private let ties = Mutex<(counts: [String: [Int]], before: [String: [Int]])>(([:], [:]))

  init(density: [Double]) {
    self.density = density
    search = ThresholdSearch(models: density.count, narrow: true)
  }

  func publish(_ tensor: String, ties counts: [Int]) {
    ties.withLock { ties in
      ties.counts[tensor] = counts
      ties.before = [:]
    }
  }

  /// Ties of a model in the tensors whose names come before. All of them have been published.
  func tiesBefore(_ tensor: String, model: Int) -> Int {
    ties.withLock { ties in
      if ties.before.isEmpty {
        var total = [Int](repeating: 0, count: density.count)
        for name in ties.counts.keys.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
          ties.before[name] = total
          for model in total.indices { total[model] += ties.counts[name]![model] }
        }
      }
      if let known = ties.before[tensor] { return known[model] }
      // None of the group's, so it has none of its own.
      return ties.counts.reduce(0) { $1.key.utf8.lexicographicallyPrecedes(tensor.utf8) ? $0 + $1.value[model] : $0 }
    }
  }
}
