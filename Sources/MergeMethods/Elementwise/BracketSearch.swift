import Platform
import TensorKernels

// Exact trimming thresholds of one tensor: a sample of its magnitudes brackets each of them, and sweeps count what is above and
// inside until the magnitude is known (MagnitudeBrackets.swift). One sweep is the rule for differences of 16-bit models, two for
// binary32; a tensor that the sample covers needs none beside it.
// A model may have two thresholds, of which both are looked for in the same sweeps.
// Memory: K * 32768 * 8 bytes of sample for K <= 16 models, 32 KB of counters per threshold and worker.

final class BracketSearch {
  /// Per target what was found; nil: nothing was wanted.
  private(set) var found: [FoundThreshold?]
  /// For which targets `cells` holds the elements equal to the threshold.
  private(set) var isCounted: [Bool]
  let cells: TieCells

  /// Of all brackets' slots.
  private let slots: TieCells
  private let stages: TaskVectorStages
  private let models: Int
  private let elements: Int
  private let narrow: Bool
  private let targets: [ThresholdTarget?]
  /// nil: nothing is wanted, or it is found.
  private var searches: [MagnitudeSearch?]

  /// - Parameter targets: per model, or several for all models in turn; nil: nothing is wanted.
  init(_ stages: TaskVectorStages, targets: [ThresholdTarget?]) {
    self.stages = stages
    models = stages.settings.models
    elements = stages.tensor.count
    narrow = stages.vectors.narrow
    self.targets = targets
    searches = targets.map { [narrow] in $0 == nil ? nil : MagnitudeSearch(narrow: narrow) }
    found = targets.map { _ in nil }
    isCounted = targets.map { _ in false }
    cells = TieCells(models: targets.count, elements: elements)
    slots = TieCells(models: targets.count * MagnitudeBracket.slots, elements: elements)
  }

  /// Bytes that one tensor's search needs with two workers' counters.
  static func bytes(models: Int, elements: Int) -> Int {
    let cells = (elements / TaskVectors.cell + 1) * (MagnitudeBracket.slots + 1)
    return MagnitudeSample.bytes(models: models, elements: elements) + models * (2 * 4100 + cells) * 8
  }

  func begin(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    guard searches.contains(where: { $0 != nil }) else { return try next() }
    let sample = MagnitudeSample(models: models, elements: elements)
    return .sweep(
      stages.sweep(sums: 0, ranges: sample.ranges) { vectors, block, _, _ in
        vectors.addSample(block, to: sample)
      } next: { (_) throws(Failure) in
        self.aim(sample)
        return try self.count(next)
      })
  }

  /// From the sample's order statistics to brackets, four standard deviations wide on both sides.
  private func aim(_ sample: MagnitudeSample) {
    for (k, search) in searches.enumerated() {
      guard var search, let rank = targets[k]?.rank else { continue }
      if sample.isWhole {
        let known = sample.largest(rank, model: k % models, narrow: narrow)
        conclude(k, known.pattern, above: known.above, equal: known.equal)
        continue
      }
      let share = Double(rank) / Double(elements)
      let size = Double(sample.count)
      let spread = 4 * (size * share * (1 - share)).squareRoot() + 8
      let (first, last) = (Int(share * size - spread), Int(share * size + spread) + 1)
      let bracket = sample.bracket(
        from: first, to: last, model: k % models, narrow: narrow, frequent: MagnitudeBracket.slots - 1)
      (search.low, search.high, search.candidates) = (bracket.low, bracket.high, bracket.frequent)
      searches[k] = search
    }
  }

  private func count(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    guard searches.contains(where: { $0 != nil }) else { return try next() }
    let (brackets, counters) = MagnitudeSearch.brackets(searches)
    let pool = CounterPool(count: counters)
    let slots = self.slots
    slots.clear()
    return .sweep(
      stages.sweep(sums: 0) { vectors, block, _, _ in
        pool.use {
          vectors.addCounts(block, brackets, into: $0, cells: slots.counts, cellCount: slots.cells)
        }
      } next: { (_) throws(Failure) in
        var counts = [Int](repeating: 0, count: counters)
        pool.drain { page in for i in counts.indices { counts[i] += Int(page[i]) } }
        for (k, bracket) in brackets.enumerated() { if let bracket { self.narrowDown(k, bracket, counts) } }
        return try self.count(next)
      })
  }

  private func narrowDown(_ model: Int, _ bracket: MagnitudeBracket, _ counts: [Int]) {
    guard let rank = targets[model]?.rank, let known = searches[model]?.narrowDown(bracket, counts, rank: rank) else { return }
    if let slot = bracket.slot(known.half) {
      for cell in 0..<cells.cells {
        cells.counts[model * cells.cells + cell] = slots.counts[(model * cells.cells + cell) * MagnitudeBracket.slots + slot]
      }
      isCounted[model] = true
    }
    conclude(model, bracket.pattern(known.half), above: known.above, equal: known.equal)
  }

  private func conclude(_ model: Int, _ pattern: UInt64, above: Int, equal: Int) {
    guard let target = targets[model], let search = searches[model] else { return }
    found[model] = FoundThreshold(value: search.value(pattern), above: above, equal: equal, target: target)
    // One cell holds all there are.
    if cells.cells == 1 { (cells.counts[model], isCounted[model]) = (equal, true) }
    searches[model] = nil
  }
}
