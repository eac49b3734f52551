// TALL masks: m_i = |d_i| > l_i |tau - d_i|, where the multi-task vector tau explains a model's own change.
//
// tau: sum f_i d_i, or a disjoint merge of trimmed task vectors (DisjointMerge.swift); d_i: the raw task vectors. Consensus: tau
// stays where at least k masks are on. A mask goes out as bits: bit j of byte b is element 8 b + j.
// Shapes, types and NaN rule: TaskVectors.swift. Arithmetic: the elements' arithmetic type. Strict: 0 > 0 is false.
// Traffic: (K + 2) * size bytes per element, and K / 8 bytes of masks.
// Source: Wang et al., "Localizing Task Information for Improved Model Merging and Compression", arXiv:2405.07813.

public struct TallMasks: Sendable {
  public let merge: DisjointMerge
  /// l_i.
  public let lambdas: [Double]
  /// k of the consensus; nil: tau is not masked.
  public let consensus: Int?

  public init(_ merge: DisjointMerge, lambdas: [Double], consensus: Int?) {
    self.merge = merge
    self.lambdas = lambdas
    self.consensus = consensus
  }

  /// Values that `run` adds up: per model how many elements its mask keeps, then how many tau keeps after the consensus.
  public var sums: Int { lambdas.count + 1 }

  /// Where results go: x_0 + lambda tau or lambda tau, and one row of bits per model; either may be absent.
  public struct Output {
    let lambda: Double
    let addsBase: Bool
    let merged: UnsafeMutableRawPointer?
    let type: DType
    let bits: UnsafePointer<UnsafeMutablePointer<UInt8>>?

    /// - Parameters:
    ///   - merged: `block.count` elements of `type`, as in `DisjointMerge.run`; nil: not written.
    ///   - bits: per model (count + 7) / 8 bytes, which are overwritten; nil: not written. The block starts at a multiple of 8.
    public init(
      lambda: Double, addsBase: Bool, merged: UnsafeMutableRawPointer?, _ type: DType,
      bits: UnsafePointer<UnsafeMutablePointer<UInt8>>?
    ) {
      self.lambda = lambda
      self.addsBase = addsBase
      self.merged = merged
      self.type = type
      self.bits = bits
    }
  }

  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func run(_ block: TaskVectorBlock, _ output: Output, sums: UnsafeMutablePointer<Double>) -> Double {
    switch (block.inputs.dtype, output.type) {
    case (.bf16, .bf16): return run(BF16Element.self, BF16Element.self, block, output, sums)
    case (.f16, .f16): return run(F16Element.self, F16Element.self, block, output, sums)
    case (.f32, .f32): return run(F32Element.self, F32Element.self, block, output, sums)
    case (.f32, .f64): return run(F32Element.self, F64Element.self, block, output, sums)
    case (.f64, .f64): return run(F64Element.self, F64Element.self, block, output, sums)
    default: preconditionFailure("TALL masks have no kernel from \(block.inputs.dtype) to \(output.type)")
    }
  }

  @inline(__always)
  private func run<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ block: TaskVectorBlock, _ output: Output, _ sums: UnsafeMutablePointer<Double>
  ) -> Double where In.Arithmetic == Out.Arithmetic {
    let vectors = merge.vectors
    return merge.withRows(In.Arithmetic.self) { merge in
      vectors.chunks(In.self, block, factors: self.merge.election.factors) { chunk in
        _ = merge.run(chunk)
        for k in 0..<chunk.models {
          chunk.rows.fill(k, In.self, block.inputs, k + 1, minus: 0, from: block.from + chunk.offset, count: chunk.length)
        }
        mask(chunk, output.bits, sums)
        if let merged = output.merged {
          MergedOutput(lambda: output.lambda, addsBase: output.addsBase, pointer: merged).store(
            chunk, Out.self)
        }
      }
    }
  }

  /// Make the masks of a chunk, count them, write their bits, and mask tau.
  @inline(__always)
  private func mask<Element: KernelElement>(
    _ chunk: TaskVectorChunk<Element>, _ bits: UnsafePointer<UnsafeMutablePointer<UInt8>>?, _ sums: UnsafeMutablePointer<Double>
  ) {
    typealias Scalar = Element.Arithmetic
    let (rows, count) = (chunk.rows, chunk.vectors)
    let (models, tau) = (chunk.models, chunk.resultRow)
    // Rows 0..<K become masks of ones and zeros.
    for k in 0..<models {
      let lambda = SIMD8<Scalar>(repeating: Scalar(lambdas[k]))
      var kept = SIMD8<Scalar>.zero
      for v in 0..<count {
        let d = rows.vector(k, v)
        let rest = Scalar.magnitudes(rows.vector(tau, v) - d, narrow: false)
        let mask = Scalar.above(Scalar.magnitudes(d, narrow: false), lambda * rest)
        kept += mask
        rows.set(k, v, mask)
      }
      sums[k] += laneSum(kept)
      if let bits { write(Element.self, rows, k, chunk.length, to: bits[k] + chunk.offset / 8) }
    }
    guard let consensus else { return }
    var kept = SIMD8<Scalar>.zero
    for v in 0..<count {
      var votes = SIMD8<Scalar>.zero
      for k in 0..<models { votes += rows.vector(k, v) }
      let value = Scalar.kept(rows.vector(tau, v), rank: votes, from: Scalar(consensus))
      kept += Scalar.above(Scalar.magnitudes(value, narrow: false), .zero)
      rows.set(tau, v, value)
    }
    sums[models] += laneSum(kept)
  }

  /// - Parameter row: of ones and zeros.
  @inline(__always)
  private func write<Element: KernelElement>(
    _: Element.Type, _ rows: Rows<Element.Arithmetic>, _ row: Int, _ length: Int, to bits: UnsafeMutablePointer<UInt8>
  ) {
    for tile in 0..<((length + 15) / 16) {
      let low = Element.Arithmetic.signBytes(rows.vector(row, 2 * tile))
      let high = Element.Arithmetic.signBytes(rows.vector(row, 2 * tile + 1))
      let bytes = unsafeBitCast(Element.inOrder(low, high), to: SIMD2<UInt64>.self)
      bits[2 * tile] = PackedMask.packed(bytes[0])
      if length - 16 * tile > 8 { bits[2 * tile + 1] = PackedMask.packed(bytes[1]) }
    }
  }
}
