// The elected sign of each place of filtered task vectors e_i = f_i d_i.
//
//   mass: sign of sum e_i;   count: sign of sum sign(e_i);   normfrac: sign of the e_i with the largest e_i^2 / |e_i|^2, first of equals;
//   normmass: sign of sum sign(e_i) e_i^2 / |e_i|^2;   none: every e_i that is not 0 agrees
//
// A vote of 0 becomes `zeroSign`; 0 means no one agrees.
// Shapes, types and NaN rule: TaskVectors.swift. Arithmetic: the elements' arithmetic type.
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

  /// Lend the election as the chunks of a block take it.
  @inline(__always)
  func withRows<Scalar: ArithmeticScalar, Result>(_: Scalar.Type, _ body: (RowElection<Scalar>) -> Result) -> Result {
    withScalars(inverseSquares) {
      body(RowElection(rule: rule, zeroSign: Scalar(zeroSign), models: factors.count, inverseSquares: $0))
    }
  }
}

/// A sign election as the chunks of a block take it: numbers and addresses only, see TaskVectorChunk.
struct RowElection<Scalar: ArithmeticScalar> {
  let rule: SignElection.Rule
  let zeroSign: Scalar
  let models: Int
  let inverseSquares: UnsafePointer<Scalar>

  var votes: Bool { if case .none = rule { false } else { true } }

  /// The elected signs of a chunk, into row `result`.
  @inline(__always)
  func elect(_ rows: Rows<Scalar>, vectors: Int, into result: Int) {
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
          (vote, best) = Scalar.greater(vote, key: best, e, key: e * e * inverseSquares[k])
        }
        rows.set(result, v, Scalar.signs(vote, ofZero: zeroSign))
      }
    case .normmass:
      for v in 0..<vectors {
        var vote = SIMD8<Scalar>.zero
        for k in 0..<models {
          let e = rows.vector(k, v)
          vote += Scalar.signs(e) * (e * e * inverseSquares[k])
        }
        rows.set(result, v, Scalar.signs(vote, ofZero: zeroSign))
      }
    }
  }
}

extension AgreeingVectors {
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
    election.withRows(Element.Arithmetic.self) { election in
      vectors.chunks(Element.self, block, factors: self.election.factors) { chunk in
        let (rows, result) = (chunk.rows, chunk.resultRow)
        election.elect(rows, vectors: chunk.vectors, into: result)
        let target = UnsafeMutableRawPointer(signs + chunk.offset)
        for tile in 0..<chunk.vectors / 2 {
          let (low, high) = (rows.vector(result, 2 * tile), rows.vector(result, 2 * tile + 1))
          let bytes = Element.inOrder(Element.Arithmetic.signBytes(low), Element.Arithmetic.signBytes(high))
          let rest = chunk.length - 16 * tile
          if rest >= 16 {
            target.storeBytes(of: bytes, toByteOffset: 16 * tile, as: SIMD16<UInt8>.self)
          } else {
            withUnsafeBytes(of: bytes) { target.advanced(by: 16 * tile).copyMemory(from: $0.baseAddress!, byteCount: rest) }
          }
        }
      }
    }
  }

  @inline(__always)
  private func signs<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ sum: UnsafeMutablePointer<Double>
  ) -> Double {
    election.withRows(Element.Arithmetic.self) { election in
      vectors.chunks(Element.self, block, factors: self.election.factors) { chunk in
        election.elect(chunk.rows, vectors: chunk.vectors, into: chunk.resultRow)
        var total = SIMD8<Element.Arithmetic>.zero
        for v in 0..<chunk.vectors { total += chunk.rows.vector(chunk.resultRow, v) }
        sum.pointee += laneSum(total)
      }
    }
  }
}
