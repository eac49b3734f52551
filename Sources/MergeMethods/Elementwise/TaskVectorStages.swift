import JSON
import Platform
import TensorKernels

// The sweeps that come before an elementwise method can write: each adds what it found to the filters, and none holds a mask or a
// trimmed copy.
//
//   DELLA's ranks -> L1 sums -> thresholds -> ties at the threshold -> squared norms -> majority sign -> the method
//
// A stage that is not needed is left out. Element 0 of every sweep's sums is the poison: NaN when an input is not finite.

/// One tensor on its way to its last sweep.
final class TaskVectorStages {
  let settings: TaskVectorSettings
  let tensor: TensorContext
  var vectors: TaskVectors
  private(set) var election: SignElection
  /// What was decided, for the report.
  var entries: [JSON.Member] = []
  private var rescales: [Double]
  private var shared: GroupThresholds?
  /// Per model what its random drop has kept; empty where that is more than a sweep should hold.
  private let drops: [DropMask]
  /// Bytes of all masks of a tensor, at most.
  private static let dropBytes = 64 << 20

  init(_ settings: TaskVectorSettings, _ tensor: TensorContext) {
    self.settings = settings
    self.tensor = tensor
    let isGrouped = settings.scope == .model && tensor.group != nil
    vectors = TaskVectors(
      filters: settings.weights.map { _ in TaskVectorFilter() }, narrow: isGrouped || !tensor.isDouble)
    election = SignElection(settings.elect, zeroSign: 0, factors: settings.weights)
    rescales = settings.weights.map { _ in 1 }
    drops = Self.bytesOfDrops(settings, tensor) > 0 ? settings.weights.map { _ in DropMask(elements: tensor.count) } : []
    if isGrouped {
      let density = settings.density
      shared = tensor.group!.shared { GroupThresholds(density: density) }
    }
  }

  private static func bytesOfDrops(_ settings: TaskVectorSettings, _ tensor: TensorContext) -> Int {
    let bytes = settings.models * DropMask.bytes(elements: tensor.count)
    // The tensors of a group wait for one another, and would all hold theirs.
    guard tensor.group == nil else { return 0 }
    return settings.drop == .bernoulli && settings.keep.contains { $0 < 1 } && bytes <= dropBytes ? bytes : 0
  }

  /// Bytes of the masks, histograms and tie counts of one tensor, at most.
  static func scratchBytes(_ settings: TaskVectorSettings, _ tensor: TensorContext) -> Int {
    var bytes = bytesOfDrops(settings, tensor)
    if settings.trims {
      let cuts = settings.models * (settings.gamma == nil ? 1 : 2)
      bytes +=
        settings.scope == .tensor
        ? BracketSearch.bytes(models: cuts, elements: tensor.count)
        : GroupThresholds.bytes(models: cuts, elements: tensor.count) + cuts * (tensor.count / TaskVectors.cell + 1) * 8
    }
    if settings.drop == .della { bytes += settings.models * 4 * TaskVectors.histogramBins * 8 }
    return bytes
  }

  // MARK: - The chain

  /// Prepare, then go on with `last`.
  func begin(_ last: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    if let shared, shared.density != settings.density {
      throw Failure(
        .parameter,
        "scope: model ranks the elements of all tensors together, but the density of '\(tensor.name)' is not that of the others: give "
          + "one density, or scope: tensor")
    }
    for k in 0..<settings.models {
      if settings.density[k] == 0 { vectors.filters[k].cut = .everything }
      guard settings.drop == .bernoulli, let limit = RandomStream.limit(keeping: settings.keep[k]) else { continue }
      vectors.filters[k].drop = .bernoulli(stream(k), limit: limit, drops.isEmpty ? nil : drops[k])
    }
    return try rank { () throws(Failure) in
      try self.sumBeforeTrim { () throws(Failure) in
        try self.trim { () throws(Failure) in
          try self.sumAfterTrim { () throws(Failure) in
            self.setFactors()
            return try self.squares { () throws(Failure) in try self.majority(last) }
          }
        }
      }
    }
  }

  private func stream(_ model: Int) -> RandomStream { RandomStream(seed: settings.seed, name: tensor.name, model: model) }

