import Platform
import TensorKernels

/// The sweeps that find order statistics of a tensor's scores, and where equal ones are cut (ThresholdSearch.swift).
final class ScoreSearch {
  let scores: ElementScores
  private let tensor: TensorContext
  private let search: ThresholdSearch
  private let ranks: Int

  typealias Next = () throws(Failure) -> Step

  /// - Parameter ranks: how many order statistics are looked for.
  init(_ scores: ElementScores, _ tensor: TensorContext, ranks: Int) {
    self.scores = scores
    self.tensor = tensor
    self.ranks = ranks
    search = ThresholdSearch(ranks: ranks, narrow: scores.narrow)
  }

  static func scratchBytes(ranks: Int, _ tensor: TensorContext) -> Int {
    3 * ThresholdSearch.bytes(ranks: ranks) + (tensor.count / TaskVectors.cell + 1) * 8
  }

  static func block(_ block: Block) -> TaskVectorBlock {
    TaskVectorBlock(inputs: block.inputs, from: 0, count: block.count, start: block.start, workspace: block.workspace)
  }

  /// - Parameters:
  ///   - targets: what is wanted, from the number of scores that are not 0; nil: nothing.
  ///   - next: called with what was found.
  func begin(
    _ targets: @escaping (_ nonZero: Int) -> [ThresholdTarget?],
    _ next: @escaping ([FoundThreshold?]) throws(Failure) -> Step
  ) -> Step {
    level(0, CounterPool(count: search.counters), targets, next)
  }

  private func level(
    _ level: Int, _ pool: CounterPool, _ targets: @escaping (Int) -> [ThresholdTarget?],
    _ next: @escaping ([FoundThreshold?]) throws(Failure) -> Step
  ) -> Step {
    let scores = self.scores
    let all = search.histogramLevels(level)
    // On the first level one histogram serves all ranks.
    let levels = level == 0 ? [all[0]] : all
    let bins = 1 << all[0].binBits
    var sweep = Sweep(sums: 2, writes: false) { block in
      pool.use { page in
        block.sums[0] += scores.addHistograms(Self.block(block), levels, into: page, nonZero: block.sums + 1)
      }
    } next: { (sums) throws(Failure) in
      pool.drain { page in
        if level > 0 { return self.search.add(page) }
        var copies = [UInt64](repeating: 0, count: self.search.counters)
        for rank in 0..<self.ranks { for i in 0..<bins { copies[rank * bins + i] = page[i] } }
        copies.withUnsafeBufferPointer { self.search.add($0.baseAddress!) }
      }
      self.search.settle(level) { targets(Int(sums[1])) }
      if level + 1 < self.search.levels { return self.level(level + 1, pool, targets, next) }
      return try next(self.search.found)
    }
    sweep.wide = true
    return .sweep(sweep)
  }

  /// Which elements a threshold chooses: those equal to it by the lowest index, as many as its target says.
  func choice(
    _ found: FoundThreshold?, _ next: @escaping (ElementScores.Choice) throws(Failure) -> Step
  ) throws(Failure) -> Step {
    guard let found else { return try next(.none) }
    guard found.keptTies < found.equal else { return try next(.from(threshold: found.value, tiesBefore: .max)) }
    let scores = self.scores
    let cells = TieCells(models: 1, elements: tensor.count)
    var sweep = Sweep(sums: 0, writes: false) { block in
      scores.addTies(Self.block(block), found.value, into: cells.counts)
    } next: { (_) throws(Failure) in
      self.place(found, cells, next)
    }
    sweep.wide = true
    return .sweep(sweep)
  }

  private func place(
    _ found: FoundThreshold, _ cells: TieCells, _ next: @escaping (ElementScores.Choice) throws(Failure) -> Step
  ) -> Step {
    let scores = self.scores
    let (cell, rank) = cells.cell(0, rank: found.keptTies)
    cells.remaining[0] = rank
    var sweep = Sweep(sums: 0, writes: false) { block in
      scores.findTie(Self.block(block), found.value, remaining: cells.remaining, found: cells.found)
    } next: { (_) throws(Failure) in
      try next(.from(threshold: found.value, tiesBefore: cells.found[0]))
    }
    sweep.wide = true
    sweep.ranges = [cell * TaskVectors.cell..<(cell + 1) * TaskVectors.cell]
    return .sweep(sweep)
  }
}
