/// Float and Double, with the vector steps that the compiler only turns into vector instructions when the type is concrete: a
/// comparison in generic code, although specialised, is carried out lane by lane.
protocol ArithmeticScalar: SIMDScalar, BinaryFloatingPoint, Codable {
  /// The lesser and the greater of each pair of lanes. Of a NaN and a number, either may come first.
  static func ordered(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> (lesser: SIMD8<Self>, greater: SIMD8<Self>)

  /// Each lane of `a`, with the sign of the lane of `b` where both are non-zero and the signs differ.
  static func withSigns(_ a: SIMD8<Self>, of b: SIMD8<Self>) -> SIMD8<Self>

  /// -1, 0 or 1 in each lane.
  static func signs(_ a: SIMD8<Self>) -> SIMD8<Self>

  /// -1, `ofZero` or 1 in each lane.
  static func signs(_ a: SIMD8<Self>, ofZero: Self) -> SIMD8<Self>

  /// Magnitudes, as they are ranked: rounded to binary32 if `narrow`.
  static func magnitudes(_ a: SIMD8<Self>, narrow: Bool) -> SIMD8<Self>

  /// The bit pattern of a magnitude, which orders magnitudes as their values do.
  static func pattern(_ a: Self, narrow: Bool) -> UInt64

  /// The patterns of magnitudes rounded to binary32.
  static func patterns32(_ a: SIMD8<Self>) -> SIMD8<UInt32>

  /// The magnitude that has a pattern.
  static func value(pattern: UInt64, narrow: Bool) -> Self

  /// 1 where `a` is above `b`, else 0.
  static func above(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> SIMD8<Self>

  /// Whole numbers as wide as the type.
  associatedtype Count: SIMDScalar, FixedWidthInteger

  /// `a` where the magnitude `rank` is at least `least`, which is not negative, else 0. A NaN is above all.
  static func kept(_ a: SIMD8<Self>, rank: SIMD8<Self>, from least: Self) -> SIMD8<Self>

  /// `a` where the magnitude `rank` is at most `most`, which is not negative, else 0. A NaN is above all.
  static func kept(_ a: SIMD8<Self>, rank: SIMD8<Self>, upTo most: Self) -> SIMD8<Self>

  /// `counts`, one more in the lanes where `a` is not 0.
  static func counting(_ counts: SIMD8<Count>, _ a: SIMD8<Self>) -> SIMD8<Count>

  /// All bits where the magnitude `a` is below the magnitude `b`, else 0.
  static func isBelow(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> SIMD8<Count>

  /// All bits where `a` is below `b`, else 0.
  static func isLess(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> SIMD8<Count>

  /// All bits where `a` is 0, else none.
  static func isZero(_ a: SIMD8<Self>) -> SIMD8<Count>

  /// `a` negated where all bits of `mask` are set, as it is where none is.
  static func negated(_ a: SIMD8<Self>, where mask: SIMD8<Count>) -> SIMD8<Self>

  /// `a`, 0 where all bits of `mask` are set.
  static func cleared(_ a: SIMD8<Self>, where mask: SIMD8<Count>) -> SIMD8<Self>

  /// The low byte of each lane, lane 0 in the lowest.
  static func bytes(_ counts: SIMD8<Count>) -> UInt64

  /// -1, 0 or 1 for each lane's sign, as bytes, lane 0 in the lowest.
  static func signBytes(_ a: SIMD8<Self>) -> UInt64

  /// `a` where all bits of `mask` are set, 0 where none is.
  static func kept(_ a: SIMD8<Self>, mask: SIMD8<Int32>) -> SIMD8<Self>

  /// In binary64.
  static func wide(_ a: SIMD8<Self>) -> SIMD8<Double>

  /// `value` where `a` is above 0, else 0.
  static func positive(_ a: SIMD8<Self>, _ value: SIMD8<Self>) -> SIMD8<Self>

  /// The larger of two, `a` if either is NaN.
  static func larger(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> SIMD8<Self>

  /// The smaller of two, `a` if either is NaN.
  static func smaller(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> SIMD8<Self>

  /// `a` where `x` is above `y`, else `b`.
  static func chosen(_ a: SIMD8<Self>, where x: SIMD8<Self>, isAbove y: SIMD8<Self>, else b: SIMD8<Self>) -> SIMD8<Self>

  /// `a`, with `value` in the lanes where it is 0.
  static func fillingZeros(_ a: SIMD8<Self>, with value: Self) -> SIMD8<Self>

  /// Of each pair of lanes the one whose key is greater; `b`, where the keys are equal.
  static func greater(
    _ a: SIMD8<Self>, key: SIMD8<Self>, _ b: SIMD8<Self>, key other: SIMD8<Self>
  ) -> (value: SIMD8<Self>, key: SIMD8<Self>)
}

extension Float: ArithmeticScalar {
  @inline(__always)
  static func ordered(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> (lesser: SIMD8<Float>, greater: SIMD8<Float>) {
    let swap = b .< a
    return (a.replacing(with: b, where: swap), b.replacing(with: a, where: swap))
  }

  @inline(__always)
  static func withSigns(_ a: SIMD8<Float>, of b: SIMD8<Float>) -> SIMD8<Float> {
    a.replacing(with: -a, where: ((a .< 0) .& (b .> 0)) .| ((a .> 0) .& (b .< 0)))
  }

  @inline(__always)
  static func signs(_ a: SIMD8<Float>) -> SIMD8<Float> {
    let one = Int32(bitPattern: (1 as Float).bitPattern)
    return unsafeBitCast((isLess(.zero, a) & one) | (isLess(a, .zero) & (one | .min)), to: SIMD8<Float>.self)
  }

  @inline(__always)
  static func signs(_ a: SIMD8<Float>, ofZero: Float) -> SIMD8<Float> {
    SIMD8<Float>(repeating: ofZero).replacing(with: 1, where: a .> 0).replacing(with: -1, where: a .< 0)
  }

  @inline(__always)
  static func magnitudes(_ a: SIMD8<Float>, narrow: Bool) -> SIMD8<Float> {
    unsafeBitCast(unsafeBitCast(a, to: SIMD8<UInt32>.self) & 0x7FFF_FFFF, to: SIMD8<Float>.self)
  }

  @inline(__always)
  static func pattern(_ a: Float, narrow: Bool) -> UInt64 { UInt64(a.bitPattern & 0x7FFF_FFFF) }

  @inline(__always)
  static func patterns32(_ a: SIMD8<Float>) -> SIMD8<UInt32> { unsafeBitCast(a, to: SIMD8<UInt32>.self) & 0x7FFF_FFFF }

  @inline(__always)
  static func value(pattern: UInt64, narrow: Bool) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: pattern)) }

  @inline(__always)
  static func above(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> SIMD8<Float> {
    SIMD8<Float>.zero.replacing(with: 1, where: a .> b)
  }

  typealias Count = Int32

  // By whole numbers: patterns order magnitudes, and a difference's sign fills its lane.
  @inline(__always)
  static func kept(_ a: SIMD8<Float>, rank: SIMD8<Float>, from least: Float) -> SIMD8<Float> {
    cleared(a, where: isBelow(rank, SIMD8(repeating: least)))
  }

  @inline(__always)
  static func kept(_ a: SIMD8<Float>, rank: SIMD8<Float>, upTo most: Float) -> SIMD8<Float> {
    cleared(a, where: isBelow(SIMD8(repeating: most), rank))
  }

  @inline(__always)
  static func counting(_ counts: SIMD8<Int32>, _ a: SIMD8<Float>) -> SIMD8<Int32> {
    // Twice the pattern is 0 for both zeros. Of a number other than 0 and its opposite, one has the sign bit.
    let twice = unsafeBitCast(a, to: SIMD8<Int32>.self) &<< 1
    let sign = unsafeBitCast(twice | (0 &- twice), to: SIMD8<UInt32>.self) &>> 31
    return counts &+ unsafeBitCast(sign, to: SIMD8<Int32>.self)
  }

  @inline(__always)
  static func isBelow(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> SIMD8<Int32> {
    (unsafeBitCast(a, to: SIMD8<Int32>.self) &- unsafeBitCast(b, to: SIMD8<Int32>.self)) &>> 31
  }

  @inline(__always)
  static func isLess(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> SIMD8<Int32> { unsafeBitCast(a .< b, to: SIMD8<Int32>.self) }

  @inline(__always)
  static func isZero(_ a: SIMD8<Float>) -> SIMD8<Int32> { unsafeBitCast(a .== 0, to: SIMD8<Int32>.self) }

  @inline(__always)
  static func negated(_ a: SIMD8<Float>, where mask: SIMD8<Int32>) -> SIMD8<Float> {
    unsafeBitCast(unsafeBitCast(a, to: SIMD8<Int32>.self) ^ (mask & .min), to: SIMD8<Float>.self)
  }

  @inline(__always)
  static func cleared(_ a: SIMD8<Float>, where mask: SIMD8<Int32>) -> SIMD8<Float> {
    unsafeBitCast(unsafeBitCast(a, to: SIMD8<Int32>.self) & ~mask, to: SIMD8<Float>.self)
  }

  @inline(__always)
  static func bytes(_ counts: SIMD8<Int32>) -> UInt64 {
    unsafeBitCast(SIMD8<UInt8>(truncatingIfNeeded: counts), to: UInt64.self)
  }

  @inline(__always)
  static func signBytes(_ a: SIMD8<Float>) -> UInt64 {
    let (isNegative, isPositive) = (a .< 0, a .> 0)
    return bytes(
      unsafeBitCast(isNegative, to: SIMD8<Int32>.self) | (unsafeBitCast(isPositive, to: SIMD8<Int32>.self) & 1))
  }

  @inline(__always)
  static func kept(_ a: SIMD8<Float>, mask: SIMD8<Int32>) -> SIMD8<Float> {
    unsafeBitCast(unsafeBitCast(a, to: SIMD8<Int32>.self) & mask, to: SIMD8<Float>.self)
  }

  @inline(__always)
  static func wide(_ a: SIMD8<Float>) -> SIMD8<Double> { SIMD8<Double>(a) }

  @inline(__always)
  static func positive(_ a: SIMD8<Float>, _ value: SIMD8<Float>) -> SIMD8<Float> {
    SIMD8<Float>.zero.replacing(with: value, where: a .> 0)
  }

  @inline(__always)
  static func larger(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> SIMD8<Float> { a.replacing(with: b, where: b .> a) }

  @inline(__always)
  static func smaller(_ a: SIMD8<Float>, _ b: SIMD8<Float>) -> SIMD8<Float> { a.replacing(with: b, where: b .< a) }

  @inline(__always)
  static func fillingZeros(_ a: SIMD8<Float>, with value: Float) -> SIMD8<Float> { a.replacing(with: value, where: a .== 0) }

  @inline(__always)
  static func chosen(
    _ a: SIMD8<Float>, where x: SIMD8<Float>, isAbove y: SIMD8<Float>, else b: SIMD8<Float>
  ) -> SIMD8<Float> {
    b.replacing(with: a, where: x .> y)
  }

  @inline(__always)
  static func greater(
    _ a: SIMD8<Float>, key: SIMD8<Float>, _ b: SIMD8<Float>, key other: SIMD8<Float>
  ) -> (value: SIMD8<Float>, key: SIMD8<Float>) {
    let takesOther = other .>= key
    return (a.replacing(with: b, where: takesOther), key.replacing(with: other, where: takesOther))
  }
}

extension Double: ArithmeticScalar {
  @inline(__always)
  static func ordered(_ a: SIMD8<Double>, _ b: SIMD8<Double>) -> (lesser: SIMD8<Double>, greater: SIMD8<Double>) {
    let swap = b .< a
    return (a.replacing(with: b, where: swap), b.replacing(with: a, where: swap))
  }

  @inline(__always)
  static func withSigns(_ a: SIMD8<Double>, of b: SIMD8<Double>) -> SIMD8<Double> {
    a.replacing(with: -a, where: ((a .< 0) .& (b .> 0)) .| ((a .> 0) .& (b .< 0)))
  }

  @inline(__always)
  static func signs(_ a: SIMD8<Double>) -> SIMD8<Double> {
    let one = Int64(bitPattern: (1 as Double).bitPattern)
    return unsafeBitCast((isLess(.zero, a) & one) | (isLess(a, .zero) & (one | .min)), to: SIMD8<Double>.self)
  }

  @inline(__always)
  static func signs(_ a: SIMD8<Double>, ofZero: Double) -> SIMD8<Double> {
    SIMD8<Double>(repeating: ofZero).replacing(with: 1, where: a .> 0).replacing(with: -1, where: a .< 0)
  }

  @inline(__always)
  static func magnitudes(_ a: SIMD8<Double>, narrow: Bool) -> SIMD8<Double> {
    let magnitudes = unsafeBitCast(
      unsafeBitCast(a, to: SIMD8<UInt64>.self) & 0x7FFF_FFFF_FFFF_FFFF, to: SIMD8<Double>.self)
    return narrow ? SIMD8<Double>(SIMD8<Float>(magnitudes)) : magnitudes
  }

  @inline(__always)
  static func pattern(_ a: Double, narrow: Bool) -> UInt64 {
    narrow ? UInt64(Float(a).bitPattern & 0x7FFF_FFFF) : a.bitPattern & 0x7FFF_FFFF_FFFF_FFFF
  }

  @inline(__always)
  static func patterns32(_ a: SIMD8<Double>) -> SIMD8<UInt32> { Float.patterns32(SIMD8<Float>(a)) }

  @inline(__always)
  static func value(pattern: UInt64, narrow: Bool) -> Double {
    narrow ? Double(Float(bitPattern: UInt32(truncatingIfNeeded: pattern))) : Double(bitPattern: pattern)
  }

  @inline(__always)
  static func above(_ a: SIMD8<Double>, _ b: SIMD8<Double>) -> SIMD8<Double> {
    SIMD8<Double>.zero.replacing(with: 1, where: a .> b)
  }

  typealias Count = Int64

  // By whole numbers: patterns order magnitudes, and a difference's sign fills its lane.
  @inline(__always)
  static func kept(_ a: SIMD8<Double>, rank: SIMD8<Double>, from least: Double) -> SIMD8<Double> {
    cleared(a, where: isBelow(rank, SIMD8(repeating: least)))
  }

  @inline(__always)
  static func kept(_ a: SIMD8<Double>, rank: SIMD8<Double>, upTo most: Double) -> SIMD8<Double> {
    cleared(a, where: isBelow(SIMD8(repeating: most), rank))
  }

  @inline(__always)
  static func counting(_ counts: SIMD8<Int64>, _ a: SIMD8<Double>) -> SIMD8<Int64> {
    // Twice the pattern is 0 for both zeros. Of a number other than 0 and its opposite, one has the sign bit.
    let twice = unsafeBitCast(a, to: SIMD8<Int64>.self) &<< 1
    let sign = unsafeBitCast(twice | (0 &- twice), to: SIMD8<UInt64>.self) &>> 63
    return counts &+ unsafeBitCast(sign, to: SIMD8<Int64>.self)
  }

  @inline(__always)
  static func isBelow(_ a: SIMD8<Double>, _ b: SIMD8<Double>) -> SIMD8<Int64> {
    (unsafeBitCast(a, to: SIMD8<Int64>.self) &- unsafeBitCast(b, to: SIMD8<Int64>.self)) &>> 63
  }

  @inline(__always)
  static func isLess(_ a: SIMD8<Double>, _ b: SIMD8<Double>) -> SIMD8<Int64> { unsafeBitCast(a .< b, to: SIMD8<Int64>.self) }

  @inline(__always)
  static func isZero(_ a: SIMD8<Double>) -> SIMD8<Int64> { unsafeBitCast(a .== 0, to: SIMD8<Int64>.self) }

  @inline(__always)
  static func negated(_ a: SIMD8<Double>, where mask: SIMD8<Int64>) -> SIMD8<Double> {
    unsafeBitCast(unsafeBitCast(a, to: SIMD8<Int64>.self) ^ (mask & .min), to: SIMD8<Double>.self)
  }

  @inline(__always)
  static func cleared(_ a: SIMD8<Double>, where mask: SIMD8<Int64>) -> SIMD8<Double> {
    unsafeBitCast(unsafeBitCast(a, to: SIMD8<Int64>.self) & ~mask, to: SIMD8<Double>.self)
  }

  @inline(__always)
  static func bytes(_ counts: SIMD8<Int64>) -> UInt64 {
    unsafeBitCast(SIMD8<UInt8>(truncatingIfNeeded: counts), to: UInt64.self)
  }

  @inline(__always)
  static func signBytes(_ a: SIMD8<Double>) -> UInt64 {
    let (isNegative, isPositive) = (a .< 0, a .> 0)
    return bytes(
      unsafeBitCast(isNegative, to: SIMD8<Int64>.self) | (unsafeBitCast(isPositive, to: SIMD8<Int64>.self) & 1))
  }

  @inline(__always)
  static func kept(_ a: SIMD8<Double>, mask: SIMD8<Int32>) -> SIMD8<Double> {
    var wide = SIMD16<Int32>()
    (wide.evenHalf, wide.oddHalf) = (mask, mask)
    return unsafeBitCast(
      unsafeBitCast(a, to: SIMD8<Int64>.self) & unsafeBitCast(wide, to: SIMD8<Int64>.self), to: SIMD8<Double>.self)
  }

  @inline(__always)
  static func wide(_ a: SIMD8<Double>) -> SIMD8<Double> { a }

  @inline(__always)
  static func positive(_ a: SIMD8<Double>, _ value: SIMD8<Double>) -> SIMD8<Double> {
    SIMD8<Double>.zero.replacing(with: value, where: a .> 0)
  }

  @inline(__always)
  static func larger(_ a: SIMD8<Double>, _ b: SIMD8<Double>) -> SIMD8<Double> { a.replacing(with: b, where: b .> a) }

  @inline(__always)
  static func smaller(_ a: SIMD8<Double>, _ b: SIMD8<Double>) -> SIMD8<Double> { a.replacing(with: b, where: b .< a) }

  @inline(__always)
  static func fillingZeros(_ a: SIMD8<Double>, with value: Double) -> SIMD8<Double> {
    a.replacing(with: value, where: a .== 0)
  }

  @inline(__always)
  static func chosen(
    _ a: SIMD8<Double>, where x: SIMD8<Double>, isAbove y: SIMD8<Double>, else b: SIMD8<Double>
  ) -> SIMD8<Double> {
    b.replacing(with: a, where: x .> y)
  }

  @inline(__always)
  static func greater(
    _ a: SIMD8<Double>, key: SIMD8<Double>, _ b: SIMD8<Double>, key other: SIMD8<Double>
  ) -> (value: SIMD8<Double>, key: SIMD8<Double>) {
    let takesOther = other .>= key
    return (a.replacing(with: b, where: takesOther), key.replacing(with: other, where: takesOther))
  }
}

/// All bits of a lane where `word` is below `limit`, else none. With the top bits flipped the order of signed numbers is that of
/// unsigned ones, whose comparison would go lane by lane.
@inline(__always)
func masks(of word: SIMD8<UInt32>, below limit: UInt32) -> SIMD8<Int32> {
  let flipped = unsafeBitCast(word ^ 0x8000_0000, to: SIMD8<Int32>.self)
  let isBelow = flipped .< SIMD8<Int32>(repeating: Int32(bitPattern: limit ^ 0x8000_0000))
  return unsafeBitCast(isBelow, to: SIMD8<Int32>.self)
}
