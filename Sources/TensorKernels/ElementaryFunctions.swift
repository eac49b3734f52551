// exp and log of eight binary64 numbers at once, with the same bits on every CPU.
//
//   exp(x) = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2: the Taylor polynomial of degree 13
//   log(m 2^e) = e ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)): the odd series up to s^23
//
// Both are within two units of the last place. Domain: exp for x <= 709, 0 below -708; log for normal positive numbers.
// NaN: spreads through exp; log has no NaN rule. Arithmetic: fused multiply-add.

enum ElementaryFunctions {
  private static let log2e = 1.442_695_040_888_963_4
  // ln 2 in two parts, the first short enough for n times it to be exact.
  private static let ln2High = 0x1.62e42fee00000p-1
  private static let ln2Low = 0x1.a39ef35793c76p-33
  /// 1.5 * 2^52: added, it rounds to a whole number and leaves that in the low bits.
  private static let shifter = 0x1.8p52

  @inline(__always)
  static func exp(_ x: SIMD8<Double>) -> SIMD8<Double> {
    let shifted = x * log2e + shifter
    let n = shifted - shifter
    let r = (x - n * ln2High) - n * ln2Low
    // 1/13!, 1/12!, ... 1/1!, 1/0!
    var sum = step(SIMD8(repeating: 1.0 / 6_227_020_800), r, 1.0 / 479_001_600)
    sum = step(sum, r, 1.0 / 39_916_800)
    sum = step(sum, r, 1.0 / 3_628_800)
    sum = step(sum, r, 1.0 / 362_880)
    sum = step(sum, r, 1.0 / 40_320)
    sum = step(sum, r, 1.0 / 5040)
    sum = step(sum, r, 1.0 / 720)
    sum = step(sum, r, 1.0 / 120)
    sum = step(sum, r, 1.0 / 24)
    sum = step(sum, r, 1.0 / 6)
    sum = step(sum, r, 0.5)
    sum = step(sum, r, 1)
    sum = step(sum, r, 1)
    let power = (unsafeBitCast(shifted, to: SIMD8<UInt64>.self) &+ 1023) &<< 52
    let result = sum * unsafeBitCast(power, to: SIMD8<Double>.self)
    return result.replacing(with: 0, where: x .< -708)
  }

  /// sum x + next: a step of Horner's scheme. (Written out, since loops over constants read and divide them again.)
  @inline(__always)
  private static func step(_ sum: SIMD8<Double>, _ x: SIMD8<Double>, _ next: Double) -> SIMD8<Double> {
    var result = SIMD8<Double>(repeating: next)
    result.addProduct(sum, x)
    return result
  }

  @inline(__always)
  static func log(_ x: SIMD8<Double>) -> SIMD8<Double> {
    let bits = unsafeBitCast(x, to: SIMD8<UInt64>.self)
    // Exponent as seen from sqrt(1/2), biased so that it stays positive.
    let exponent = ((bits &- 0x3FE6_A09E_667F_3BCD) &+ (1024 &<< 52)) &>> 52
    let fraction = unsafeBitCast(bits &- ((exponent &- 1024) &<< 52), to: SIMD8<Double>.self)
    let biased = unsafeBitCast(exponent &+ UInt64(0x1.8p52.bitPattern), to: SIMD8<Double>.self) - shifter
    let e = biased - 1024
    let s = (fraction - 1) / (fraction + 1)
    return e * ln2High + (e * ln2Low + (2 * s + 2 * s * tail(s * s)))
  }

  /// z/3 + z²/5 + z³/7 + ..., so that atanh(s) = s + s * tail(s²); for z <= 0.03.
  @inline(__always)
  static func tail(_ z: SIMD8<Double>) -> SIMD8<Double> {
    var sum = step(SIMD8(repeating: 1.0 / 23), z, 1.0 / 21)
    sum = step(sum, z, 1.0 / 19)
    sum = step(sum, z, 1.0 / 17)
    sum = step(sum, z, 1.0 / 15)
    sum = step(sum, z, 1.0 / 13)
    sum = step(sum, z, 1.0 / 11)
    sum = step(sum, z, 1.0 / 9)
    sum = step(sum, z, 1.0 / 7)
    sum = step(sum, z, 1.0 / 5)
    sum = step(sum, z, 1.0 / 3)
    return sum * z
  }
}
