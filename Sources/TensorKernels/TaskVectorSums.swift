// Sums over filtered task vectors: |d_i|_1 before and after the filter (for an L1 rescale), and |e_i|^2.
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

/// The elements that agree with the elected sign, the others 0: points of K models.
public struct AgreeingVectors: Sendable {
  public let vectors: TaskVectors
  public let election: SignElection

  public init(_ vectors: TaskVectors, _ election: SignElection) {
    self.vectors = vectors
    self.election = election
  }

  /// Rows 0..<K of e_i as e_i where the sign agrees, else 0.
  @inline(__always)
  func select<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, vectors count: Int) {
    guard election.votes else { return }
    let result = vectors.resultRow
    election.elect(rows, vectors: count, into: result)
    for k in 0..<vectors.models {
      for v in 0..<count {
        let e = rows.vector(k, v)
        // Times a sign of +-1, which is exact.
        rows.set(k, v, Scalar.positive(e * rows.vector(result, v), e))
      }
    }
  }

  /// Add the inner products of `pairs` of agreeing vectors.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addProducts(_ block: TaskVectorBlock, _ pairs: RowPairs, to sums: UnsafeMutablePointer<Double>) -> Double {
    switch block.inputs.dtype {
    case .bf16: products(BF16Element.self, block, pairs, sums)
    case .f16: products(F16Element.self, block, pairs, sums)
    case .f32: products(F32Element.self, block, pairs, sums)
    case .f64: products(F64Element.self, block, pairs, sums)
    default: preconditionFailure("agreeing products have no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func products<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ pairs: RowPairs, _ sums: UnsafeMutablePointer<Double>
  ) -> Double {
    vectors.chunks(Element.self, block, factors: election.factors) { rows, _, _, count in
      select(rows, vectors: count)
      rows.addProducts(pairs, vectors: count, sums)
    }
  }

  /// What tau is made of the agreeing values of an element.
  public enum Centre: Sendable {
    /// sum_i c_i f_i.
    case combination([Double])
    /// The median of the values that agree; the mean of the two middle ones of an even number.
    case median
  }

  /// Write x_0 + lambda tau, or lambda tau; see `DisjointMerge.run` for the arguments.
  @inline(never)
  public func run(
    _ block: TaskVectorBlock, _ centre: Centre, lambda: Double, addsBase: Bool, output: UnsafeMutableRawPointer,
    _ outputType: DType
  ) -> Double {
    let place = MergedOutput(lambda: lambda, addsBase: addsBase, pointer: output)
    switch (block.inputs.dtype, outputType) {
    case (.bf16, .bf16): return run(BF16Element.self, BF16Element.self, block, centre, place)
    case (.f16, .f16): return run(F16Element.self, F16Element.self, block, centre, place)
    case (.f32, .f32): return run(F32Element.self, F32Element.self, block, centre, place)
    case (.f32, .f64): return run(F32Element.self, F64Element.self, block, centre, place)
    case (.f64, .f64): return run(F64Element.self, F64Element.self, block, centre, place)
    default: preconditionFailure("agreeing vectors have no kernel from \(block.inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private func run<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ block: TaskVectorBlock, _ centre: Centre, _ place: MergedOutput
  ) -> Double where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    return vectors.chunks(In.self, block, factors: election.factors) { rows, offset, length, count in
      select(rows, vectors: count)
      switch centre {
      case .combination(let coefficients):
        for v in 0..<count {
          var total = SIMD8<Scalar>.zero
          for k in 0..<vectors.models { total.addProduct(SIMD8(repeating: Scalar(coefficients[k])), rows.vector(k, v)) }
          rows.set(vectors.resultRow, v, total)
        }
      case .median:
        let result = rows[vectors.resultRow]
        withUnsafeTemporaryAllocation(of: Scalar.self, capacity: max(1, vectors.models)) { values in
          for i in 0..<(8 * count) { result[i] = median(rows, i, values) }
        }
      }
      place.store(In.self, Out.self, rows, block, offset: offset, length: length, vectors.resultRow, vectors.poisonRow)
    }
  }

  @inline(__always)
  private func median<Scalar: ArithmeticScalar>(
    _ rows: Rows<Scalar>, _ i: Int, _ values: UnsafeMutableBufferPointer<Scalar>
  ) -> Scalar {
    // Insertion into an ordered list: there are as many values as models.
    var found = 0
    for k in 0..<vectors.models where rows[k][i] != 0 {
      var place = found
      while place > 0, values[place - 1] > rows[k][i] {
        values[place] = values[place - 1]
        place -= 1
      }
      values[place] = rows[k][i]
      found += 1
    }
    return found == 0 ? 0 : (values[(found - 1) / 2] + values[found / 2]) / 2
  }
}
