// NearSwap: out = x_0 + c, c = x_1 - x_0 cut off at +-t: the second input where it is near, a step of length t towards it elsewhere.
//
// With a floor f the step is (x_1 - x_0) min(1, t / max(|x_1 - x_0|, f)).
// Shapes: two inputs [n], out [n]. Types: inputs F32, F64, F16 or BF16, both the same; out the same type, or F64.
// Arithmetic: binary32 for 16-bit types, binary64 otherwise. Rounding: one, at the store; where |x_1 - x_0| <= t, x_1 bit for bit.
// NaN: in either input gives NaN in that element; an infinity gives NaN or stays. Traffic: 3 * size bytes per element.

public struct NearSwap: Sendable {
  let limit: Double
  let floor: Double

  public init(limit: Double, floor: Double) {
    self.limit = limit
    self.floor = floor
  }

  /// - Returns: how many elements became those of the second input.
  @inline(never)
  public func run(_ inputs: KernelInputs, count: Int, output: UnsafeMutableRawPointer, _ outputType: DType) -> Double {
    switch (inputs.dtype, outputType) {
    case (.bf16, .bf16): return run(BF16Element.self, BF16Element.self, inputs, count, output)
    case (.f16, .f16): return run(F16Element.self, F16Element.self, inputs, count, output)
    case (.f32, .f32): return run(F32Element.self, F32Element.self, inputs, count, output)
    case (.f32, .f64): return run(F32Element.self, F64Element.self, inputs, count, output)
    case (.f64, .f64): return run(F64Element.self, F64Element.self, inputs, count, output)
    default: preconditionFailure("near swap has no kernel from \(inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private func run<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ inputs: KernelInputs, _ count: Int, _ output: UnsafeMutableRawPointer
  ) -> Double where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    var swapped = 0.0
    var start = 0
    while start < count {
      let length = min(KernelGeometry.chunk, count - start)
      var far = SIMD8<Scalar>.zero
      Rows<Scalar>.tiles(In.self, inputs, from: start, count: length) { tile, table, byte in
        let (first, second) = (In.load(table[0], byte), In.load(table[1], byte))
        let low = step(first.low, second.low, &far)
        let high = step(first.high, second.high, &far)
        let lanes = Lanes(low: low, high: high)
        let place = (start + tile * 16) * Out.size
        let kept = min(16, length - tile * 16)
        if kept == 16 {
          Out.store(lanes, output, place)
        } else {
          withUnsafeTemporaryAllocation(byteCount: 16 * Out.size, alignment: 64) { padded in
            Out.store(lanes, padded.baseAddress!, 0)
            (output + place).copyMemory(from: padded.baseAddress!, byteCount: kept * Out.size)
          }
        }
      }
      // The padding of the last 16 is 0 in both; it is near, unless the floor makes it far.
      let padding = floor > limit ? (length + 15) / 16 * 16 - length : 0
      swapped += Double(length + padding) - laneSum(far)
      start += length
    }
    return swapped
  }

  @inline(__always)
  private func step<Scalar: ArithmeticScalar>(
    _ a: SIMD8<Scalar>, _ b: SIMD8<Scalar>, _ far: inout SIMD8<Scalar>
  ) -> SIMD8<Scalar> {
    let difference = b - a
    let magnitude = Scalar.magnitudes(difference, narrow: false)
    let reach = SIMD8<Scalar>(repeating: Scalar(limit))
    let least = SIMD8<Scalar>(repeating: Scalar(floor))
    let divisor = Scalar.chosen(magnitude, where: magnitude, isAbove: least, else: least)
    far += Scalar.above(divisor, reach)
    let cut = limit == 0 ? .zero : difference * (reach / Scalar.fillingZeros(divisor, with: 1))
    // A NaN is above nothing: b, which is NaN or makes the difference one.
    let result = Scalar.chosen(a - (0 - cut), where: divisor, isAbove: reach, else: b)
    // Subtracting 0 keeps the sign of a zero.
    return result - (difference - difference)
  }
}