  private func block(_ block: Block) -> TaskVectorBlock {
    TaskVectorBlock(inputs: block.inputs, from: 0, count: block.count, start: block.start, workspace: block.workspace)
  }

  /// A sweep of this tensor's filtered task vectors: `run` adds to the sums from 1 on and returns the poison.
  /// - Parameter ranges: the stretches to look at; nil: the whole tensor.
  func sweep(
    sums: Int, writes: Bool = false, pools: Bool = false, ranges: [Range<Int>]? = nil,
    _ run: @escaping (_ vectors: TaskVectors, TaskVectorBlock, Block, _ sums: UnsafeMutablePointer<Double>) -> Double,
    next: @escaping (ArraySlice<Double>) throws(Failure) -> Step
  ) -> Sweep {
    let vectors = self.vectors
    var sweep = Sweep(sums: sums + 1, writes: writes) { block in
      block.sums[0] += run(vectors, self.block(block), block, block.sums + 1)
    } next: { [drops] (sums) throws(Failure) in
      if ranges == nil { for drop in drops { drop.complete() } }
      return try next(sums.dropFirst())
    }
    sweep.pools = pools
    sweep.ranges = ranges
    return sweep
  }

  // MARK: - DELLA's ranks

  private func rank(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    guard settings.drop == .della else { return try next() }
    let models = settings.models
    let bins = TaskVectors.histogramBins
    let pool = CounterPool(count: models * bins)
    let narrow = TaskVectors(filters: vectors.filters.map { _ in TaskVectorFilter() }, narrow: true)
    return .sweep(
      sweep(sums: 0) { _, block, _, _ in
        pool.use { narrow.addHistogram(block, into: $0) }
      } next: { (_) throws(Failure) in
        var counts = [UInt64](repeating: 0, count: models * bins)
        pool.drain { page in for i in counts.indices { counts[i] += page[i] } }
        counts.withUnsafeBufferPointer { all in
          for k in 0..<models {
            let keep = RankedKeep(
              probability: self.settings.keep[k], epsilon: self.settings.epsilon, histogram: all.baseAddress! + k * bins)
            self.vectors.filters[k].drop = .ranked(self.stream(k), keep)
          }
        }
        return try next()
      })
  }

  // MARK: - L1 rescale

  private func sumBeforeTrim(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    settings.rescalesAfterTrim ? try next() : try sum(next)
  }

  private func sumAfterTrim(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    settings.rescalesAfterTrim ? try sum(next) : try next()
  }

  private func sum(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    let models = settings.models
    switch settings.rescale {
    case .none: return try next()
    case .inverse:
      let shares = settings.rescalesAfterTrim ? settings.density : settings.keep
      rescales = shares.map { $0 > 0 ? 1 / $0 : 1 }
      return try next()
    case .l1:
      guard vectors.filters.contains(where: { !$0.isNone }) else { return try next() }
      return .sweep(
        sweep(sums: 2 * models) { vectors, block, _, sums in
          vectors.addMagnitudes(block, to: sums)
        } next: { (sums) throws(Failure) in
          for k in 0..<models {
            let (all, kept) = (sums[sums.startIndex + k], sums[sums.startIndex + models + k])
            if all > self.settings.smallestSum, kept > self.settings.smallestSum { self.rescales[k] = all / kept }
          }
          return try next()
        })
    }
  }

  private func setFactors() {
    election.factors = zip(settings.weights, rescales).map { $0 * $1 }
    if settings.rescale != .none { entries.append(.init(key: "rescale", value: .array(rescales.map { .double($0) }))) }
  }

  // MARK: - Trim

  private func trim(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    guard settings.trims else { return try next() }
    if settings.gamma != nil { return try OutlierSearch(self).begin(next) }
    guard let shared else {
      let search = BracketSearch(self, targets: targets(tensor.count))
      return try search.begin { () throws(Failure) in try self.ties(search.found, search.cells, search.isCounted, next) }
    }
    return try trim(with: shared, next)
  }

