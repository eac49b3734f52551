// Element scores: a number per element that several models have in common, its histograms, and the task vectors where it is high.
//
//   deviation: standard deviation of the models' values, sqrt(sum_i (d_i - m)² / K), m their mean
//   change:    |d_1| times a number of the element's row
//   histogram: counts[(pattern >> shift) mod 2^binBits] += 1 for scores whose higher bits are the level's prefix
//
// Scores are compared in binary32, or in binary64 where an input is F64. An element is chosen if its score is above the threshold, or
// equal to it and before element `tiesBefore`. Equal models have deviation 0, whatever rounding says: deviations are taken from the
// first model's value.
// Shapes: inputs [n], the base first. Types: F32 or F64, all the same; arithmetic binary64. NaN: as in TaskVectors.swift.
// Counts are whole numbers. Nothing is stored: each sweep makes the same scores again. Traffic: (K + 1) * size bytes per element.

/// A number per row, made by one sweep and read by the next ones.
public final class RowNumbers: @unchecked Sendable {
  // @unchecked: every row is written by one worker, before anyone reads.
  public let values: UnsafeMutablePointer<Double>
  public let count: Int

  public init(count: Int) {
    self.count = count
    values = .allocate(capacity: max(1, count))
    values.initialize(repeating: 0, count: max(1, count))
  }

  deinit { values.deallocate() }
}

/// What one level of a search for an order statistic counts: bits of the scores' patterns, below those that are settled.
public struct HistogramLevel {
  /// Bits above the bins that a score must have; nil: nothing is counted.
  public var prefix: UInt64?
  public var shift: Int
  public var binBits: Int

  public init(prefix: UInt64?, shift: Int, binBits: Int) {
    self.prefix = prefix
    self.shift = shift
    self.binBits = binBits
  }
}

public struct ElementScores: Sendable {
  public enum Rule: Sendable {
    case deviation
    case change(RowNumbers, rowLength: Int)
  }

  /// Which elements are chosen.
  public enum Choice: Sendable {
    case all
    case none
    case from(threshold: Double, tiesBefore: Int)
  }

  public let rule: Rule
  public let vectors: TaskVectors
  /// Are scores compared in binary32?
  public let narrow: Bool

  public init(_ rule: Rule, models: Int, narrow: Bool) {
    self.rule = rule
    self.narrow = narrow
    vectors = TaskVectors(filters: [TaskVectorFilter](repeating: TaskVectorFilter(), count: models), narrow: narrow)
  }

  /// Row of the workspace that holds the scores.
  private var scoreRow: Int { vectors.models + 1 }

