import Testing

@testable import TensorKernels

@Suite struct NonFiniteTests {
  private func any(_ bytes: GuardedBytes, _ dtype: DType, _ count: Int) -> Bool {
    NonFinite.any(UnsafeRawPointer(bytes.start), dtype, count: count)
  }

  @Test(arguments: FloatFormat.all) func everyCodeIsJudgedByItsValue(format: FloatFormat) {
    let all = Array(format.codes)
    let bytes = GuardedBytes(count: all.count * format.dtype.size, fill: 0xFF)
    if format.dtype.size == 2 { bytes.store(all) } else { bytes.store(all.map { UInt8($0) }) }
    let wrong = all.filter { code in
      NonFinite.any(UnsafeRawPointer(bytes.start) + Int(code) * format.dtype.size, format.dtype, count: 1)
        == format.value(code).isFinite
    }
    #expect(wrong.isEmpty, "codes \(wrong.prefix(5))")
    let first = NonFinite.first(UnsafeRawPointer(bytes.start), format.dtype, count: all.count)
    // The first code that is not finite, and all that are not: those from it to the sign bit, twice.
    #expect(first?.index == Int(format.overflow))
    #expect(first?.count == 2 * Int(format.signBit - format.overflow))
  }

  @Test func largestAndSmallestNumbersAreFinite() {
    let wide = GuardedBytes(count: 4 * 8, fill: 0xFF)
    wide.store([Double.greatestFiniteMagnitude, -.greatestFiniteMagnitude, .leastNonzeroMagnitude, -0.0])
    #expect(!any(wide, .f64, 4))
    let single = GuardedBytes(count: 4 * 4, fill: 0xFF)
    single.store([Float.greatestFiniteMagnitude, -.greatestFiniteMagnitude, .leastNonzeroMagnitude, -0.0])
    #expect(!any(single, .f32, 4))
  }

  @Test(arguments: [Double.nan, -.nan, .signalingNaN, .infinity, -.infinity]) func wideTypesKnowNaNAndInfinity(value: Double) {
    let bytes = GuardedBytes(count: 5 * 8, fill: 0xFF)
    bytes.store([1, 2, value, 4, 5], as: .f64)
    #expect(any(bytes, .f64, 5))
    #expect(!any(bytes, .f64, 2))
    bytes.store([1, 2, value, 4, 5], as: .f32)
    #expect(any(bytes, .f32, 5))
    #expect(!any(bytes, .f32, 2))
  }

  @Test(arguments: floatTypes) func oneIsFoundAtEveryEdgeOfEveryLength(dtype: DType) {
    // Around the stretch of 4096 that is scanned without an early exit, too.
    for count in lengths + [4095, 4097, 8192] {
      let values = [Double](repeating: 1, count: count)
      let bytes = GuardedBytes(count: count * dtype.size, fill: 0xFF)
      bytes.store(values, as: dtype)
      #expect(!any(bytes, dtype, count), "\(count) elements; the margins are NaN")
      #expect(NonFinite.first(UnsafeRawPointer(bytes.start), dtype, count: count) == nil)
      for place in Set([0, 1, 14, 15, 16, 4095, 4096, count / 2, count - 1]) where (0..<count).contains(place) {
        var spoilt = values
        spoilt[place] = .nan
        bytes.store(spoilt, as: dtype)
        #expect(any(bytes, dtype, count), "element \(place) of \(count)")
        #expect(!any(bytes, dtype, place), "before element \(place)")
      }
    }
  }

  @Test(arguments: floatTypes) func firstTellsWhereAndHowMany(dtype: DType) throws {
    var values = [Double](repeating: 0.5, count: 300)
    for place in [7, 8, 200, 299] { values[place] = place % 2 == 0 ? .nan : (dtype == .f8e4m3fn ? .nan : -.infinity) }
    let bytes = GuardedBytes(count: 300 * dtype.size, fill: 0xFF)
    bytes.store(values, as: dtype)
    let found = try #require(NonFinite.first(UnsafeRawPointer(bytes.start), dtype, count: 300))
    #expect(found.index == 7 && found.count == 4)
    let earlier = try #require(NonFinite.first(UnsafeRawPointer(bytes.start), dtype, count: 8))
    #expect(earlier.index == 7 && earlier.count == 1)
    #expect(NonFinite.first(UnsafeRawPointer(bytes.start), dtype, count: 7) == nil)
  }

  @Test(arguments: DType.allCases.filter { !$0.isFloat }) func storageTypesHaveNone(dtype: DType) {
    let bytes = GuardedBytes(count: 16 * dtype.size, fill: 0xFF)
    #expect(!any(bytes, dtype, 16))
    #expect(NonFinite.first(UnsafeRawPointer(bytes.start), dtype, count: 16) == nil)
  }
}