  /// What the group does next. A tensor that has begun again meets it where it is.
  private func trim(with shared: GroupThresholds, _ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    switch shared.stage {
    case .sampling: return sample(shared, next)
    case .counting(let number, let brackets): return count(shared, number, brackets, next)
    case .found(let found):
      let cells = TieCells(models: shared.models, elements: tensor.count)
      return try ties(found, cells, found.map { _ in false }, next)
    }
  }

  private func targets(_ elements: Int) -> [ThresholdTarget?] {
    (0..<settings.models).map { settings.target($0, elements: elements) }
  }

  private func sample(_ shared: GroupThresholds, _ next: @escaping () throws(Failure) -> Step) -> Step {
    let elements = tensor.count
    let sample = MagnitudeSample(models: shared.models, elements: elements)
    var sweep = sweep(sums: 0, pools: true, ranges: sample.ranges) { vectors, block, _, _ in
      vectors.addSample(block, to: sample)
    } next: { (_) throws(Failure) in
      shared.aim(self.targets)
      return try self.trim(with: shared, next)
    }
    sweep.beforePooling = {
      shared.add(sample, elements: elements)
      sample.release()
    }
    return .sweep(sweep)
  }

  private func count(
    _ shared: GroupThresholds, _ number: Int, _ brackets: [MagnitudeBracket?], _ next: @escaping () throws(Failure) -> Step
  ) -> Step {
    let pool = CounterPool(count: brackets.reduce(0) { $0 + ($1?.counters ?? 0) })
    // The number of elements comes along as a sum, so that a group knows its own.
    var sweep = sweep(sums: 1, pools: true) { vectors, block, _, sums in
      sums[0] += Double(block.count)
      return withUnsafeTemporaryAllocation(of: Int.self, capacity: MagnitudeBracket.slots) { unused in
        unused.initialize(repeating: 0)
        return pool.use { vectors.addCounts(block, brackets, into: $0, cells: unused.baseAddress!, cellCount: 0) }
      }
    } next: { (sums) throws(Failure) in
      shared.conclude(number) { self.targets(Int(sums.first ?? 0)) }
      return try self.trim(with: shared, next)
    }
    sweep.beforePooling = { pool.drain { shared.add($0) } }
    return .sweep(sweep)
  }

  /// Set the cuts; where only some of the ties stay, find out which.
  /// - Parameter isCounted: for which models `cells` already holds the elements equal to the threshold.
  private func ties(
    _ found: [FoundThreshold?], _ cells: TieCells, _ isCounted: [Bool], _ next: @escaping () throws(Failure) -> Step
  ) throws(Failure) -> Step {
    entries.append(
      .init(key: "thresholds", value: .array(found.map { found in found.map { .double($0.value) } ?? .null })))
    var open: [Double?] = found.map { _ in nil }
    for (k, threshold) in found.enumerated() {
      guard let threshold else { continue }
      let isOpen = threshold.keptTies > 0 && threshold.keptTies < threshold.equal
      if isOpen { open[k] = threshold.value }
      vectors.filters[k].cut = .below(threshold: threshold.value, tiesBefore: threshold.keptTies > 0 ? .max : 0)
    }
    guard open.contains(where: { $0 != nil }) else { return try next() }
    let uncounted = zip(open, isCounted).map { $1 ? nil : $0 }
    guard uncounted.contains(where: { $0 != nil }) else { return try place(found, open, cells, next) }
    // The cut is not in force while its ties are counted.
    let whole = uncut(open)
    var sweep = sweep(sums: 0, pools: true) { _, block, _, _ in
      whole.addTies(block, uncounted, into: cells.counts, cells: cells.cells)
      return 0
    } next: { (_) throws(Failure) in
      try self.place(found, open, cells, next)
    }
    if let shared {
      let name = tensor.name
      sweep.beforePooling = { shared.publish(name, ties: (0..<cells.models).map { cells.total($0) }) }
    }
    return .sweep(sweep)
  }

  private func uncut(_ open: [Double?]) -> TaskVectors {
    var whole = vectors
    for k in open.indices where open[k] != nil { whole.filters[k].cut = .none }
    return whole
  }

