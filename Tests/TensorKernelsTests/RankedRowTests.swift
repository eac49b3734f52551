import Testing

@testable import TensorKernels

/// Against a sort of the whole row.
@Suite struct RankedRowTests {
  private func masks<Pattern: MagnitudePattern>(
    _ patterns: [Pattern], _ words: [UInt32], limits: [UInt64], step: Int = 1
  ) -> (found: [UInt8], expected: [UInt8]) {
    let length = patterns.count
    var spread = [Pattern](repeating: 1, count: length * step + 8)
    var spreadWords = [UInt32](repeating: 0, count: length * step)
    for i in 0..<length { (spread[i * step], spreadWords[i * step]) = (patterns[i], words[i]) }
    var mask = [UInt8](repeating: 7, count: length * step)
    (limits + [limits[length - 1]]).withUnsafeBufferPointer { limits in
      RankedRow(limits: limits.baseAddress!, length: length, scratch: RankedRow.Scratch(length: length))
        .mask(spread, spreadWords, step: step, into: &mask)
    }
    for i in mask.indices where i % step != 0 { #expect(mask[i] == 7) }
    var expected = [UInt8](repeating: 0, count: length)
    for (rank, i) in (0..<length).sorted(by: { (patterns[$0], $0) < (patterns[$1], $1) }).enumerated() {
      expected[i] = UInt64(words[i]) < limits[rank] ? 1 : 0
    }
    return (stride(from: 0, to: mask.count, by: step).map { mask[$0] }, expected)
  }

  /// Limits from a quarter of all words to three quarters.
  private func limits(_ length: Int, falling: Bool = false) -> [UInt64] {
    let rising = (0..<length).map { UInt64(0x1p30 + 0x1p31 * Double($0) / Double(max(1, length - 1))) }
    return falling ? rising.reversed() : rising
  }

  enum Values: CaseIterable { case normal, steps, zeros, outlier, equal, tiny }

  /// Values as trained weights have them, and as they do not.
  private func row(_ values: Values, _ length: Int, _ random: inout SplitMix64) -> [Float] {
    var row = (0..<length).map { _ in
      let value = (0..<6).reduce(Float(0)) { sum, _ in sum + Float(random.next() >> 40) * 0x1p-24 - 0.5 }
      switch values {
      case .normal, .outlier: return value.magnitude
      case .steps: return (value * 16).rounded().magnitude * 0x1p-13
      case .zeros: return random.next() % 4 == 0 ? (value * 40).rounded().magnitude * 0x1p-11 : 0
      case .equal: return 0.25
      case .tiny: return random.next() % 2 == 0 ? value.magnitude * 0x1p-20 : value.magnitude
      }
    }
    if values == .outlier { row[length / 2] = 0x1p40 }
    return row
  }

  @Test(arguments: Values.allCases, [1, 7, 63, 64, 65, 700, 1536, 6150, 40000])
  func decidesAsASortWould(values: Values, length: Int) {
    var random = SplitMix64(state: UInt64(length))
    let row = row(values, length, &random)
    let words = (0..<length).map { _ in UInt32(truncatingIfNeeded: random.next()) }
    let narrow = masks(row.map(\.bitPattern), words, limits: limits(length))
    #expect(narrow.found == narrow.expected)
    let falling = masks(row.map(\.bitPattern), words, limits: limits(length, falling: true), step: 3)
    #expect(falling.found == falling.expected)
    let wide = masks(row.map { (Double($0) * 1.1).bitPattern }, words, limits: limits(length))
    #expect(wide.found == wide.expected)
  }

  @Test func theEndsOfTheLimitsHold() {
    // 0 keeps no word, 2^32 every one.
    let patterns = (0..<200).map { Float($0).bitPattern }
    for words in [[UInt32](repeating: 0, count: 200), [UInt32](repeating: .max, count: 200)] {
      let limits = (0..<200).map { $0 < 100 ? 0 : UInt64(1) << 32 }
      let result = masks(patterns, words, limits: limits)
      #expect(result.found == result.expected)
      #expect(result.found == [UInt8](repeating: 0, count: 100) + [UInt8](repeating: 1, count: 100))
    }
  }

  @Test func notANumberDoesNotHurt() {
    // Its mask does not matter: the result of its element is NaN.
    var patterns = (0..<300).map { Float($0).bitPattern }
    (patterns[17], patterns[200]) = (Float.nan.bitPattern, Float.infinity.bitPattern)
    let result = masks(patterns, [UInt32](repeating: 1 << 31, count: 300), limits: limits(300))
    #expect(result.found == result.expected)
  }
}
