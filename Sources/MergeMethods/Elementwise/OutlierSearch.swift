import JSON
import Platform
import TensorKernels

// Two cuts per model: of n magnitudes, the largest floor(gamma n) go, and of the rest the smallest, until floor(density n) are left.
//
// In descending order, equal magnitudes by the lowest index: `outliers` go, `kept` stay, the others go. Where density and gamma add
// up to more than 1, fewer outliers go: the density holds.
// One search finds both thresholds of all models (BracketSearch.swift). Traffic of each sweep: (K + 1) * size bytes per element.

final class OutlierSearch {
  private let stages: TaskVectorStages
  private let settings: TaskVectorSettings
  private let models: Int
  private let counts: [(outliers: Int, kept: Int)]

  init(_ stages: TaskVectorStages) {
    self.stages = stages
    settings = stages.settings
    models = settings.models
    let settings = self.settings
    counts = (0..<models).map { settings.outliers($0, elements: stages.tensor.count) }
    for (k, count) in counts.enumerated() where count.kept == 0 { stages.vectors.filters[k].cut = .everything }
  }

  typealias Next = () throws(Failure) -> Step

  func begin(_ next: @escaping Next) throws(Failure) -> Step {
    let search = BracketSearch(stages, targets: targets())
    return try search.begin { () throws(Failure) in try self.ties(search, next) }
  }

  // MARK: - Thresholds

  /// 0..<K are the lower cuts, K..<2K the upper ones.
  private func targets() -> [ThresholdTarget?] {
    let elements = stages.tensor.count
    let lower = counts.map { count in
      let rank = count.outliers + count.kept
      return count.kept == 0 || rank >= elements ? nil : ThresholdTarget(rank: rank, ties: .fill)
    }
    let upper = counts.map { count in
      count.kept == 0 || count.outliers == 0 ? nil : ThresholdTarget(rank: count.outliers, ties: .fill)
    }
    return lower + upper
  }

  // MARK: - Ties

  private func set(_ entry: Int, _ value: Double, ties: Int) {
    if entry < models {
      stages.vectors.filters[entry].cut = .below(threshold: value, tiesBefore: ties)
    } else {
      stages.vectors.filters[entry - models].ceiling = .above(threshold: value, dropsBefore: ties)
    }
  }

  /// Set the cuts; where they go through equal magnitudes, find out where.
  private func ties(_ search: BracketSearch, _ next: @escaping Next) throws(Failure) -> Step {
    let (found, cells) = (search.found, search.cells)
    let vectors = stages.vectors
    let values = found.map { found in found.map { JSON.double($0.value) } ?? .null }
    stages.entries.append(.init(key: "thresholds", value: .array(Array(values[..<models]))))
    stages.entries.append(.init(key: "outlier_thresholds", value: .array(Array(values[models...]))))
    var open: [Double?] = found.map { _ in nil }
    for (entry, threshold) in found.enumerated() {
      guard let threshold else { continue }
      set(entry, threshold.value, ties: .max)
      if threshold.keptTies < threshold.equal { open[entry] = threshold.value }
    }
    guard open.contains(where: { $0 != nil }) else { return try next() }
    let uncounted = zip(open, search.isCounted).map { $1 ? nil : $0 }
    guard uncounted.contains(where: { $0 != nil }) else { return place(found, open, cells, vectors, next) }
    let (lower, upper) = (Array(uncounted[..<models]), Array(uncounted[models...]))
    return .sweep(
      stages.sweep(sums: 0) { [models] _, block, _, _ in
        vectors.addTies(block, lower, into: cells.counts, cells: cells.cells)
        vectors.addTies(block, upper, into: cells.counts + models * cells.cells, cells: cells.cells)
        return 0
      } next: { (_) throws(Failure) in
        self.place(found, open, cells, vectors, next)
      })
  }

  /// Find the last equal magnitude on this side of each cut, in the one cell where it must be.
  private func place(
    _ found: [FoundThreshold?], _ open: [Double?], _ cells: TieCells, _ vectors: TaskVectors, _ next: @escaping Next
  ) -> Step {
    var searched: [Int?] = open.map { _ in nil }
    for (entry, threshold) in found.enumerated() where open[entry] != nil {
      let (cell, rank) = cells.cell(entry, rank: threshold!.keptTies)
      (searched[entry], cells.remaining[entry]) = (cell, rank)
    }
    let (lower, upper) = (Array(open[..<models]), Array(open[models...]))
    let (lowerCells, upperCells) = (Array(searched[..<models]), Array(searched[models...]))
    let ranges = Set(searched.compactMap { $0 }).sorted().map { $0 * TaskVectors.cell..<($0 + 1) * TaskVectors.cell }
    return .sweep(
      stages.sweep(sums: 0, ranges: ranges) { [models] _, block, _, _ in
        vectors.findTies(block, lower, inCells: lowerCells, remaining: cells.remaining, found: cells.found)
        vectors.findTies(
          block, upper, inCells: upperCells, remaining: cells.remaining + models, found: cells.found + models)
        return 0
      } next: { (_) throws(Failure) in
        for entry in open.indices where open[entry] != nil { self.set(entry, open[entry]!, ties: cells.found[entry]) }
        return try next()
      })
  }
}

extension TaskVectorSettings {
  /// How many of the largest elements of a model's task vector go, and how many of the others stay.
  func outliers(_ model: Int, elements: Int) -> (outliers: Int, kept: Int) {
    guard let gamma, density[model] > 0, elements > 0 else { return (0, 0) }
    if density[model] >= 1 { return (0, elements) }
    let counted = Int(density[model] * Double(elements))
    let kept = keepsOne ? max(1, counted) : counted
    return (min(Int(gamma[model] * Double(elements)), elements - kept), kept)
  }
}

extension ParameterSchema {
  static let gamma = ParameterSchema(
    "gamma", .number, default: 0.01, minimum: 0, maximum: 1, perModel: true,
    summary: "Share of the elements, the largest ones, that goes besides the smallest.", source: "0.01: mergekit.")

  static let breadcrumbsCompat = compatMergekit(
    "mergekit: a density of less than one element keeps none; no L1 rescale where a sum is below 1e-7.")
}

extension Parameters {
  /// The parameters of both kinds of Breadcrumbs.
  func breadcrumbs(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: try perModel("weight", count: models))
    settings.density = try perModel("density", count: models)
    settings.gamma = try perModel("gamma", count: models)
    settings.rescale = choice("rescale", as: TaskVectorSettings.Rescale.self)
    settings.rescalesAfterTrim = true
    settings.keepsOne = !isMergekit
    if isMergekit { settings.smallestSum = 1e-7 }
    return settings
  }
}
