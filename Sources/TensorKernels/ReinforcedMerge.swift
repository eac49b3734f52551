// Reinforced Agent Merging: a change that one model alone made is added in full, a change that several made is averaged.
//
//   A = {i : d_i is active};   tau = l_i d_i for A = {i},   sum_A d_i / |A| for |A| > 1,   0 for nobody
//
// Active is what the filters of `vectors` leave: |d_i| > epsilon. Shapes, types and NaN rule: TaskVectors.swift; a poisoned element
// comes out NaN. Arithmetic: the elements' arithmetic type, rounded once to the output. A result of tau = 0 is x_0, the sign of its
// zero included. Traffic: (K + 1) * size bytes per element to count, (K + 2) * size to write.
// Source: Reinforced Agent Merging, arXiv:2601.13572.

public struct ReinforcedMerge: Sendable {
  public let vectors: TaskVectors
  /// l_i: the factors of what is a model's alone.
  public var factors: [Double]

  public init(_ vectors: TaskVectors, factors: [Double]) {
    self.vectors = vectors
    self.factors = factors
  }

  /// How many elements of each model are active in it alone (K numbers), and in others too (K more).
  public var sums: Int { 2 * vectors.models }

  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addCounts(_ block: TaskVectorBlock, to sums: UnsafeMutablePointer<Double>) -> Double {
    switch block.inputs.dtype {
    case .bf16: counts(BF16Element.self, block, sums)
    case .f16: counts(F16Element.self, block, sums)
    case .f32: counts(F32Element.self, block, sums)
    case .f64: counts(F64Element.self, block, sums)
    default: preconditionFailure("a count of changes has no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func counts<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ sums: UnsafeMutablePointer<Double>
  ) -> Double {
    vectors.chunks(Element.self, block) { chunk in add(chunk.rows, vectors: chunk.vectors, sums) }
  }

  /// The number of active models in each lane.
  @inline(__always)
  private func active<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, _ v: Int) -> SIMD8<Scalar> {
    var active = SIMD8<Scalar>.zero
    for k in 0..<vectors.models { active += Scalar.above(Scalar.magnitudes(rows.vector(k, v), narrow: false), .zero) }
    return active
  }

  @inline(__always)
  private func add<Scalar: ArithmeticScalar>(_ rows: Rows<Scalar>, vectors count: Int, _ sums: UnsafeMutablePointer<Double>) {
    let models = vectors.models
    for v in 0..<count { rows.set(vectors.models, v, active(rows, v)) }
    for k in 0..<models {
      var (alone, some) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      for v in 0..<count {
        let mine = Scalar.above(Scalar.magnitudes(rows.vector(k, v), narrow: false), .zero)
        some += mine
        alone += mine - mine * Scalar.above(rows.vector(vectors.models, v), SIMD8(repeating: 1))
      }
      sums[k] += laneSum(alone)
      sums[models + k] += laneSum(some) - laneSum(alone)
    }
  }

  /// Write x_0 + lambda tau, or lambda tau, and count; see `DisjointMerge.run` for the arguments.
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
    default: preconditionFailure("reinforced merging has no kernel from \(block.inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private func run<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ block: TaskVectorBlock, _ place: MergedOutput, _ sums: UnsafeMutablePointer<Double>
  ) -> Double where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    let models = vectors.models
    return vectors.chunks(In.self, block) { chunk in
      let (rows, count) = (chunk.rows, chunk.vectors)
      add(rows, vectors: count, sums)
      for v in 0..<count {
        let active = rows.vector(vectors.models, v)
        var (sum, scaled) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
        for k in 0..<models {
          let d = rows.vector(k, v)
          sum += d
          scaled.addProduct(d, SIMD8(repeating: Scalar(factors[k])))
        }
        let shared = sum / Scalar.fillingZeros(active, with: 1)
        rows.set(vectors.models, v, Scalar.chosen(shared, where: active, isAbove: SIMD8(repeating: 1), else: scaled))
      }
      place.store(chunk, Out.self)
    }
  }
}
