// Conversions of one element between binary32/binary64 and the narrow float types.
//
// Rounding: nearest, ties to even, once. A binary64 value reaches a narrow type through binary32 rounded to odd, which makes
// the second rounding exact (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 57(4), 2008: enough
// when the middle format has at least two digits more than the last).
// NaN: the quiet NaN of the target, sign kept. Overflow: infinity; NaN in F8_E4M3FN, which has none.
// bfloat16 is the upper half of binary32. F8 formats: Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433.

/// binary64 to binary32, rounded to odd: inexact results get an odd last bit, so that a second rounding to a narrower type sees
/// that digits were lost.
@inline(__always)
func roundedToOdd(_ value: Double) -> Float {
  let nearest = Float(value)
  let back = Double(nearest)
  if back == value || value.isNaN { return nearest }
  var bits = nearest.bitPattern
  if back.magnitude > value.magnitude { bits &-= 1 }
  return Float(bitPattern: bits | 1)
}

@inline(__always)
func bfloat16Bits(_ value: Float) -> UInt16 {
  let bits = value.bitPattern
  if value.isNaN { return UInt16(truncatingIfNeeded: (bits &>> 16) | 0x0040) }
  return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ ((bits &>> 16) & 1)) &>> 16)
}

@inline(__always)
func floatOfBFloat16(_ bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }

@inline(__always)
func float16Bits(_ value: Float) -> UInt16 {
  if value.isNaN {
    let bits = value.bitPattern
    return UInt16(truncatingIfNeeded: (bits &>> 16) & 0x8000) | 0x7E00 | UInt16(truncatingIfNeeded: (bits &>> 13) & 0x01FF)
  }
  return Float16(value).bitPattern
}

/// F8_E4M3FN: 1 sign, 4 exponent (bias 7), 3 mantissa bits; largest 448; 0x7F is NaN.
@inline(__always)
func float8E4M3Bits(_ value: Float) -> UInt8 {
  let bits = value.bitPattern
  let sign = UInt8(truncatingIfNeeded: (bits &>> 24) & 0x80)
  let magnitude = value.magnitude
  if value.isNaN { return sign | 0x7F }
  if magnitude < 0x1p-6 {
    return sign | UInt8((magnitude * 0x1p9).rounded(.toNearestOrEven))
  }
  let absolute = bits & 0x7FFF_FFFF
  let rounded = (absolute &+ 0x7FFFF &+ ((absolute &>> 20) & 1)) &>> 20
  let code = Int(rounded) - (120 << 3)
  return sign | (code > 0x7E ? 0x7F : UInt8(truncatingIfNeeded: code))
}

/// F8_E5M2: the upper half of binary16.
@inline(__always)
func float8E5M2Bits(_ value: Float) -> UInt8 {
  let bits = value.bitPattern
  let sign = UInt8(truncatingIfNeeded: (bits &>> 24) & 0x80)
  let magnitude = value.magnitude
  if value.isNaN { return sign | 0x7E }
  if magnitude < 0x1p-14 {
    return sign | UInt8((magnitude * 0x1p16).rounded(.toNearestOrEven))
  }
  let absolute = bits & 0x7FFF_FFFF
  let rounded = (absolute &+ 0xFFFFF &+ ((absolute &>> 21) & 1)) &>> 21
  let code = Int(rounded) - (112 << 2)
  return sign | (code > 0x7B ? 0x7C : UInt8(truncatingIfNeeded: code))
}

@inline(__always)
func floatOfFloat8E4M3(_ bits: UInt8) -> Float {
  let sign = UInt32(bits & 0x80) << 24
  if bits & 0x7F == 0x7F { return Float(bitPattern: sign | 0x7FC0_0000) }
  // As a binary32 the exponent's bias is off by 120; the multiplication corrects it and is exact, subnormals included.
  let scaled = Float(bitPattern: UInt32(bits & 0x7F) << 20) * 0x1p120
  return Float(bitPattern: sign | scaled.bitPattern)
}

@inline(__always)
func floatOfFloat8E5M2(_ bits: UInt8) -> Float { Float(Float16(bitPattern: UInt16(bits) << 8)) }
