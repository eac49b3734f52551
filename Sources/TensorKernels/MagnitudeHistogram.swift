// Exact order statistics of |d_i| without a sort: histograms of the magnitude's bit pattern, which orders non-negative floats.
//
//   counts[i][(pattern >> shift) mod 2^binBits] += 1   for elements whose higher bits are prefix_i
//
// A level looks at binBits bits below those that earlier levels have settled: binary32 patterns (31 bits) take two levels of 16
// bits. Then come the ties: how many elements of each cell of 65536 are equal to the threshold, and where a given one stands.
// Shapes, types and NaN rule: TaskVectors.swift. Counts are whole numbers, so the order of work does not matter.
// Traffic: (K + 1) * size bytes per element and level.

/// What one level of the search looks at, for one model.
public struct HistogramLevel {
  /// Bits above the bins that an element must have; nil: the model takes no part.
  public var prefix: UInt64?
  public var shift: Int
  public var binBits: Int

  public init(prefix: UInt64?, shift: Int, binBits: Int) {
    self.prefix = prefix
    self.shift = shift
    self.binBits = binBits
  }
}

extension TaskVectors {
  /// Elements per cell in which ties are counted. Stretches are multiples of it, so one worker at a time counts in a cell.
  public static let cell = 65536

  /// Count the magnitudes of a block.
  /// - Parameter counts: model i's bins from `i << binBits` on.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addHistogram(
    _ block: TaskVectorBlock, _ levels: [HistogramLevel], into counts: UnsafeMutablePointer<UInt64>
  ) -> Double {
    switch block.inputs.dtype {
    case .bf16: histogram(BF16Element.self, block, levels, counts)
    case .f16: histogram(F16Element.self, block, levels, counts)
    case .f32: histogram(F32Element.self, block, levels, counts)
    case .f64: histogram(F64Element.self, block, levels, counts)
    default: preconditionFailure("magnitude histogram has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func histogram<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ levels: [HistogramLevel], _ counts: UnsafeMutablePointer<UInt64>
  ) -> Double {
    let narrow = self.narrow
    return chunks(Element.self, block) { rows, _, length, vectors in
      for (k, level) in levels.enumerated() {
        guard let prefix = level.prefix else { continue }
        let row = rows[k]
        let bins = counts + k << level.binBits
        let (shift, top) = (UInt64(level.shift), UInt64(level.shift + level.binBits))
        let mask = UInt64(1) << UInt64(level.binBits) - 1
        for i in 0..<(8 * vectors) {
          let pattern = Element.Arithmetic.pattern(row[i], narrow: narrow)
          if pattern >> top == prefix { bins[Int(pattern >> shift & mask)] += 1 }
        }
        // The padding of the last 16 counted as zeros.
        if prefix == 0 { bins[0] -= UInt64(8 * vectors - length) }
      }
    }
  }

  /// Count the elements equal to a model's threshold, per cell.
  /// - Parameters:
  ///   - thresholds: per model; nil: not counted.
  ///   - counts: model i's cells from `i * cells` on.
  @inline(never)
  public func addTies(
    _ block: TaskVectorBlock, _ thresholds: [Double?], into counts: UnsafeMutablePointer<Int>, cells: Int
  ) {
    ties(block, thresholds) { k, element in counts[k * cells + element / Self.cell] += 1 }
  }

  /// Find the element that is the `remaining[i]`-th tie (from 1) of model i in its cell, blocks of a cell coming in order.
  /// - Parameter found: receives the element's index plus 1.
  @inline(never)
  public func findTies(
    _ block: TaskVectorBlock, _ thresholds: [Double?], inCells cells: [Int?], remaining: UnsafeMutablePointer<Int>,
    found: UnsafeMutablePointer<Int>
  ) {
    ties(block, thresholds) { k, element in
      guard cells[k] == element / Self.cell else { return }
      remaining[k] -= 1
      if remaining[k] == 0 { found[k] = element + 1 }
    }
  }

  /// Call `body(model, element)` for each tie, in the order of the elements.
  @inline(__always)
  private func ties(_ block: TaskVectorBlock, _ thresholds: [Double?], _ body: (Int, Int) -> Void) {
    switch block.inputs.dtype {
    case .bf16: ties(BF16Element.self, block, thresholds, body)
    case .f16: ties(F16Element.self, block, thresholds, body)
    case .f32: ties(F32Element.self, block, thresholds, body)
    case .f64: ties(F64Element.self, block, thresholds, body)
    default: preconditionFailure("tie search has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func ties<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ thresholds: [Double?], _ body: (Int, Int) -> Void
  ) {
    typealias Scalar = Element.Arithmetic
    let narrow = self.narrow
    _ = chunks(Element.self, block) { rows, offset, length, vectors in
      for (k, threshold) in thresholds.enumerated() {
        guard let threshold else { continue }
        let cut = Scalar(threshold)
        let row = rows[k]
        for tile in 0..<(vectors / 2) {
          var any = SIMD8<Scalar>.zero
          for v in (2 * tile)...(2 * tile + 1) {
            let rank = Scalar.magnitudes(rows.vector(k, v), narrow: narrow)
            any += (1 - Scalar.above(rank, SIMD8(repeating: cut))) * (1 - Scalar.above(SIMD8(repeating: cut), rank))
          }
          if any == .zero { continue }
          for element in 0..<min(16, length - 16 * tile) {
            if Scalar.pattern(row[16 * tile + Element.position(of: element)], narrow: narrow)
              == Scalar.pattern(cut, narrow: narrow)
            {
              body(k, block.start + offset + 16 * tile + element)
            }
          }
        }
      }
    }
  }
}
