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
    let (inputs, from, count, reference, total, coefficients, output) = call
    let whole = count & ~15
    for i in stride(from: 0, to: whole, by: 16) {
      let lanes = tile(In.self, inputs.table, inputs.count, reference, total, coefficients, (from + i) * In.size)
      Out.store(lanes, output, i * Out.size)
    }
    if whole == count { return }
    // The last elements, padded with zeros to a whole tile.
    let rest = count - whole
    withPaddedTail(inputs, size: In.size, from: from + whole, count: rest) { table in
      let lanes = tile(In.self, table, inputs.count, reference, total, coefficients, 0)
      withUnsafeTemporaryAllocation(byteCount: 16 * Out.size, alignment: 64) { padded in
        Out.store(lanes, padded.baseAddress!, 0)
        (output + whole * Out.size).copyMemory(from: padded.baseAddress!, byteCount: rest * Out.size)
      }
    }
  }

  @inline(__always)
  private static func tile<In: KernelElement>(
    _: In.Type, _ table: UnsafePointer<UnsafeRawPointer>, _ inputCount: Int, _ reference: Int, _ total: Double,
    _ coefficients: UnsafePointer<Double>, _ offset: Int
  ) -> Lanes<In.Arithmetic> {
    typealias Scalar = In.Arithmetic
    let center = In.load(table[reference], offset)
    let scale = SIMD8<Scalar>(repeating: Scalar(total))
    var low = center.low * scale
    var high = center.high * scale
    for k in 0..<inputCount where k != reference && coefficients[k] != 0 {
      let lanes = In.load(table[k], offset)
      let coefficient = SIMD8<Scalar>(repeating: -Scalar(coefficients[k]))
      low.addProduct(coefficient, center.low - lanes.low)
      high.addProduct(coefficient, center.high - lanes.high)
    }
    return Lanes(low: low, high: high)
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
