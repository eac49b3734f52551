// Agreeing vectors: of filtered task vectors e_i = f_i d_i the elements whose sign is the elected one, the others 0.
//
//   f_i = e_i where sign(e_i) = elected sign, else 0;   sum += f_i . f_j;   out = x_0 + lambda sum_i c_i f_i, or lambda times their median
//
// Shapes, types and NaN rule: TaskVectors.swift; election: SignElection.swift. Accumulators of products: as in Rows.swift, at most 64
// additions in the arithmetic type, then binary64. One rounding to the output. Traffic: (K + 1) * size bytes per element, and the output's.

/// The elements that agree with the elected sign, the others 0: points of K models.
public struct AgreeingVectors: Sendable {
  public let vectors: TaskVectors
  public let election: SignElection

  public init(_ vectors: TaskVectors, _ election: SignElection) {
    self.vectors = vectors
    self.election = election
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
    election.withRows(Element.Arithmetic.self) { election in
      let agreeing = AgreeingRows(election: election)
      let onePass = OnePassSelection(election, Element.self)
      return vectors.withRowFilters(Element.self, block, factors: self.election.factors) { filters in
        var poison = 0.0
        for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
          var chunk = TaskVectorChunk<Element>(block, offset: offset, models: election.models)
          if onePass?.take(chunk, filters) != true {
            poison += chunk.fill(filters)
            agreeing.select(chunk.rows, vectors: chunk.vectors)
          }
          chunk.rows.addProducts(pairs, vectors: chunk.vectors, sums)
        }
        return poison
      }
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
    var (coefficients, isMedian) = ([Double](), true)
    if case .combination(let given) = centre { (coefficients, isMedian) = (given, false) }
    return election.withRows(In.Arithmetic.self) { election in
      withScalars(coefficients) { coefficients in
        let agreeing = AgreeingRows(election: election)
        let onePass = isMedian ? nil : OnePassCombination(election, coefficients, place, In.self, Out.self)
        return vectors.withRowFilters(In.self, block, factors: self.election.factors) { filters in
          var poison = 0.0
          for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
            var chunk = TaskVectorChunk<In>(block, offset: offset, models: election.models)
            if let onePass, onePass.take(chunk, filters) { continue }
            poison += chunk.fill(filters)
            if isMedian {
              agreeing.takeMedians(chunk.rows, vectors: chunk.vectors)
            } else {
              agreeing.combine(chunk.rows, vectors: chunk.vectors, coefficients)
            }
            place.store(chunk, Out.self)
          }
          return poison
        }
      }
    }
  }
}

/// Agreeing vectors as the chunks of a block take them: numbers and addresses only, see TaskVectorChunk.
private struct AgreeingRows<Scalar: ArithmeticScalar> {
  let election: RowElection<Scalar>

  /// Votes by mass and by count are cast where the elements are read; of the others the signs come first.
  private var votesInPlace: Bool { election.rule == .mass || election.rule == .count }

  /// The elected signs of vector `v` of each row.
  @inline(__always)
  private func signs(_ rows: Rows<Scalar>, _ v: Int, models: Int) -> SIMD8<Scalar> {
    var vote = SIMD8<Scalar>.zero
    switch election.rule {
    case .mass: for k in 0..<models { vote += rows.vector(k, v) }
    case .count: for k in 0..<models { vote += Scalar.signs(rows.vector(k, v)) }
    default: return rows.vector(election.models, v)
    }
    return Scalar.signs(vote, ofZero: election.zeroSign)
  }

  /// Rows 0..<K of e_i as e_i where the sign agrees, else 0.
  @inline(__always)
  func select(_ rows: Rows<Scalar>, vectors count: Int) {
    guard election.votes else { return }
    let result = election.models
    election.elect(rows, vectors: count, into: result)
    for k in 0..<election.models {
      for v in 0..<count {
        let e = rows.vector(k, v)
        // Times a sign of +-1, which is exact.
        rows.set(k, v, Scalar.positive(e * rows.vector(result, v), e))
      }
    }
  }

  /// sum_i c_i f_i into the result row.
  @inline(__always)
  func combine(_ rows: Rows<Scalar>, vectors count: Int, _ coefficients: UnsafePointer<Scalar>) {
    if election.votes, !votesInPlace { election.elect(rows, vectors: count, into: election.models) }
    switch election.models {
    case 2: combine(rows, vectors: count, Two.self, coefficients)
    case 3: combine(rows, vectors: count, Three.self, coefficients)
    case 4: combine(rows, vectors: count, Four.self, coefficients)
    default: combine(rows, vectors: count, Several.self, coefficients)
    }
  }

  @inline(never)
  private func combine<Models: FixedCount>(
    _ rows: Rows<Scalar>, vectors count: Int, _: Models.Type, _ coefficients: UnsafePointer<Scalar>
  ) {
    let (models, votes) = (Models.count ?? election.models, election.votes)
    for v in 0..<count {
      let sign = votes ? signs(rows, v, models: models) : .zero
      var total = SIMD8<Scalar>.zero
      for k in 0..<models {
        let e = rows.vector(k, v)
        total.addProduct(SIMD8(repeating: coefficients[k]), votes ? Scalar.positive(e * sign, e) : e)
      }
      rows.set(election.models, v, total)
    }
  }

  /// The median of the agreeing values into the result row.
  @inline(never)
  func takeMedians(_ rows: Rows<Scalar>, vectors count: Int) {
    select(rows, vectors: count)
    let result = rows[election.models]
    withUnsafeTemporaryAllocation(of: Scalar.self, capacity: max(1, election.models)) { values in
      for i in 0..<(8 * count) { result[i] = median(rows, i, values) }
    }
  }

  @inline(__always)
  private func median(
    _ rows: Rows<Scalar>, _ i: Int, _ values: UnsafeMutableBufferPointer<Scalar>
  ) -> Scalar {
    // Insertion into an ordered list: there are as many values as models.
    var found = 0
    for k in 0..<election.models where rows[k][i] != 0 {
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
