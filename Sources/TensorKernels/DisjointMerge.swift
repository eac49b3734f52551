// Sign election and disjoint merge of filtered task vectors (TIES and its kin).
//
//   e_i = f_i d_i;   gamma = the elected sign;   A = {i : sign(e_i) = gamma}
//   mean: sum_A e_i / sum_A b_i (a divisor of 0 counts as 1)    sum: sum_A e_i    max: the largest |e_i| of A, later model first
//   result: x_0 + lambda * tau, or lambda * tau
//
// gamma by mass: sign of sum e_i; by count: sign of sum sign(e_i); normfrac: sign of the e_i with the largest e_i^2 / |e_i|^2,
// first of equals; normmass: sign of sum sign(e_i) e_i^2 / |e_i|^2; none: every e_i that is not 0 agrees. A vote of 0 becomes
// `zeroSign`; 0 means no one agrees.
// Shapes, types and NaN rule: TaskVectors.swift; a poisoned element comes out NaN. Arithmetic: the elements' arithmetic type,
// rounded once to the output. A result of tau = 0 is x_0, the sign of its zero included.
// Source: Yadav et al., "TIES-Merging", arXiv:2306.01708.

public struct SignElection: Sendable {
  public enum Rule: Sendable { case none, mass, count, normfrac, normmass }

  public var rule: Rule
  /// The sign of a vote of 0: 1, -1, or 0 for nobody.
  public var zeroSign: Double
  /// f_i: what each task vector is multiplied by before the vote.
  public var factors: [Double]
  /// 1 / |e_i|^2 for normfrac and normmass (0 for a model without any).
  public var inverseSquares: [Double]

  public init(_ rule: Rule, zeroSign: Double, factors: [Double], inverseSquares: [Double] = []) {
    self.rule = rule
    self.zeroSign = zeroSign
    self.factors = factors
    self.inverseSquares = inverseSquares
  }

