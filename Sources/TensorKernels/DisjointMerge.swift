// Sign election and disjoint merge of filtered task vectors (TIES and its kin).
//
//   e_i = f_i d_i;   gamma = the elected sign;   A = {i : sign(e_i) = gamma}
//   mean: sum_A e_i / sum_A b_i (a divisor of 0 counts as 1)    sum: sum_A e_i    max: the largest |e_i| of A, later model first
//   result: x_0 + lambda * tau, or lambda * tau
//
// gamma: SignElection.swift.
// Shapes, types and NaN rule: TaskVectors.swift; a poisoned element comes out NaN. Arithmetic: the elements' arithmetic type,
// rounded once to the output. A result of tau = 0 is x_0, the sign of its zero included.
// Source: Yadav et al., "TIES-Merging", arXiv:2306.01708.

/// What becomes of the elements that agree.
public struct DisjointMerge: Sendable {
  public enum Rule: Sendable { case mean, sum, max }

  public let vectors: TaskVectors
  public let election: SignElection
  public let rule: Rule
  /// b_i: what the mean divides by.
  public let weights: [Double]

  public init(_ vectors: TaskVectors, _ election: SignElection, _ rule: Rule, weights: [Double]) {
    self.vectors = vectors
    self.election = election
    self.rule = rule
    self.weights = weights
  }

  /// Elements that `run` adds up: per model how many are not 0 after the filter, and in how many places signs disagree.
  public var sums: Int { vectors.models + 1 }

  /// - Parameters:
  ///   - lambda: the factor of tau.
  ///   - addsBase: is x_0 added?
  ///   - output: `block.count` elements of `outputType`: the inputs' type, or F64 for F32 and F64 inputs.
  ///   - sums: `sums` values to add to.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func run(
    _ block: TaskVectorBlock, lambda: Double, addsBase: Bool, output: UnsafeMutableRawPointer, _ outputType: DType,
    sums: UnsafeMutablePointer<Double>
  ) -> Double {
    let place = MergedOutput(lambda: lambda, addsBase: addsBase, pointer: output)
    switch (block.inputs.dtype, outputType) {
    case (.bf16, .bf16): return run(BF16Element.self, BF16Element.self, block, place, sums)
    case (.f16, .f16): return run(F16Element.self, F16Element.self, block, place, sums)
    case (.f32, .f32): return run(F32Element.self, F32Element.self, block, place, sums)
    case (.f32, .f64): return run(F32Element.self, F64Element.self, block, place, sums)
    case (.f64, .f64): return run(F64Element.self, F64Element.self, block, place, sums)
    default: preconditionFailure("disjoint merge has no kernel from \(block.inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private func run<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ block: TaskVectorBlock, _ place: MergedOutput, _ sums: UnsafeMutablePointer<Double>
  ) -> Double where In.Arithmetic == Out.Arithmetic {
    withRows(In.Arithmetic.self) { merge in
      vectors.withRowFilters(In.self, block, factors: election.factors) { filters in
        let onePass = OnePassMerge(merge, place, In.self, Out.self, sums: sums)
        var poison = 0.0
        for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
          var chunk = TaskVectorChunk<In>(block, offset: offset, models: merge.election.models)
          if let onePass, onePass.take(chunk, filters) { continue }
          poison += chunk.fill(filters, sums)
          sums[chunk.models] += merge.run(chunk)
          place.store(chunk, Out.self)
        }
        return poison
      }
    }
  }

  /// Lend the merge as the chunks of a block take it.
  @inline(__always)
  func withRows<Scalar: ArithmeticScalar, Result>(_: Scalar.Type, _ body: (RowMerge<Scalar>) -> Result) -> Result {
    election.withRows(Scalar.self) { election in
      withScalars(weights) { body(RowMerge(election: election, rule: rule, weights: $0)) }
    }
  }
}

/// A disjoint merge as the chunks of a block take it: numbers and addresses only, see TaskVectorChunk.
struct RowMerge<Scalar: ArithmeticScalar> {
  let election: RowElection<Scalar>
  let rule: DisjointMerge.Rule
  let weights: UnsafePointer<Scalar>

