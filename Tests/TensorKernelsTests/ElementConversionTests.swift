import Testing

@testable import TensorKernels

// Single conversions. All expectations here are exact.
@Suite struct ElementConversionTests {
  @Test func roundingToOddKeepsExactValues() {
    var random = SplitMix64(state: 1)
    for _ in 0..<2000 {
      let value = Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
      if value.isNaN { continue }
      #expect(roundedToOdd(Double(value)).bitPattern == value.bitPattern)
    }
    #expect(roundedToOdd(.nan).isNaN)
    #expect(roundedToOdd(-0.0).bitPattern == 0x8000_0000)
    #expect(roundedToOdd(-.infinity) == -.infinity)
  }

  @Test func roundingToOddGivesTheOddNeighbourOfAnInexactValue() {
    let seed: UInt64 = 2
    var random = SplitMix64(state: seed)
    for _ in 0..<2000 {
      // Exponents from below binary32's subnormals to its largest.
      let value = Double(sign: .plus, exponent: random.below(277) - 149, significand: 1.5 + random.signed() / 2)
      let odd = roundedToOdd(value)
      if Double(odd) == value { continue }
      #expect(odd.bitPattern & 1 == 1, "seed \(seed): \(value)")
      let neighbours = (Double(odd.nextDown), Double(odd.nextUp))
      #expect(neighbours.0 < value && value < neighbours.1, "seed \(seed): \(value)")
      #expect(roundedToOdd(-value) == -odd)
    }
  }

  @Test func roundingToOddNeverReachesZeroOrInfinity() {
    #expect(roundedToOdd(1e-300) == Float.leastNonzeroMagnitude)
    #expect(roundedToOdd(-1e-300) == -Float.leastNonzeroMagnitude)
    #expect(roundedToOdd(1e300) == Float.greatestFiniteMagnitude)
    #expect(roundedToOdd(-1e39) == -Float.greatestFiniteMagnitude)
  }

  private static let e4m3: [(UInt8, Float)] = [
    (0x00, 0), (0x01, 0x1p-9), (0x07, 0x1.cp-7), (0x08, 0x1p-6), (0x38, 1), (0x3C, 1.5), (0x7E, 448), (0x81, -0x1p-9),
    (0xB8, -1), (0xFE, -448),
  ]
  private static let e5m2: [(UInt8, Float)] = [
    (0x00, 0), (0x01, 0x1p-16), (0x03, 0x1.8p-15), (0x04, 0x1p-14), (0x3C, 1), (0x3D, 1.25), (0x7B, 57344),
    (0x7C, .infinity), (0xBC, -1), (0xFB, -57344), (0xFC, -.infinity),
  ]

  @Test(arguments: e4m3)
  func e4m3HasTheValuesOfItsPaper(code: UInt8, value: Float) {
    #expect(floatOfFloat8E4M3(code) == value)
    #expect(float8E4M3Bits(value) == code)
  }

  @Test(arguments: e5m2)
  func e5m2HasTheValuesOfItsPaper(code: UInt8, value: Float) {
    #expect(floatOfFloat8E5M2(code) == value)
    #expect(float8E5M2Bits(value) == code)
  }

  @Test func zeroKeepsItsSign() {
    #expect(bfloat16Bits(-0.0) == 0x8000)
    #expect(float16Bits(-0.0) == 0x8000)
    #expect(float8E4M3Bits(-0.0) == 0x80)
    #expect(float8E5M2Bits(-0.0) == 0x80)
    #expect(floatOfBFloat16(0x8000).bitPattern == 0x8000_0000)
    #expect(floatOfFloat8E4M3(0x80).bitPattern == 0x8000_0000)
    #expect(floatOfFloat8E5M2(0x80).bitPattern == 0x8000_0000)
  }

  @Test func e4m3OverflowsToNaNBeyondTheMiddleOf448And480() {
    #expect(float8E4M3Bits(464) == 0x7E)
    #expect(float8E4M3Bits(Float(464).nextUp) == 0x7F)
    #expect(float8E4M3Bits(.infinity) == 0x7F)
    #expect(float8E4M3Bits(-.infinity) == 0xFF)
    #expect(float8E4M3Bits(.greatestFiniteMagnitude) == 0x7F)
  }

  @Test func otherFormatsOverflowToInfinityFromTheMiddleOn() {
    #expect(float8E5M2Bits(Float(61440).nextDown) == 0x7B)
    #expect(float8E5M2Bits(61440) == 0x7C)
    #expect(float16Bits(Float(65520).nextDown) == 0x7BFF)
    #expect(float16Bits(65520) == 0x7C00)
    #expect(bfloat16Bits(Float(bitPattern: 0x7F7F_7FFF)) == 0x7F7F)
    #expect(bfloat16Bits(Float(bitPattern: 0x7F7F_8000)) == 0x7F80)
    #expect(bfloat16Bits(-.greatestFiniteMagnitude) == 0xFF80)
  }

  @Test(arguments: [UInt32(0x7F80_0001), 0x7FC0_0000, 0x7FFF_FFFF, 0xFF80_0001, 0xFFA5_A5A5, 0x7F80_8000])
  func everyNaNBecomesQuietWithItsSign(bits: UInt32) {
    let value = Float(bitPattern: bits)
    let sign = bits >> 31
    #expect(bfloat16Bits(value) & 0x7FC0 == 0x7FC0)
    #expect(bfloat16Bits(value) >> 15 == sign)
    #expect(float16Bits(value) & 0x7E00 == 0x7E00)
    #expect(float16Bits(value) >> 15 == sign)
    #expect(float8E4M3Bits(value) == UInt8(sign << 7) | 0x7F)
    #expect(float8E5M2Bits(value) == UInt8(sign << 7) | 0x7E)
  }
}
