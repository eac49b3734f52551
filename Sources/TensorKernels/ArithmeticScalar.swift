/// Float and Double, with the vector steps that the compiler only turns into vector instructions when the type is concrete: a
/// comparison in generic code, although specialised, is carried out lane by lane.
protocol ArithmeticScalar: SIMDScalar, BinaryFloatingPoint, Codable {
  /// The lesser and the greater of each pair of lanes. Of a NaN and a number, either may come first.
  static func ordered(_ a: SIMD8<Self>, _ b: SIMD8<Self>) -> (lesser: SIMD8<Self>, greater: SIMD8<Self>)

  /// Each lane of `a`, with the sign of the lane of `b` where both are non-zero and the signs differ.
  static func withSigns(_ a: SIMD8<Self>, of b: SIMD8<Self>) -> SIMD8<Self>
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
}
