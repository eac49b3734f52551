// Sums over task vectors: |d_i|_1 before and after the filter, for an L1 rescale.
//
// Shapes, types and NaN rule: TaskVectors.swift. Accumulators: as in Rows.swift, at most 64 additions in the arithmetic type, then
// binary64. Traffic: (K + 1) * size bytes per element.

extension TaskVectors {
  /// Add |d_i|_1 of the raw task vectors to `sums[i]`, and of the filtered ones to `sums[K + i]`.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addMagnitudes(_ block: TaskVectorBlock, to sums: UnsafeMutablePointer<Double>) -> Double {
    switch block.inputs.dtype {
    case .bf16: magnitudes(BF16Element.self, block, sums)
    case .f16: magnitudes(F16Element.self, block, sums)
    case .f32: magnitudes(F32Element.self, block, sums)
    case .f64: magnitudes(F64Element.self, block, sums)
    default: preconditionFailure("magnitude sums have no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func magnitudes<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ sums: UnsafeMutablePointer<Double>
  ) -> Double {
    typealias Scalar = Element.Arithmetic
    func add(_ rows: Rows<Scalar>, _ vectors: Int, _ target: UnsafeMutablePointer<Double>) {
      for k in 0..<models {
        var (even, odd) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for v in stride(from: 0, to: vectors, by: 2) {
          even += Scalar.magnitudes(rows.vector(k, v), narrow: false)
          odd += Scalar.magnitudes(rows.vector(k, v + 1), narrow: false)
        }
        target[k] += laneSum(even) + laneSum(odd)
      }
    }
    let drops = firstDrops()
    return chunks(Element.self, block, raw: true) { rows, offset, length, vectors in
      let start = block.start + offset
      if let drops {
        for (k, drop) in drops.enumerated() {
          addDropped(Element.self, rows, k, drop, start: start, length: length, vectors: vectors, to: sums)
        }
      } else {
        add(rows, vectors, sums)
        for k in 0..<models { filter(Element.self, rows, k, start: start, length: length, vectors: vectors) }
        add(rows, vectors, sums + models)
      }
    }
  }

  private typealias Drop = (stream: RandomStream, limit: UInt32, mask: DropMask?)

  /// The random drops, if that is all the filters do, and none of them has been remembered.
  @inline(__always)
  private func firstDrops() -> [Drop]? {
    var drops: [Drop] = []
    for filter in filters {
      guard case .bernoulli(let stream, let limit, let mask) = filter.drop, case .none = filter.cut,
        case .none = filter.ceiling, mask?.isComplete != true
      else { return nil }
      drops.append((stream, limit, mask))
    }
    return drops
  }

  /// Both sums of one row, in one pass over it.
  @inline(__always)
  private func addDropped<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ k: Int, _ drop: Drop, start: Int, length: Int, vectors: Int,
    to sums: UnsafeMutablePointer<Double>
  ) {
    typealias Scalar = Element.Arithmetic
    order(Element.self, rows, drop.stream, start, length, vectors)
    let words = UnsafeRawPointer(rows[wordsRow])
    let wanted = drop.mask?.wanted(start, paired: Element.isPaired)
    var (even, odd) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
    var (keptEven, keptOdd) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
    for group in 0..<(vectors + 31) / 32 {
      var bits = SIMD8<Int32>.zero
      var bit: Int32 = 1
      for v in stride(from: 32 * group, to: min(32 * group + 32, vectors), by: 2) {
        let first = masks(of: words.load(fromByteOffset: 32 * v, as: SIMD8<UInt32>.self), below: drop.limit)
        let second = masks(of: words.load(fromByteOffset: 32 * v + 32, as: SIMD8<UInt32>.self), below: drop.limit)
        let magnitudes = Scalar.magnitudes(rows.vector(k, v), narrow: false)
        let others = Scalar.magnitudes(rows.vector(k, v + 1), narrow: false)
        even += magnitudes
        odd += others
        keptEven += Scalar.kept(magnitudes, mask: first)
        keptOdd += Scalar.kept(others, mask: second)
        bits |= (first & bit) | (second & (bit &<< 1))
        bit &<<= 2
      }
      if let wanted { wanted[group] = bits }
    }
    sums[k] += laneSum(even) + laneSum(odd)
    sums[models + k] += laneSum(keptEven) + laneSum(keptOdd)
  }
}
