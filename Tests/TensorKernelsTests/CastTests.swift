import Testing

@testable import TensorKernels

// Every expectation is exact: a conversion is one rounding to nearest-even, and FloatFormat (Support.swift) finds the nearest
// value by search. `codes` and `step` keep unoptimised runs short; release looks at every code.
@Suite struct CastTests {
  private func convert(_ source: GuardedBytes, _ from: DType, count: Int, _ to: DType) -> GuardedBytes {
    let target = GuardedBytes(count: count * to.size)
    Cast.convert(UnsafeRawPointer(source.start), from, count: count, into: target.start, to)
    #expect(target.isIntact, "\(from) to \(to), \(count) elements")
    return target
  }

  private func guarded(_ values: [Double], _ dtype: DType) -> GuardedBytes {
    let bytes = GuardedBytes(count: values.count * dtype.size, fill: 0xFF)
    bytes.store(values, as: dtype)
    return bytes
  }

  private func guarded(codes: [UInt16], _ dtype: DType) -> GuardedBytes {
    let bytes = GuardedBytes(count: codes.count * dtype.size, fill: 0xFF)
    if dtype.size == 2 { bytes.store(codes) } else { bytes.store(codes.map { UInt8($0) }) }
    return bytes
  }

  private func codes(_ bytes: GuardedBytes, _ dtype: DType) -> [UInt16] {
    dtype.size == 2 ? bytes.load(as: UInt16.self) : bytes.load(as: UInt8.self).map { UInt16($0) }
  }

  /// Every code in release, every 37th without optimisation.
  private func someCodes(_ format: FloatFormat) -> [UInt16] {
    format.codes.filter { isOptimised || format.dtype.size == 1 || $0 % 37 == 0 }
  }

  private func agrees(_ code: UInt16, _ value: Double, _ format: FloatFormat) -> Bool {
    if value.isNaN { return format.isQuiet(code) && code & format.signBit == (value.sign == .minus ? format.signBit : 0) }
    return code == format.nearest(value)
  }

  // MARK: - Widening

  @Test(arguments: FloatFormat.all) func everyCodeWidensToItsValue(format: FloatFormat) {
    let all = Array(format.codes)
    let source = guarded(codes: all, format.dtype)
    let singles = convert(source, format.dtype, count: all.count, .f32).load(as: Float.self)
    let doubles = convert(source, format.dtype, count: all.count, .f64).load(as: Double.self)
    var wrong: [UInt16] = []
    for (i, code) in all.enumerated() {
      let value = format.value(code)
      let (single, double) = (singles[i], doubles[i])
      let negative: FloatingPointSign = code & format.signBit != 0 ? .minus : .plus
      let same =
        value.isNaN
        ? single.isNaN && !single.isSignalingNaN && double.isNaN && !double.isSignalingNaN
        : Double(single) == value && double == value
      if !same || single.sign != negative || double.sign != negative { wrong.append(code) }
    }
    #expect(wrong.isEmpty, "codes \(wrong.prefix(5)) of \(format.dtype)")
  }

  @Test(arguments: FloatFormat.all, [DType.f32, .f64]) func everyCodeComesBackFromAWiderType(format: FloatFormat, wide: DType) {
    let all = Array(format.codes)
    let there = convert(guarded(codes: all, format.dtype), format.dtype, count: all.count, wide)
    let back = codes(convert(there, wide, count: all.count, format.dtype), format.dtype)
    let wrong = all.indices.filter { i in
      format.isNaN(all[i])
        ? !format.isQuiet(back[i]) || back[i] & format.signBit != all[i] & format.signBit : back[i] != all[i]
    }
    #expect(wrong.isEmpty, "codes \(wrong.prefix(5).map { all[$0] })")
  }

  // MARK: - Narrowing

  @Test(arguments: FloatFormat.all, FloatFormat.all) func narrowFormatsBecomeEachOtherByOneRounding(
    from: FloatFormat, to: FloatFormat
  ) {
    let all = someCodes(from)
    let result = codes(convert(guarded(codes: all, from.dtype), from.dtype, count: all.count, to.dtype), to.dtype)
    let wrong = all.indices.filter { !agrees(result[$0], from.value(all[$0]), to) }
    #expect(wrong.isEmpty, "codes \(wrong.prefix(5).map { all[$0] })")
  }

  @Test(arguments: FloatFormat.all, [DType.f32, .f64]) func middlesGoToTheEvenCodeAndTheirNeighboursToTheNearest(
    format: FloatFormat, wide: DType
  ) {
    var values: [Double] = []
    for code in someCodes(format) where code < format.overflow {
      let middle = format.middle(code)
      let (below, above) =
        wide == .f64 ? (middle.nextDown, middle.nextUp) : (Double(Float(middle).nextDown), Double(Float(middle).nextUp))
      // The middles below binary32's smallest bfloat16 step are still binary32 numbers.
      values += [middle, below, above, -middle, -below, -above]
    }
    let result = codes(convert(guarded(values, wide), wide, count: values.count, format.dtype), format.dtype)
    let wrong = values.indices.filter { result[$0] != format.nearest(values[$0]) }
    #expect(wrong.isEmpty, "\(wrong.prefix(5).map { values[$0] })")
  }

