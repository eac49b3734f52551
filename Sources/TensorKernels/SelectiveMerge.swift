// Selective merge: of chosen elements of the task vectors, the weighted mean of those that have the sign of their sum.
//
//   d_i: 0 where the element is not chosen (ElementScores.swift);   gamma = + if sum_i d_i >= 0, else -;   A = {i: sign(d_i) = gamma}
//   tau = sum_A w_i d_i / max(sum_A w_i, floor), a sum of 0 counting as 1
//
// Shapes, types and NaN rule: TaskVectors.swift; a poisoned element comes out NaN. A choice by scores needs F32 or F64 inputs.
// Arithmetic: the elements' arithmetic type, rounded once to the output. A result of tau = 0 is x_0, the sign of its zero included.
// Traffic: (K + 1) * size bytes per element for the sums, (K + 2) * size to write.
// Source: Wan et al., "FuseChat: Knowledge Fusion of Chat Models", arXiv:2408.07990.

public struct SelectiveMerge: Sendable {
  public let scores: ElementScores
  public let choice: ElementScores.Choice

  public init(_ scores: ElementScores, _ choice: ElementScores.Choice) {
    self.scores = scores
    self.choice = choice
  }

  /// Add |d_i|² of what is chosen to `sums[i]`.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addSquares(_ block: TaskVectorBlock, to sums: UnsafeMutablePointer<Double>) -> Double {
    switch block.inputs.dtype {
    case .bf16: squares(BF16Element.self, block, sums)
    case .f16: squares(F16Element.self, block, sums)
    case .f32: squares(F32Element.self, block, sums)
    case .f64: squares(F64Element.self, block, sums)
    default: preconditionFailure("squares of task vectors have no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func squares<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ sums: UnsafeMutablePointer<Double>
  ) -> Double {
    if case .all = choice { return scores.vectors.addSquares(Element.self, block, to: sums) }
    let pairs = RowPairs(diagonal: scores.vectors.models)
    return scores.vectors.chunks(Element.self, block, raw: true) { chunk in
      choose(chunk)
      chunk.rows.addProducts(pairs, vectors: chunk.vectors, sums)
    }
  }

  @inline(__always)
  private func choose<Element: KernelElement>(_ chunk: TaskVectorChunk<Element>) {
    if Element.Arithmetic.self == Double.self {
      scores.choose(
        choice, Rows<Double>(chunk.block.workspace), start: chunk.start, length: chunk.length, vectors: chunk.vectors)
    } else if case .none = choice {
      for k in 0..<scores.vectors.models { for v in 0..<chunk.vectors { chunk.rows.set(k, v, .zero) } }
    } else if case .from = choice {
      preconditionFailure("a choice by scores needs F32 or F64 inputs")
    }
  }

  /// Write x_0 + lambda tau, or lambda tau, and count what is chosen and not 0 per model; see `DisjointMerge.run`.
  /// - Parameters:
  ///   - weights: w_i.
  ///   - floor: of the divisor; 0: none.
  @inline(never)
  public func run(
    _ block: TaskVectorBlock, weights: [Double], floor: Double, lambda: Double, addsBase: Bool,
    output: UnsafeMutableRawPointer, _ outputType: DType, sums: UnsafeMutablePointer<Double>
  ) -> Double {
    let place = MergedOutput(lambda: lambda, addsBase: addsBase, pointer: output)
    switch (block.inputs.dtype, outputType) {
    case (.bf16, .bf16): return run(BF16Element.self, BF16Element.self, block, weights, floor, place, sums)
    case (.f16, .f16): return run(F16Element.self, F16Element.self, block, weights, floor, place, sums)
    case (.f32, .f32): return run(F32Element.self, F32Element.self, block, weights, floor, place, sums)
    case (.f32, .f64): return run(F32Element.self, F64Element.self, block, weights, floor, place, sums)
    case (.f64, .f64): return run(F64Element.self, F64Element.self, block, weights, floor, place, sums)
    default: preconditionFailure("selective merging has no kernel from \(block.inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private func run<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ block: TaskVectorBlock, _ weights: [Double], _ floor: Double, _ place: MergedOutput,
    _ sums: UnsafeMutablePointer<Double>
  ) -> Double where In.Arithmetic == Out.Arithmetic {
    withScalars(weights) { (weights: UnsafePointer<In.Arithmetic>) in
      let merge = SelectiveRows(models: scores.vectors.models, weights: weights, floor: In.Arithmetic(floor))
      var isAll = false
      if case .all = choice { isAll = true }
      return scores.vectors.chunks(In.self, block, raw: true) { chunk in
        if !isAll { choose(chunk) }
        for k in 0..<chunk.models { sums[k] += chunk.rows.nonZeros(k, vectors: chunk.vectors) }
        merge.run(chunk.rows, vectors: chunk.vectors)
        place.store(chunk, Out.self)
      }
    }
  }
}

/// A selective merge as the chunks of a block take it: numbers and addresses only, see TaskVectorChunk.
private struct SelectiveRows<Scalar: ArithmeticScalar> {
  let models: Int
  let weights: UnsafePointer<Scalar>
  let floor: Scalar

  @inline(__always)
  func run(_ rows: Rows<Scalar>, vectors count: Int) {
    switch models {
    case 2: merge(rows, vectors: count, Two.self)
    case 3: merge(rows, vectors: count, Three.self)
    case 4: merge(rows, vectors: count, Four.self)
    default: merge(rows, vectors: count, Several.self)
    }
  }

  /// tau into the result row.
  @inline(never)
  private func merge<Models: FixedCount>(_ rows: Rows<Scalar>, vectors count: Int, _: Models.Type) {
    let (models, result) = (Models.count ?? self.models, self.models)
    let least = SIMD8<Scalar>(repeating: floor)
    for v in 0..<count {
      var vote = SIMD8<Scalar>.zero
      for k in 0..<models { vote += rows.vector(k, v) }
      let sign = Scalar.signs(vote, ofZero: 1)
      var (total, divisor) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
      for k in 0..<models {
        let weight = SIMD8<Scalar>(repeating: weights[k])
        // Times a sign of +-1, which is exact.
        let agrees = rows.vector(k, v) * sign
        total.addProduct(weight, Scalar.larger(.zero, agrees))
        divisor += Scalar.positive(agrees, weight)
      }
      let share = Scalar.larger(least, divisor)
      rows.set(result, v, total / Scalar.fillingZeros(share, with: 1) * sign)
    }
  }
}