  /// Multiply rows by their factors.
  @inline(__always)
  func scale<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, vectors: Int) {
    for (k, factor) in factors.enumerated() where factor != 1 {
      let f = SIMD8<Scalar>(repeating: Scalar(factor))
      for v in 0..<vectors { rows.set(k, v, rows.vector(k, v) * f) }
    }
  }

  /// The elected signs of a chunk, into row `result`.
  @inline(__always)
  func elect<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, vectors: Int, into result: Int) {
    let models = factors.count
    let zeroSign = Scalar(zeroSign)
    // Two vectors at a time, so that the loop over the models is worth its branches.
    switch rule {
    case .none: for v in 0..<vectors { rows.set(result, v, .zero) }
    case .mass:
      for v in stride(from: 0, to: vectors, by: 2) {
        var (low, high) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for k in 0..<models {
          low += rows.vector(k, v)
          high += rows.vector(k, v + 1)
        }
        rows.set(result, v, Scalar.signs(low, ofZero: zeroSign))
        rows.set(result, v + 1, Scalar.signs(high, ofZero: zeroSign))
      }
    case .count:
      for v in stride(from: 0, to: vectors, by: 2) {
        var (low, high) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for k in 0..<models {
          low += Scalar.signs(rows.vector(k, v))
          high += Scalar.signs(rows.vector(k, v + 1))
        }
        rows.set(result, v, Scalar.signs(low, ofZero: zeroSign))
        rows.set(result, v + 1, Scalar.signs(high, ofZero: zeroSign))
      }
    case .normfrac:
      for v in 0..<vectors {
        var (vote, best) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for k in stride(from: models - 1, through: 0, by: -1) {
          let e = rows.vector(k, v)
          (vote, best) = Scalar.greater(vote, key: best, e, key: e * e * Scalar(inverseSquares[k]))
        }
        rows.set(result, v, Scalar.signs(vote, ofZero: zeroSign))
      }
    case .normmass:
      for v in 0..<vectors {
        var vote = SIMD8<Scalar>.zero
        for k in 0..<models {
          let e = rows.vector(k, v)
          vote += Scalar.signs(e) * (e * e * Scalar(inverseSquares[k]))
        }
        rows.set(result, v, Scalar.signs(vote, ofZero: zeroSign))
      }
    }
  }

  var votes: Bool { if case .none = rule { false } else { true } }
}

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

  /// tau into the result row.
  @inline(__always)
  func merge<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, vectors count: Int) {
    let models = vectors.models
    let result = vectors.resultRow
    election.elect(rows, vectors: count, into: result)
    switch (rule, election.votes) {
    case (.sum, false):
      for v in 0..<count {
        var total = SIMD8<Scalar>.zero
        for k in 0..<models { total += rows.vector(k, v) }
        rows.set(result, v, total)
      }
    case (.sum, true):
      for v in 0..<count {
        let sign = rows.vector(result, v)
        var total = SIMD8<Scalar>.zero
        for k in 0..<models {
          let e = rows.vector(k, v)
          total += Scalar.positive(e * sign, e)
        }
        rows.set(result, v, total)
      }
    case (.mean, let votes):
      for v in stride(from: 0, to: count, by: 2) {
        let (first, second) = (rows.vector(result, v), rows.vector(result, v + 1))
        var (low, high) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        var (lowDivisor, highDivisor) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for k in 0..<models {
          let (e, f) = (rows.vector(k, v), rows.vector(k, v + 1))
          let weight = SIMD8(repeating: Scalar(weights[k]))
          // Times a sign of +-1, which is exact; without a vote every element that is not 0 agrees.
          let p = votes ? e * first : Scalar.magnitudes(e, narrow: false)
          let q = votes ? f * second : Scalar.magnitudes(f, narrow: false)
          low += Scalar.positive(p, e)
          high += Scalar.positive(q, f)
          lowDivisor += Scalar.positive(p, weight)
          highDivisor += Scalar.positive(q, weight)
        }
        rows.set(result, v, low / Scalar.fillingZeros(lowDivisor, with: 1))
        rows.set(result, v + 1, high / Scalar.fillingZeros(highDivisor, with: 1))
      }
    case (.max, let votes):
      for v in 0..<count {
        let sign = rows.vector(result, v)
        var (total, best) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for k in 0..<models {
          let own = rows.vector(k, v)
          let e = votes ? Scalar.positive(own * sign, own) : own
          (total, best) = Scalar.greater(total, key: best, e, key: Scalar.magnitudes(e, narrow: false))
        }
        rows.set(result, v, total)
      }
    }
  }

  /// Add how many elements of each row are not 0, and how many places have both signs.
  @inline(__always)
  func count<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, vectors count: Int, _ sums: UnsafeMutablePointer<Double>) {
    let models = vectors.models
    var both = SIMD8<Scalar.Count>.zero
    for v in stride(from: 0, to: count, by: 2) {
      var (most, least) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      var (most2, least2) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      for k in 0..<models {
        let (e, f) = (rows.vector(k, v), rows.vector(k, v + 1))
        (most, least) = (Scalar.larger(most, e), Scalar.smaller(least, e))
        (most2, least2) = (Scalar.larger(most2, f), Scalar.smaller(least2, f))
      }
      both = Scalar.counting(both, Scalar.smaller(most, 0 - least))
      both = Scalar.counting(both, Scalar.smaller(most2, 0 - least2))
    }
    sums[models] += Double(both.wrappedSum())
    for k in 0..<models {
      var some = SIMD8<Scalar.Count>.zero
      for v in 0..<count { some = Scalar.counting(some, rows.vector(k, v)) }
      sums[k] += Double(some.wrappedSum())
    }
  }

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
    vectors.chunks(In.self, block) { rows, offset, length, count in
      election.scale(rows, vectors: count)
      self.count(rows, vectors: count, sums)
      merge(rows, vectors: count)
      place.store(In.self, Out.self, rows, block, offset: offset, length: length, vectors.resultRow, vectors.poisonRow)
    }
  }

  /// Add the elected signs up, for the majority of the whole tensor.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addSigns(_ block: TaskVectorBlock, to sum: UnsafeMutablePointer<Double>) -> Double {
    switch block.inputs.dtype {
    case .bf16: signs(BF16Element.self, block, sum)
    case .f16: signs(F16Element.self, block, sum)
    case .f32: signs(F32Element.self, block, sum)
    case .f64: signs(F64Element.self, block, sum)
    default: preconditionFailure("sign sum has no kernel for \(block.inputs.dtype)")
    }
  }

  /// The elected signs themselves, in the order of the elements.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func writeSigns(_ block: TaskVectorBlock, to signs: UnsafeMutablePointer<Int8>) -> Double {
    switch block.inputs.dtype {
    case .bf16: writeSigns(BF16Element.self, block, signs)
    case .f16: writeSigns(F16Element.self, block, signs)
    case .f32: writeSigns(F32Element.self, block, signs)
    case .f64: writeSigns(F64Element.self, block, signs)
    default: preconditionFailure("sign election has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func writeSigns<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ signs: UnsafeMutablePointer<Int8>
  ) -> Double {
    vectors.chunks(Element.self, block) { rows, offset, length, count in
      election.scale(rows, vectors: count)
      election.elect(rows, vectors: count, into: vectors.resultRow)
      let target = UnsafeMutableRawPointer(signs + offset)
      for tile in 0..<((length + 15) / 16) {
        let (low, high) = (rows.vector(vectors.resultRow, 2 * tile), rows.vector(vectors.resultRow, 2 * tile + 1))
        let bytes = Element.inOrder(Element.Arithmetic.signBytes(low), Element.Arithmetic.signBytes(high))
        let rest = length - 16 * tile
        if rest >= 16 {
          target.storeBytes(of: bytes, toByteOffset: 16 * tile, as: SIMD16<UInt8>.self)
        } else {
          withUnsafeBytes(of: bytes) { target.advanced(by: 16 * tile).copyMemory(from: $0.baseAddress!, byteCount: rest) }
        }
      }
    }
  }

  @inline(__always)
  private func signs<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ sum: UnsafeMutablePointer<Double>
  ) -> Double {
    vectors.chunks(Element.self, block) { rows, _, _, count in
      election.scale(rows, vectors: count)
      election.elect(rows, vectors: count, into: vectors.resultRow)
      var total = SIMD8<Element.Arithmetic>.zero
      for v in 0..<count { total += rows.vector(vectors.resultRow, v) }
      sum.pointee += laneSum(total)
    }
  }
}