  @Test(arguments: FloatFormat.all, [DType.f32, .f64]) func randomValuesGoToTheNearest(format: FloatFormat, wide: DType) {
    let seed: UInt64 = 3
    var random = SplitMix64(state: seed)
    let count = isOptimised ? 200_000 : 3000
    // Half of them any bits at all, half of a size that the format has.
    var values = (0..<count).map { i -> Double in
      if i % 2 == 0 {
        return wide == .f64
          ? Double(bitPattern: random.next()) : Double(Float(bitPattern: UInt32(truncatingIfNeeded: random.next())))
      }
      let code = UInt16(random.below(Int(format.overflow)))
      return (format.value(code) + format.middle(code) * random.signed() * 0.5) * (i % 4 == 1 ? 1 : -1)
    }
    let source = guarded(values, wide)
    if wide == .f32 { values = source.values(as: .f32) }
    let result = codes(convert(source, wide, count: count, format.dtype), format.dtype)
    let wrong = values.indices.filter { !agrees(result[$0], values[$0], format) }
    #expect(wrong.isEmpty, "seed \(seed): \(wrong.prefix(5).map { values[$0] })")
  }

  @Test(arguments: FloatFormat.all) func doubleIsRoundedOnce(format: FloatFormat) {
    // Just off a middle, by less than binary32 can tell: a first rounding to binary32 would put it on the middle, and a second
    // one to the even side, which is the wrong one for these.
    var values: [Double] = []
    for code in someCodes(format) where code < format.overflow {
      let middle = format.middle(code)
      values.append(code & 1 == 0 ? middle * (1 + 0x1p-40) : middle * (1 - 0x1p-40))
    }
    let right = values.map { format.nearest($0) }
    let twice = values.map { format.nearest(Double(Float($0))) }
    #expect(zip(right, twice).allSatisfy { $0 != $1 }, "every one of them is a counterexample")
    let converted = codes(convert(guarded(values, .f64), .f64, count: values.count, format.dtype), format.dtype)
    #expect(difference(converted, right) == nil)
    let target = GuardedBytes(count: values.count * format.dtype.size)
    Cast.narrow(values, count: values.count, into: target.start, format.dtype)
    #expect(difference(codes(target, format.dtype), right) == nil)
    #expect(target.isIntact)
  }

  @Test func doubleGoesToTheNearestFloat() {
    let seed: UInt64 = 4
    var random = SplitMix64(state: seed)
    var values = (0..<3000).map { _ in
      Double(sign: .plus, exponent: random.below(285) - 155, significand: 1.5 + random.signed() / 2)
    }
    for bits in stride(from: UInt32(0), to: 0x7F7F_FFFF, by: 1 << 22) {
      values.append((Double(Float(bitPattern: bits)) + Double(Float(bitPattern: bits + 1))) / 2)
    }
    let result = convert(guarded(values, .f64), .f64, count: values.count, .f32).load(as: Float.self)
    for (value, single) in zip(values, result) {
      if single.isInfinite {
        #expect(value >= Double(Float.greatestFiniteMagnitude) + 0x1p103, "seed \(seed)")
        continue
      }
      let error = (Double(single) - value).magnitude
      for other in [single.nextDown, single.nextUp] where other.isFinite {
        let otherError = (Double(other) - value).magnitude
        #expect(error < otherError || (error == otherError && single.bitPattern & 1 == 0), "seed \(seed): \(value)")
      }
    }
  }

  // MARK: - Special values, lengths, storage types

  @Test(arguments: [DType.f32, .f64], floatTypes) func nanKeepsItsSignAndBecomesQuiet(from: DType, to: DType) {
    let source = GuardedBytes(count: 4 * from.size)
    if from == .f64 {
      source.store([UInt64(0x7FF0_0000_0000_0001), 0xFFF0_0000_0000_0001, 0x7FF8_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF])
    } else {
      source.store([UInt32(0x7F80_0001), 0xFF80_0001, 0x7FC0_0000, 0xFFFF_FFFF])
    }
    let result = convert(source, from, count: 4, to)
    for i in 0..<4 {
      let negative = i % 2 == 1
      switch to {
      case .f64:
        let bits = result.load(as: UInt64.self)[i]
        #expect(bits & 0x7FF8_0000_0000_0000 == 0x7FF8_0000_0000_0000 && (bits >> 63 == 1) == negative)
      case .f32:
        let bits = result.load(as: UInt32.self)[i]
        #expect(bits & 0x7FC0_0000 == 0x7FC0_0000 && (bits >> 31 == 1) == negative)
      default:
        let (format, code) = (FloatFormat.of(to), codes(result, to)[i])
        #expect(format.isQuiet(code) && (code & format.signBit != 0) == negative)
      }
    }
  }

  @Test(arguments: floatTypes, floatTypes) func zerosAndInfinitiesKeepTheirSign(from: DType, to: DType) {
    let result = convert(guarded([0.0, -0.0, .infinity, -.infinity], from), from, count: 4, to).values(as: to)
    #expect(result[0] == 0 && result[0].sign == .plus)
    #expect(result[1] == 0 && result[1].sign == .minus)
    // F8_E4M3FN has no infinity: NaN.
    let survives = from != .f8e4m3fn && to != .f8e4m3fn
    #expect(survives ? result[2] == .infinity && result[3] == -.infinity : result[2].isNaN && result[3].isNaN)
    #expect(result[3].sign == .minus)
  }

  @Test(arguments: floatTypes, floatTypes) func everyLengthWritesItsElementsAndNoMore(from: DType, to: DType) {
    // Whole numbers up to 8 are in every format.
    for count in lengths {
      let values = (0..<count).map { Double(($0 * 7) % 17 - 8) }
      let result = convert(guarded(values, from), from, count: count, to).values(as: to)
      #expect(difference(result, values) == nil, "\(count) elements")
    }
  }

  @Test(arguments: DType.allCases.filter { !$0.isFloat }) func storageTypesAreCopiedByteByByte(dtype: DType) {
    let source = GuardedBytes(count: 100 * dtype.size)
    source.store((0..<100 * dtype.size).map { UInt8(truncatingIfNeeded: $0 * 37) })
    #expect(convert(source, dtype, count: 100, dtype).bytes == source.bytes)
  }
}