  /// tau into the result row.
  /// - Returns: in how many places signs disagree.
  @inline(__always)
  func run<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>) -> Double where Element.Arithmetic == Scalar {
    let (rows, count) = (chunk.rows, chunk.vectors)
    // A vote by mass is cast where the elements are merged; of the others the signs come first.
    let isByMass = election.rule == .mass && rule != .max
    if election.votes, !isByMass { election.elect(rows, vectors: count, into: chunk.resultRow) }
    switch (rule, election.votes) {
    case (.max, let votes):
      let conflicts = conflicts(rows, vectors: count)
      largest(rows, vectors: count, votes: votes)
      return conflicts
    case (.mean, true): return agreeing(rows, vectors: count, votes: Yes.self, divides: Yes.self, isByMass)
    case (.mean, false): return agreeing(rows, vectors: count, votes: No.self, divides: Yes.self, false)
    case (.sum, true): return agreeing(rows, vectors: count, votes: Yes.self, divides: No.self, isByMass)
    case (.sum, false): return agreeing(rows, vectors: count, votes: No.self, divides: No.self, false)
    }
  }

  @inline(__always)
  private func agreeing<Votes: Choice, Divides: Choice>(
    _ rows: Rows<Scalar>, vectors count: Int, votes: Votes.Type, divides: Divides.Type, _ isByMass: Bool
  ) -> Double {
    switch election.models {
    case 2: agreeing(rows, vectors: count, votes, divides, Two.self, isByMass)
    case 3: agreeing(rows, vectors: count, votes, divides, Three.self, isByMass)
    case 4: agreeing(rows, vectors: count, votes, divides, Four.self, isByMass)
    default: agreeing(rows, vectors: count, votes, divides, Several.self, isByMass)
    }
  }

  @inline(never)
  private func agreeing<Votes: Choice, Divides: Choice, Models: FixedCount>(
    _ rows: Rows<Scalar>, vectors count: Int, _: Votes.Type, _: Divides.Type, _: Models.Type, _ isByMass: Bool
  ) -> Double {
    let (models, result) = (Models.count ?? election.models, election.models)
    let zeroSign = election.zeroSign
    // Where a vote of 0 silences all, those who disagree cannot be told by the sign.
    let before = Votes.isYes && zeroSign == 0 ? conflicts(rows, vectors: count) : 0
    var both = SIMD8<Scalar.Count>.zero
    for v in 0..<count {
      var sign = SIMD8<Scalar>.zero
      if isByMass {
        for k in 0..<models { sign += rows.vector(k, v) }
        sign = Scalar.signs(sign, ofZero: zeroSign)
      } else if Votes.isYes {
        sign = rows.vector(result, v)
      }
      // Signs are +-1, so that products with them are exact: what agrees is what is positive after one. Without a vote all agree.
      var (total, divisor) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      var (most, least) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      for k in 0..<models {
        let e = rows.vector(k, v)
        let own = Votes.isYes ? e * sign : e
        total += Votes.isYes ? Scalar.larger(.zero, own) : own
        if Divides.isYes {
          let agrees = Votes.isYes ? own : Scalar.magnitudes(own, narrow: false)
          divisor += Scalar.positive(agrees, SIMD8(repeating: weights[k]))
        }
        if !Votes.isYes { most = Scalar.larger(most, own) }
        least = Scalar.smaller(least, own)
      }
      var value = Divides.isYes ? total / Scalar.fillingZeros(divisor, with: 1) : total
      if Votes.isYes { value *= sign }
      rows.set(result, v, value)
      both &+= Scalar.isBelow(
        Scalar.smaller(Votes.isYes ? total : most, 0 - least), SIMD8(repeating: .leastNonzeroMagnitude))
    }
    return Votes.isYes && zeroSign == 0 ? before : Double(8 * count + Int(both.wrappedSum()))
  }

  @inline(never)
  private func largest(_ rows: Rows<Scalar>, vectors count: Int, votes: Bool) {
    for v in 0..<count {
      let sign = rows.vector(election.models, v)
      var (total, best) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      for k in 0..<election.models {
        let own = rows.vector(k, v)
        let e = votes ? Scalar.positive(own * sign, own) : own
        (total, best) = Scalar.greater(total, key: best, e, key: Scalar.magnitudes(e, narrow: false))
      }
      rows.set(election.models, v, total)
    }
  }

  /// In how many places there are both signs.
  @inline(never)
  private func conflicts(_ rows: Rows<Scalar>, vectors count: Int) -> Double {
    var both = SIMD8<Scalar.Count>.zero
    for v in 0..<count {
      var (most, least) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      for k in 0..<election.models {
        let e = rows.vector(k, v)
        (most, least) = (Scalar.larger(most, e), Scalar.smaller(least, e))
      }
      both &+= Scalar.isBelow(Scalar.smaller(most, 0 - least), SIMD8(repeating: .leastNonzeroMagnitude))
    }
    return Double(8 * count + Int(both.wrappedSum()))
  }
}

/// Where tau goes: x_0 + lambda tau, or lambda tau alone.
struct MergedOutput {
  let lambda: Double
  let addsBase: Bool
  let pointer: UnsafeMutableRawPointer

  /// Store a chunk whose tau is in the result row.
  @inline(__always)
  func store<In: KernelElement, Out: KernelElement>(_ chunk: TaskVectorChunk<In>, _: Out.Type)
  where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    let (rows, block, result) = (chunk.rows, chunk.block, chunk.resultRow)
    if chunk.isPoisoned { chunk.poisonResult() }
    let factor = SIMD8<Scalar>(repeating: Scalar(lambda))
    // What is subtracted: a positive zero leaves x_0 as it is, -0.0 too.
    @inline(__always)
    func change(_ v: Int) -> SIMD8<Scalar> { 0 - rows.vector(result, v) * factor }
    let base = block.inputs.table[0] + (block.from + chunk.offset) * In.size
    let target = pointer + chunk.offset * Out.size
    let whole = chunk.length / 16
    if addsBase {
      for tile in 0..<whole {
        let x = In.load(base, tile * 16 * In.size)
        let (low, high) = (change(2 * tile), change(2 * tile + 1))
        Out.store(Lanes(low: x.low - low, high: x.high - high), target, tile * 16 * Out.size)
      }
    } else {
      for tile in 0..<whole {
        let (low, high) = (change(2 * tile), change(2 * tile + 1))
        Out.store(Lanes(low: 0 - low, high: 0 - high), target, tile * 16 * Out.size)
      }
    }
    let rest = chunk.length - whole * 16
    guard rest > 0 else { return }
    withPaddedTail(block.inputs, size: In.size, from: block.from + chunk.offset + whole * 16, count: rest) { table in
      let x = addsBase ? In.load(table[0], 0) : Lanes(low: .zero, high: .zero)
      let (low, high) = (change(2 * whole), change(2 * whole + 1))
      withUnsafeTemporaryAllocation(byteCount: 16 * Out.size, alignment: 64) { padded in
        Out.store(Lanes(low: x.low - low, high: x.high - high), padded.baseAddress!, 0)
        (target + whole * 16 * Out.size).copyMemory(from: padded.baseAddress!, byteCount: rest * Out.size)
      }
    }
  }
}
