// exp and log of eight binary64 numbers at once, with the same bits on every CPU.
//
//   exp(x) = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2: the Taylor polynomial of degree 13
//   log(m 2^e) = e ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)): the odd series up to s^23
//
// Both are within two units of the last place. Domain: exp for x <= 709, 0 below -708; log for normal positive numbers.
// NaN: spreads through exp; log has no NaN rule.

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
    var sum = SIMD8<Double>(repeating: 1.0 / 6_227_020_800)
    for factorial in inverseFactorials { sum = sum * r + factorial }
    let power = (unsafeBitCast(shifted, to: SIMD8<UInt64>.self) &+ 1023) &<< 52
    let result = sum * unsafeBitCast(power, to: SIMD8<Double>.self)
    return result.replacing(with: 0, where: x .< -708)
  }

  /// 1/12!, 1/11!, ... 1/1!, 1/0!
  private static let inverseFactorials: [Double] = [
    1.0 / 479_001_600, 1.0 / 39_916_800, 1.0 / 3_628_800, 1.0 / 362_880, 1.0 / 40_320, 1.0 / 5040, 1.0 / 720, 1.0 / 120,
    1.0 / 24, 1.0 / 6, 0.5, 1, 1,
  ]

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
    var sum = SIMD8<Double>(repeating: 1.0 / 23)
    for divisor in stride(from: 21.0, through: 3, by: -2) { sum = sum * z + 1 / divisor }
    return sum * z
  }
}
