// Combine: out = total * x_r - sum_i c_i * (x_r - x_i), the linear combination sum_i c_i * x_i about one of its inputs.
//
// Shapes: K inputs [n], coefficients [K], out [n]. `total` is the sum of all coefficients, that of x_r included; the
// coefficient of x_r itself is not used.
// Types: inputs F32, F64, F16 or BF16, all the same; out the same type, or F64.
// Arithmetic: binary32 for 16-bit types, binary64 otherwise; K additions in the order of the inputs; fused multiply-add.
// Rounding: one, to nearest-even, at the store. Written about x_r, equal inputs with total = 1 come out bit for bit, and so
// does x_r when all other coefficients are 0. Subtracting c_i * (x_r - x_i) rather than adding
// c_i * (x_i - x_r) keeps a -0.0 that all inputs share, as long as no c_i is negative.
// NaN: in any input gives NaN in that element; infinities give NaN or infinity. An input with coefficient 0 is not read.
// Aliasing: out overlaps no input.
// Traffic: (K + 1) * size bytes per element.

public enum Combine {
  private typealias Call = (
    inputs: KernelInputs, from: Int, count: Int, reference: Int, total: Double, coefficients: UnsafePointer<Double>,
    output: UnsafeMutableRawPointer
  )

  /// - Parameters:
  ///   - from: first element of each input to read.
  ///   - reference: index of x_r in the inputs.
  ///   - output: `count` elements of `outputType`, which is the inputs' type or F64 (F64 only for F32 and F64 inputs).
  @inline(never)
  public static func run(
    _ inputs: KernelInputs, from: Int = 0, count: Int, reference: Int, total: Double, coefficients: UnsafePointer<Double>,
    output: UnsafeMutableRawPointer, _ outputType: DType
  ) {
    let call = (inputs, from, count, reference, total, coefficients, output)
    switch (inputs.dtype, outputType) {
    case (.bf16, .bf16): combine(BF16Element.self, BF16Element.self, call)
    case (.f16, .f16): combine(F16Element.self, F16Element.self, call)
    case (.f32, .f32): combine(F32Element.self, F32Element.self, call)
    case (.f32, .f64): combine(F32Element.self, F64Element.self, call)
    case (.f64, .f64): combine(F64Element.self, F64Element.self, call)
    default: preconditionFailure("combine has no kernel from \(inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private static func combine<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ call: Call
  ) where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    let (inputs, from, count, reference, total, coefficients, output) = call
    withUnsafeTemporaryAllocation(of: Term<Scalar>.self, capacity: inputs.count) { terms in
      let terms = terms.baseAddress!
      var termCount = 0
      for k in 0..<inputs.count where k != reference && coefficients[k] != 0 {
        (terms + termCount).initialize(to: Term(input: k, coefficient: -Scalar(coefficients[k])))
        termCount += 1
      }
      let scale = SIMD8<Scalar>(repeating: Scalar(total))
      let whole = count & ~15
      // Two tiles at a time, so that a term is worth its reading.
      let paired = count & ~31
      for i in stride(from: 0, to: paired, by: 32) {
        let (first, second) = ((from + i) * In.size, (from + i + 16) * In.size)
        let (x, y) = (In.load(inputs.table[reference], first), In.load(inputs.table[reference], second))
        var sum = Lanes(low: x.low * scale, high: x.high * scale)
        var next = Lanes(low: y.low * scale, high: y.high * scale)
        for j in 0..<termCount {
          let place = inputs.table[terms[j].input]
          let coefficient = SIMD8<Scalar>(repeating: terms[j].coefficient)
          add(coefficient, x, In.load(place, first), to: &sum)
          add(coefficient, y, In.load(place, second), to: &next)
        }
        Out.store(sum, output, i * Out.size)
        Out.store(next, output, (i + 16) * Out.size)
      }
      func tile(_ table: UnsafePointer<UnsafeRawPointer>, _ offset: Int) -> Lanes<Scalar> {
        let x = In.load(table[reference], offset)
        var sum = Lanes(low: x.low * scale, high: x.high * scale)
        for j in 0..<termCount {
          add(SIMD8(repeating: terms[j].coefficient), x, In.load(table[terms[j].input], offset), to: &sum)
        }
        return sum
      }
      if paired < whole { Out.store(tile(inputs.table, (from + paired) * In.size), output, paired * Out.size) }
      if whole == count { return }
      // The last elements, padded with zeros to a whole tile.
      let rest = count - whole
      withPaddedTail(inputs, size: In.size, from: from + whole, count: rest) { table in
        withUnsafeTemporaryAllocation(byteCount: 16 * Out.size, alignment: 64) { padded in
          Out.store(tile(table, 0), padded.baseAddress!, 0)
          (output + whole * Out.size).copyMemory(from: padded.baseAddress!, byteCount: rest * Out.size)
        }
      }
    }
  }

  /// An input that counts, and -c_i.
  private struct Term<Scalar> {
    let input: Int
    let coefficient: Scalar
  }

  @inline(__always)
  private static func add<Scalar: ArithmeticScalar>(
    _ coefficient: SIMD8<Scalar>, _ center: Lanes<Scalar>, _ lanes: Lanes<Scalar>, to sum: inout Lanes<Scalar>
  ) {
    sum.low.addProduct(coefficient, center.low - lanes.low)
    sum.high.addProduct(coefficient, center.high - lanes.high)
  }
}

/// A table of the inputs' last `count` < 16 elements from element `from`, each copied and padded with zeros to 16.
@inline(__always)
func withPaddedTail(
  _ inputs: KernelInputs, size: Int, from: Int, count: Int, _ body: (UnsafePointer<UnsafeRawPointer>) -> Void
) {
  withUnsafeTemporaryAllocation(byteCount: inputs.count * 16 * size, alignment: 64) { padded in
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer.self, capacity: inputs.count) { table in
      padded.initializeMemory(as: UInt8.self, repeating: 0)
      for k in 0..<inputs.count {
        let row = padded.baseAddress! + k * 16 * size
        row.copyMemory(from: inputs.table[k] + from * size, byteCount: count * size)
        table.initializeElement(at: k, to: UnsafeRawPointer(row))
      }
      body(UnsafePointer(table.baseAddress!))
    }
  }
}