  /// Call `body` for each chunk of the block, the scores in their row.
  @inline(__always)
  private func chunks<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock,
    _ body: (_ rows: Rows<Double>, _ offset: Int, _ length: Int, _ count: Int) -> Void
  ) -> Double where Element.Arithmetic == Double {
    vectors.chunks(Element.self, block, raw: true) { chunk in
      score(chunk.rows, start: chunk.start, length: chunk.length, vectors: chunk.vectors)
      body(chunk.rows, chunk.offset, chunk.length, chunk.vectors)
    }
  }

  @inline(__always)
  private func score(_ rows: Rows<Double>, start: Int, length: Int, vectors count: Int) {
    let models = vectors.models
    switch rule {
    case .deviation:
      let share = 1 / Double(models)
      for v in 0..<count {
        let first = rows.vector(0, v)
        var mean = SIMD8<Double>.zero
        for k in 1..<max(1, models) { mean += rows.vector(k, v) - first }
        mean *= share
        var sum = mean * mean
        for k in 1..<max(1, models) {
          let e = (rows.vector(k, v) - first) - mean
          sum += e * e
        }
        rows.set(scoreRow, v, ranked((sum * share).squareRoot()))
      }
    case .change(let numbers, let length):
      // Rows of the tensor end anywhere in a chunk; the last one's number serves the padding.
      let weights = rows[scoreRow]
      var (from, row, left) = (0, start / length, length - start % length)
      while from < 8 * count {
        let end = row + 1 < numbers.count ? min(8 * count, from + left) : 8 * count
        let number = numbers.values[min(row, numbers.count - 1)]
        (weights + from).update(repeating: number, count: end - from)
        (from, row, left) = (end, row + 1, length)
      }
      for v in 0..<count {
        let change = Double.magnitudes(rows.vector(0, v), narrow: false)
        rows.set(scoreRow, v, ranked(change * rows.vector(scoreRow, v)))
      }
    }
  }

  @inline(__always)
  private func ranked(_ score: SIMD8<Double>) -> SIMD8<Double> { Double.magnitudes(score, narrow: narrow) }

  // MARK: - Counting

  /// Count the scores of a block into one histogram per level, and how many are not 0.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addHistograms(
    _ block: TaskVectorBlock, _ levels: [HistogramLevel], into counts: UnsafeMutablePointer<UInt64>,
    nonZero: UnsafeMutablePointer<Double>
  ) -> Double {
    block.inputs.dtype == .f64
      ? histograms(F64Element.self, block, levels, counts, nonZero)
      : histograms(F32Element.self, block, levels, counts, nonZero)
  }

  @inline(__always)
  private func histograms<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ levels: [HistogramLevel], _ counts: UnsafeMutablePointer<UInt64>,
    _ nonZero: UnsafeMutablePointer<Double>
  ) -> Double where Element.Arithmetic == Double {
    chunks(Element.self, block) { rows, _, length, count in
      nonZero.pointee += rows.nonZeros(scoreRow, vectors: count)
      for (k, level) in levels.enumerated() {
        let bins = counts + k << level.binBits
        if narrow, level.prefix != 0 {
          addPart(level, rows, length: length, vectors: count, to: bins)
        } else if let prefix = level.prefix {
          let (shift, top) = (UInt64(level.shift), UInt64(level.shift + level.binBits))
          let mask = UInt64(1) << UInt64(level.binBits) - 1
          let scores = rows[scoreRow]
          for i in 0..<length {
            let pattern = Double.pattern(scores[i], narrow: narrow)
            if pattern >> top == prefix { bins[Int(pattern >> shift & mask)] += 1 }
          }
        }
      }
    }
  }

  /// Count scores in binary32 of which few have the prefix: eight at a time are looked at.
  @inline(__always)
  private func addPart(
    _ level: HistogramLevel, _ rows: Rows<Double>, length: Int, vectors count: Int, to bins: UnsafeMutablePointer<UInt64>
  ) {
    guard let prefix = level.prefix else { return }
    let (shift, top) = (UInt32(level.shift), UInt32(level.shift + level.binBits))
    let mask = UInt32(1) << UInt32(level.binBits) - 1
    for v in 0..<count {
      let patterns = Double.patterns32(rows.vector(scoreRow, v))
      let difference = unsafeBitCast((patterns &>> top) ^ UInt32(prefix), to: SIMD8<Int32>.self)
      // All bits where it is 0.
      var equal = Float.bytes((difference &- 1) &>> 31)
      while equal != 0 {
        let lane = equal.trailingZeroBitCount / 8
        if 8 * v + lane < length { bins[Int(patterns[lane] >> shift & mask)] += 1 }
        equal &= ~(0xFF << UInt64(8 * lane))
      }
    }
  }

  /// Count the elements of each cell whose score is `threshold`.
  @inline(never)
  public func addTies(_ block: TaskVectorBlock, _ threshold: Double, into counts: UnsafeMutablePointer<Int>) {
    if block.inputs.dtype == .f64 {
      ties(F64Element.self, block, threshold) { cell, _ in counts[cell] += 1 }
    } else {
      ties(F32Element.self, block, threshold) { cell, _ in counts[cell] += 1 }
    }
  }

  /// Find the `remaining`-th tie (from 1) of a cell, blocks of the cell coming in order.
  /// - Parameter found: receives the element's index plus 1.
  @inline(never)
  public func findTie(
    _ block: TaskVectorBlock, _ threshold: Double, remaining: UnsafeMutablePointer<Int>, found: UnsafeMutablePointer<Int>
  ) {
    func look(_: Int, _ element: Int) {
      remaining.pointee -= 1
      if remaining.pointee == 0 { found.pointee = element + 1 }
    }
    if block.inputs.dtype == .f64 {
      ties(F64Element.self, block, threshold, look)
    } else {
      ties(F32Element.self, block, threshold, look)
    }
  }

  @inline(__always)
  private func ties<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ threshold: Double, _ body: (_ cell: Int, _ element: Int) -> Void
  ) where Element.Arithmetic == Double {
    _ = chunks(Element.self, block) { rows, offset, length, _ in
      let scores = rows[scoreRow]
      for i in 0..<length where scores[i] == threshold {
        let element = block.start + offset + i
        body(element / TaskVectors.cell, element)
      }
    }
  }

  // MARK: - Choosing

  /// Set to zero what is not chosen, of all task vectors of a chunk; for kernels that follow.
  @inline(__always)
  func choose(_ choice: Choice, _ rows: Rows<Double>, start: Int, length: Int, vectors count: Int) {
    switch choice {
    case .all: return
    case .none: for k in 0..<vectors.models { for v in 0..<count { rows.set(k, v, .zero) } }
    case .from(let threshold, let tiesBefore):
      score(rows, start: start, length: length, vectors: count)
      if tiesBefore <= start || tiesBefore >= start + length {
        let least = SIMD8<Double>(repeating: tiesBefore <= start ? threshold.nextUp : threshold)
        for v in 0..<count {
          let isLow = Double.isBelow(rows.vector(scoreRow, v), least)
          for k in 0..<vectors.models { rows.set(k, v, Double.cleared(rows.vector(k, v), where: isLow)) }
        }
        return
      }
      let scores = rows[scoreRow]
      for i in 0..<(8 * count) {
        let isChosen = scores[i] > threshold || scores[i] == threshold && start + i < tiesBefore
        if !isChosen { for k in 0..<vectors.models { rows[k][i] = 0 } }
      }
    }
  }
}
