import Platform

/// Where each row of one input's embedding comes from, once its rows are the output's: segments of consecutive rows, in order
/// and without gaps.
struct RowMap: Equatable {
  /// Consecutive rows of an input.
  struct Rows: Equatable {
    /// Index of the plan's input.
    let input: Int
    let first: Int
  }

  enum Source: Equatable {
    case rows(Rows)
    /// The mean of a row of each, at least two.
    case mean([Rows])
    case zero
    /// The mean of all rows before the padding.
    case padding
  }

  struct Segment: Equatable {
    let first: Int
    let count: Int
    let source: Source
    var end: Int { first + count }
  }

  private(set) var segments: [Segment] = []

  /// - Parameters:
  ///   - runs: the input's own rows, ordered by output row; nil: all of its rows, in their places.
  ///   - input: index of the input.
  ///   - heights: rows that inputs have of this tensor; nil for one that has no such tensor.
  ///   - find: the index of the input that a model reference means.
  /// - Throws: `.recipe` when a row does not exist, or an output row comes from nowhere.
  init(
    _ vocabulary: Vocabulary, runs: [Vocabulary.Run]?, input: Int, tensor: String, heights: [Int?], paths: [String],
    find: (String) -> Int?
  ) throws(Failure) {
    let real = vocabulary.size - vocabulary.padding
    let height = heights[input] ?? 0
    let own = runs ?? (min(height, real) > 0 ? [.init(output: 0, stored: 0, count: min(height, real))] : [])
    if let bad = own.first(where: { $0.stored + $0.count > height }) {
      throw Failure(
        .recipe,
        "the vocabulary takes row \(bad.stored + bad.count - 1) of '\(tensor)' in \(paths[input]), which has \(height) rows: correct "
          + "vocabulary.rows")
    }
    var row = 0
    var (nextRun, nextFill) = (0, 0)
    while row < real {
      while nextRun < own.count, own[nextRun].output + own[nextRun].count <= row { nextRun += 1 }
      while nextFill < vocabulary.fills.count, vocabulary.fills[nextFill].output + vocabulary.fills[nextFill].count <= row {
        nextFill += 1
      }
      let run = nextRun < own.count ? own[nextRun] : nil
      let fill = nextFill < vocabulary.fills.count ? vocabulary.fills[nextFill] : nil
      let inFill = fill.map { $0.output <= row } ?? false
      // Where the choice may be another one: the ends of what covers this row, the beginnings of what comes.
      var end = real
      if let run { end = min(end, run.output <= row ? run.output + run.count : run.output) }
      if let fill { end = min(end, inFill ? fill.output + fill.count : fill.output) }
      if let run, run.output <= row, !(inFill && fill!.isForced) {
        append(row, end - row, .rows(Rows(input: input, first: run.stored + row - run.output)))
      } else if let fill, inFill {
        append(row, end - row, try Self.source(fill, at: row, count: end - row, tensor, heights, paths, find))
      } else {
        throw Failure(
          .recipe,
          "row \(row) of the vocabulary comes from nowhere in \(paths[input]), which has \(height) rows of '\(tensor)': give it a run in "
            + "vocabulary.rows, or an entry of vocabulary.fill")
      }
      row = end
    }
    if vocabulary.padding > 0 { append(real, vocabulary.padding, .padding) }
  }

  private static func source(
    _ fill: Vocabulary.Fill, at row: Int, count: Int, _ tensor: String, _ heights: [Int?], _ paths: [String],
    _ find: (String) -> Int?
  ) throws(Failure) -> Source {
    var rows: [Rows] = []
    for (model, first) in fill.from {
      guard let input = find(model) else {
        throw Failure(.recipe, "vocabulary.fill names \(model), which is not one of the recipe's models: list it there")
      }
      guard let height = heights[input] else {
        throw Failure(.recipe, "vocabulary.fill takes rows of '\(tensor)' from \(paths[input]), which has no such tensor")
      }
      let begin = first + row - fill.output
      guard begin + count <= height else {
        throw Failure(
          .recipe,
          "vocabulary.fill takes row \(begin + count - 1) of '\(tensor)' in \(paths[input]), which has \(height) rows")
      }
      rows.append(Rows(input: input, first: begin))
    }
    switch rows.count {
    case 0: return .zero
    case 1: return .rows(rows[0])
    default: return .mean(rows)
    }
  }

  /// Add a segment, joined to the one before where that goes on.
  private mutating func append(_ first: Int, _ count: Int, _ source: Source) {
    if let last = segments.last {
      var goesOn = false
      switch (last.source, source) {
      case (.rows(let before), .rows(let now)):
        goesOn = before.input == now.input && before.first + last.count == now.first
      case (.zero, .zero): goesOn = true
      default: break
      }
      if goesOn {
        segments[segments.count - 1] = Segment(first: last.first, count: last.count + count, source: last.source)
        return
      }
    }
    segments.append(Segment(first: first, count: count, source: source))
  }

  // MARK: - Questions

  /// Are these just the rows of the input, all of them, in their places?
  func isIdentity(input: Int, height: Int) -> Bool {
    segments == [Segment(first: 0, count: height, source: .rows(Rows(input: input, first: 0)))]
  }

  /// Are there rows that are computed, and not one row of one input?
  var hasMeans: Bool {
    segments.contains {
      switch $0.source {
      case .mean, .padding: true
      case .rows, .zero: false
      }
    }
  }

  /// Indices of the inputs it reads, ascending.
  var inputs: [Int] {
    var found: Set<Int> = []
    for segment in segments {
      switch segment.source {
      case .rows(let rows): found.insert(rows.input)
      case .mean(let list): found.formUnion(list.map(\.input))
      case .zero, .padding: break
      }
    }
    return found.sorted()
  }

  /// Position of the segment that holds a row.
  func segment(of row: Int) -> Int {
    var (low, high) = (0, segments.count - 1)
    while low < high {
      let middle = (low + high + 1) / 2
      if segments[middle].first <= row { low = middle } else { high = middle - 1 }
    }
    return low
  }

  /// Rows of each kind: the input's own, those from elsewhere, zeros and padding.
  func counts(input: Int) -> (own: Int, filled: Int, zero: Int, padding: Int) {
    var counts = (own: 0, filled: 0, zero: 0, padding: 0)
    for segment in segments {
      switch segment.source {
      case .rows(let rows) where rows.input == input: counts.own += segment.count
      case .rows, .mean: counts.filled += segment.count
      case .zero: counts.zero += segment.count
      case .padding: counts.padding += segment.count
      }
    }
    return counts
  }
}
