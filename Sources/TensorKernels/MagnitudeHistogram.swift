// Histograms of |d_i|, and the magnitudes that are equal to a threshold.
//
//   counts[i][pattern >> 15] += 1   over the 31 bits of a binary32 pattern, which orders magnitudes: 65536 bins
//   ties: how many elements of each cell of 65536 are equal to the threshold, and where a given one of them stands
//
// Shapes, types and NaN rule: TaskVectors.swift. Counts are whole numbers, so the order of work does not matter.
// Traffic: (K + 1) * size bytes per element.

extension TaskVectors {
  /// Elements per cell in which ties are counted. Stretches are multiples of it, so one worker at a time counts in a cell.
  public static let cell = 65536

  /// Bins of a model's histogram.
  public static let histogramBins = 1 << 16

  /// Count the magnitudes of a block, as they are ranked in binary32.
  /// - Parameter counts: model i's bins from `i * histogramBins` on.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addHistogram(_ block: TaskVectorBlock, into counts: UnsafeMutablePointer<UInt64>) -> Double {
    switch block.inputs.dtype {
    case .bf16: histogram(BF16Element.self, block, counts)
    case .f16: histogram(F16Element.self, block, counts)
    case .f32: histogram(F32Element.self, block, counts)
    case .f64: histogram(F64Element.self, block, counts)
    default: preconditionFailure("magnitude histogram has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func histogram<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ counts: UnsafeMutablePointer<UInt64>
  ) -> Double {
    chunks(Element.self, block) { chunk in
      for k in 0..<models {
        let (row, bins) = (chunk.rows[k], counts + k * Self.histogramBins)
        for i in 0..<8 * chunk.vectors { bins[Int(Element.Arithmetic.pattern(row[i], narrow: true) >> 15)] += 1 }
        // The padding of the last 16 counted as zeros.
        bins[0] -= UInt64(8 * chunk.vectors - chunk.length)
      }
    }
  }

  /// Count the elements equal to a model's threshold, per cell. The block starts at a multiple of a chunk.
  /// - Parameters:
  ///   - thresholds: per model; nil: not counted.
  ///   - counts: model i's cells from `i * cells` on.
  @inline(never)
  public func addTies(
    _ block: TaskVectorBlock, _ thresholds: [Double?], into counts: UnsafeMutablePointer<Int>, cells: Int
  ) {
    switch block.inputs.dtype {
    case .bf16: ties(BF16Element.self, block, thresholds, counts, cells)
    case .f16: ties(F16Element.self, block, thresholds, counts, cells)
    case .f32: ties(F32Element.self, block, thresholds, counts, cells)
    case .f64: ties(F64Element.self, block, thresholds, counts, cells)
    default: preconditionFailure("tie count has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func ties<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ thresholds: [Double?], _ counts: UnsafeMutablePointer<Int>, _ cells: Int
  ) {
    _ = chunks(Element.self, block) { chunk in
      let (rows, length, vectors) = (chunk.rows, chunk.length, chunk.vectors)
      for (k, threshold) in thresholds.enumerated() {
        guard let threshold else { continue }
        counts[k * cells + chunk.start / Self.cell] += equal(rows, k, threshold, length, vectors)
      }
    }
  }

  /// How many of a chunk's magnitudes are equal to a threshold.
  @inline(__always)
  private func equal<Scalar: ArithmeticScalar>(
    _ rows: Rows<Scalar>, _ k: Int, _ threshold: Double, _ length: Int, _ vectors: Int
  ) -> Int {
    let cut = SIMD8<Scalar>(repeating: Scalar(threshold))
    var apart = SIMD8<Scalar.Count>.zero
    for v in 0..<vectors {
      let rank = Scalar.magnitudes(rows.vector(k, v), narrow: narrow)
      apart &-= Scalar.isBelow(rank, cut) | Scalar.isBelow(cut, rank)
    }
    // The padding of the last 16 is 0, and equal to a threshold of 0.
    let padding = threshold == 0 ? 8 * vectors - length : 0
    return 8 * vectors - Int(apart.wrappedSum()) - padding
  }

  /// Find the element that is the `remaining[i]`-th tie (from 1) of model i in its cell, blocks of a cell coming in order.
  /// - Parameter found: receives the element's index plus 1.
  @inline(never)
  public func findTies(
    _ block: TaskVectorBlock, _ thresholds: [Double?], inCells cells: [Int?], remaining: UnsafeMutablePointer<Int>,
    found: UnsafeMutablePointer<Int>
  ) {
    switch block.inputs.dtype {
    case .bf16: find(BF16Element.self, block, thresholds, cells, remaining, found)
    case .f16: find(F16Element.self, block, thresholds, cells, remaining, found)
    case .f32: find(F32Element.self, block, thresholds, cells, remaining, found)
    case .f64: find(F64Element.self, block, thresholds, cells, remaining, found)
    default: preconditionFailure("tie search has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func find<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ thresholds: [Double?], _ cells: [Int?], _ remaining: UnsafeMutablePointer<Int>,
    _ found: UnsafeMutablePointer<Int>
  ) {
    typealias Scalar = Element.Arithmetic
    let (models, narrow) = (self.models, self.narrow)
    withRowFilters(Element.self, block) { filters in
      for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
        let chunk = TaskVectorChunk<Element>(block, offset: offset, models: models)
        for (k, threshold) in thresholds.enumerated() {
          guard let threshold, remaining[k] > 0, cells[k] == chunk.start / Self.cell else { continue }
          _ = filters[k].fill(chunk, k, nil)
          let equal = equal(chunk.rows, k, threshold, chunk.length, chunk.vectors)
          if equal < remaining[k] {
            remaining[k] -= equal
            continue
          }
          let pattern = Scalar.pattern(Scalar(threshold), narrow: narrow)
          let row = chunk.rows[k]
          var i = -1
          // Equal or not, without a branch, which would be guessed wrong at most of them.
          while remaining[k] > 0 {
            i += 1
            let position = i & ~15 | Element.position(of: i & 15)
            remaining[k] -= Scalar.pattern(row[position], narrow: narrow) == pattern ? 1 : 0
          }
          found[k] = chunk.start + i + 1
        }
      }
    }
  }
}