  /// Find the last tie of this tensor that stays, model by model, in the one cell where it must be.
  private func place(
    _ found: [FoundThreshold?], _ open: [Double?], _ cells: TieCells, _ next: @escaping () throws(Failure) -> Step
  ) throws(Failure) -> Step {
    let whole = uncut(open)
    var searched: [Int?] = open.map { _ in nil }
    for (k, threshold) in found.enumerated() where open[k] != nil {
      let before = shared?.tiesBefore(tensor.name, model: k) ?? 0
      let mine = threshold!.keptTies - before
      if mine <= 0 {
        vectors.filters[k].cut = .below(threshold: threshold!.value, tiesBefore: 0)
      } else if mine < cells.total(k) {
        let (cell, rank) = cells.cell(k, rank: mine)
        (searched[k], cells.remaining[k]) = (cell, rank)
      }
    }
    let wanted = Set(searched.compactMap { $0 }).sorted()
    guard !wanted.isEmpty else { return try next() }
    let ranges = wanted.map { $0 * TaskVectors.cell..<($0 + 1) * TaskVectors.cell }
    return .sweep(
      sweep(sums: 0, ranges: ranges) { _, block, _, _ in
        whole.findTies(block, open, inCells: searched, remaining: cells.remaining, found: cells.found)
        return 0
      } next: { (_) throws(Failure) in
        for k in searched.indices where searched[k] != nil {
          self.vectors.filters[k].cut = .below(threshold: open[k]!, tiesBefore: cells.found[k])
        }
        return try next()
      })
  }

  // MARK: - Election

  private func squares(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    switch settings.elect {
    case .normfrac, .normmass: break
    default: return try next()
    }
    // Without a vote nothing is left out, so these are the norms of the filtered task vectors.
    let plain = SignElection(.none, zeroSign: 0, factors: election.factors)
    let pairs = RowPairs(diagonal: settings.models)
    var sweep = sweep(sums: settings.models, pools: true) { vectors, block, _, sums in
      AgreeingVectors(vectors, plain).addProducts(block, pairs, to: sums)
    } next: { (sums) throws(Failure) in
      self.election.inverseSquares = sums.map { $0 > 0 ? 1 / $0 : 0 }
      return try next()
    }
    sweep.wide = true
    return .sweep(sweep)
  }

  private func majority(_ next: @escaping () throws(Failure) -> Step) throws(Failure) -> Step {
    switch settings.zeroSign {
    case .plus: election.zeroSign = 1
    case .drop: election.zeroSign = 0
    case .majority:
      if case .none = settings.elect { return try next() }
      let voting = election
      return .sweep(
        sweep(sums: 1, pools: true) { vectors, block, _, sums in
          AgreeingVectors(vectors, voting).addSigns(block, to: sums)
        } next: { (sums) throws(Failure) in
          let sum = sums.first ?? 0
          self.election.zeroSign = sum == 0 ? self.settings.tiedMajority : sum > 0 ? 1 : -1
          self.entries.append(.init(key: "majority_sign", value: .int(Int(self.election.zeroSign))))
          return try next()
        })
    }
    return try next()
  }

  // MARK: - Last sweeps

  var disjointMerge: DisjointMerge { DisjointMerge(vectors, election, settings.merge, weights: settings.weights) }
  var agreeing: AgreeingVectors { AgreeingVectors(vectors, election) }

  /// Write the disjoint merge.
  func write(lambda: Double, output: OutputKind) -> Step {
    let merge = disjointMerge
    let addsBase = output == .weights
    return .sweep(
      sweep(sums: merge.sums, writes: true) { _, small, block, sums in
        merge.run(small, lambda: lambda, addsBase: addsBase, output: block.output!, block.outputType, sums: sums)
      } next: { sums in
        .finish(self.decision(counts: sums))
      })
  }

  /// The report: what was decided on the way, the share of elements that are not 0 after the filters, and the share of places
  /// in which signs disagree.
  func decision(counts: ArraySlice<Double> = []) -> Decision {
    var entries = self.entries
    let all = Double(max(1, tensor.count))
    if counts.count > settings.models {
      let kept = counts.prefix(settings.models).map { JSON.double($0 / all) }
      entries.append(.init(key: "kept", value: .array(kept)))
      entries.append(.init(key: "conflicts", value: .double(counts[counts.startIndex + settings.models] / all)))
    }
    return Decision(entries)
  }
}