/// Where tau goes: x_0 + lambda tau, or lambda tau alone.
struct MergedOutput {
  let lambda: Double
  let addsBase: Bool
  let pointer: UnsafeMutableRawPointer

  @inline(__always)
  func store<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ rows: Rows<In.Arithmetic>, _ block: TaskVectorBlock, offset: Int, length: Int, _ result: Int,
    _ poison: Int
  ) where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    let factor = SIMD8<Scalar>(repeating: Scalar(lambda))
    // What is subtracted: a positive zero leaves x_0 as it is, -0.0 too.
    for v in 0..<2 * ((length + 15) / 16) {
      rows.set(result, v, (0 - rows.vector(result, v) * factor) + rows.vector(poison, v))
    }
    let base = block.inputs.table[0] + (block.from + offset) * In.size
    let target = pointer + offset * Out.size
    let whole = length / 16
    if addsBase {
      for tile in 0..<whole {
        let x = In.load(base, tile * 16 * In.size)
        let (low, high) = (rows.vector(result, 2 * tile), rows.vector(result, 2 * tile + 1))
        Out.store(Lanes(low: x.low - low, high: x.high - high), target, tile * 16 * Out.size)
      }
    } else {
      for tile in 0..<whole {
        let (low, high) = (rows.vector(result, 2 * tile), rows.vector(result, 2 * tile + 1))
        Out.store(Lanes(low: 0 - low, high: 0 - high), target, tile * 16 * Out.size)
      }
    }
    let rest = length - whole * 16
    guard rest > 0 else { return }
    withPaddedTail(block.inputs, size: In.size, from: block.from + offset + whole * 16, count: rest) { table in
      let x = addsBase ? In.load(table[0], 0) : Lanes(low: .zero, high: .zero)
      let (low, high) = (rows.vector(result, 2 * whole), rows.vector(result, 2 * whole + 1))
      withUnsafeTemporaryAllocation(byteCount: 16 * Out.size, alignment: 64) { padded in
        Out.store(Lanes(low: x.low - low, high: x.high - high), padded.baseAddress!, 0)
        (target + whole * 16 * Out.size).copyMemory(from: padded.baseAddress!, byteCount: rest * Out.size)
      }
    }
  }
}
