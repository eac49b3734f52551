// Cast: out[i] = in[i]
//
// Shapes: [n] to [n]. Types: any float to any float; any type to itself.
// Rounding: one, to nearest-even (ElementConversion.swift). NaN: quiet, sign kept. Aliasing: none.
// Traffic: size(in) + size(out) bytes per element.

/// Conversions of whole blocks between element types.
public enum Cast {
  /// Convert `count` elements.
  /// - Precondition: both types are float, or equal; the pointers are aligned to their element sizes and do not overlap.
  @inline(never)
  public static func convert(
    _ source: UnsafeRawPointer, _ from: DType, count: Int, into target: UnsafeMutableRawPointer, _ to: DType
  ) {
    if from == to, !(from.isFloat) {
      target.copyMemory(from: source, byteCount: count * from.size)
      return
    }
    switch from {
    case .f64: narrow(source.assumingMemoryBound(to: Double.self), count: count, into: target, to)
    case .f32: fromFloat(count, target, to) { source.assumingMemoryBound(to: Float.self)[$0] }
    case .f16: fromFloat(count, target, to) { floatOfFloat16(source, $0) }
    case .bf16: fromFloat(count, target, to) { floatOfBFloat16(source.assumingMemoryBound(to: UInt16.self)[$0]) }
    case .f8e4m3fn: fromFloat(count, target, to) { floatOfFloat8E4M3(source.assumingMemoryBound(to: UInt8.self)[$0]) }
    case .f8e5m2: fromFloat(count, target, to) { floatOfFloat8E5M2(source.assumingMemoryBound(to: UInt8.self)[$0]) }
    default: target.copyMemory(from: source, byteCount: count * min(from.size, to.size))
    }
  }

  /// Round binary64 values into a float type.
  @inline(never)
  public static func narrow(
    _ source: UnsafePointer<Double>, count: Int, into target: UnsafeMutableRawPointer, _ to: DType
  ) {
    switch to {
    case .f64:
      let out = target.assumingMemoryBound(to: Double.self)
      for i in 0..<count { out[i] = source[i].isNaN ? quiet(source[i]) : source[i] }
    case .f32:
      let out = target.assumingMemoryBound(to: Float.self)
      for i in 0..<count { out[i] = Float(source[i]) }
    default:
      fromFloat(count, target, to) { roundedToOdd(source[$0]) }
    }
  }

  @inline(__always)
  private static func quiet(_ value: Double) -> Double { Double(bitPattern: value.bitPattern | 0x0008_0000_0000_0000) }

  @inline(__always)
  private static func floatOfFloat16(_ source: UnsafeRawPointer, _ index: Int) -> Float {
    Float(source.assumingMemoryBound(to: Float16.self)[index])
  }

  @inline(__always)
  private static func fromFloat(
    _ count: Int, _ target: UnsafeMutableRawPointer, _ to: DType, _ element: (Int) -> Float
  ) {
    switch to {
    case .f64:
      let out = target.assumingMemoryBound(to: Double.self)
      for i in 0..<count { out[i] = Double(element(i)) }
    case .f32:
      let out = target.assumingMemoryBound(to: Float.self)
      for i in 0..<count {
        let value = element(i)
        out[i] = value.isNaN ? Float(bitPattern: value.bitPattern | 0x0040_0000) : value
      }
    case .f16:
      let out = target.assumingMemoryBound(to: UInt16.self)
      for i in 0..<count { out[i] = float16Bits(element(i)) }
    case .bf16:
      let out = target.assumingMemoryBound(to: UInt16.self)
      for i in 0..<count { out[i] = bfloat16Bits(element(i)) }
    case .f8e4m3fn:
      let out = target.assumingMemoryBound(to: UInt8.self)
      for i in 0..<count { out[i] = float8E4M3Bits(element(i)) }
    case .f8e5m2:
      let out = target.assumingMemoryBound(to: UInt8.self)
      for i in 0..<count { out[i] = float8E5M2Bits(element(i)) }
    default:
      preconditionFailure("\(to) is not a float type")
    }
  }
}
