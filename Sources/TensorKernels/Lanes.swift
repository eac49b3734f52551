// How a kernel reads and writes 16 elements of a storage type as two vectors of its arithmetic type.
//
// F16 and BF16 are computed in binary32, F32 and F64 in binary64. BF16 is widened by pairs, one shift and one mask on 32-bit
// words, so its two vectors hold the even and the odd elements: kernels may not depend on the order inside a 16, and store()
// undoes it. Loads are unaligned.

/// Two vectors: 16 elements in arithmetic type.
struct Lanes<Scalar: ArithmeticScalar> {
  var low: SIMD8<Scalar>
  var high: SIMD8<Scalar>
}

/// A storage type that the fused kernels read directly.
protocol KernelElement {
  associatedtype Arithmetic: ArithmeticScalar
  static var size: Int { get }
  /// Do the two vectors hold the even and the odd elements, rather than the first and the last eight?
  static var isPaired: Bool { get }
  /// Elements at byte offset `offset` and the 15 after it.
  static func load(_ source: UnsafeRawPointer, _ offset: Int) -> Lanes<Arithmetic>
  /// Round to nearest-even and store 16 elements at byte offset `offset`.
  static func store(_ lanes: Lanes<Arithmetic>, _ target: UnsafeMutableRawPointer, _ offset: Int)
  /// The same of numbers: of a NaN anything may come.
  static func storeNumbers(_ lanes: Lanes<Arithmetic>, _ target: UnsafeMutableRawPointer, _ offset: Int)
}

extension KernelElement {
  @inline(__always)
  static func storeNumbers(_ lanes: Lanes<Arithmetic>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    store(lanes, target, offset)
  }
}

enum F32Element: KernelElement {
  static var size: Int { 4 }
  static var isPaired: Bool { false }

  @inline(__always)
  static func load(_ source: UnsafeRawPointer, _ offset: Int) -> Lanes<Double> {
    Lanes(
      low: SIMD8<Double>(source.loadUnaligned(fromByteOffset: offset, as: SIMD8<Float>.self)),
      high: SIMD8<Double>(source.loadUnaligned(fromByteOffset: offset + 32, as: SIMD8<Float>.self)))
  }

  @inline(__always)
  static func store(_ lanes: Lanes<Double>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    target.storeBytes(of: SIMD8<Float>(lanes.low), toByteOffset: offset, as: SIMD8<Float>.self)
    target.storeBytes(of: SIMD8<Float>(lanes.high), toByteOffset: offset + 32, as: SIMD8<Float>.self)
  }
}

enum F64Element: KernelElement {
  static var size: Int { 8 }
  static var isPaired: Bool { false }

  @inline(__always)
  static func load(_ source: UnsafeRawPointer, _ offset: Int) -> Lanes<Double> {
    Lanes(
      low: source.loadUnaligned(fromByteOffset: offset, as: SIMD8<Double>.self),
      high: source.loadUnaligned(fromByteOffset: offset + 64, as: SIMD8<Double>.self))
  }

  @inline(__always)
  static func store(_ lanes: Lanes<Double>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    target.storeBytes(of: lanes.low, toByteOffset: offset, as: SIMD8<Double>.self)
    target.storeBytes(of: lanes.high, toByteOffset: offset + 64, as: SIMD8<Double>.self)
  }
}

enum F16Element: KernelElement {
  static var size: Int { 2 }
  static var isPaired: Bool { false }

  @inline(__always)
  static func load(_ source: UnsafeRawPointer, _ offset: Int) -> Lanes<Float> {
    Lanes(
      low: SIMD8<Float>(source.loadUnaligned(fromByteOffset: offset, as: SIMD8<Float16>.self)),
      high: SIMD8<Float>(source.loadUnaligned(fromByteOffset: offset + 16, as: SIMD8<Float16>.self)))
  }

  @inline(__always)
  static func store(_ lanes: Lanes<Float>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    target.storeBytes(of: SIMD8<Float16>(lanes.low), toByteOffset: offset, as: SIMD8<Float16>.self)
    target.storeBytes(of: SIMD8<Float16>(lanes.high), toByteOffset: offset + 16, as: SIMD8<Float16>.self)
  }
}

enum BF16Element: KernelElement {
  static var size: Int { 2 }
  static var isPaired: Bool { true }

  @inline(__always)
  static func load(_ source: UnsafeRawPointer, _ offset: Int) -> Lanes<Float> {
    let pairs = source.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt32>.self)
    return Lanes(
      low: unsafeBitCast(pairs &<< 16, to: SIMD8<Float>.self),
      high: unsafeBitCast(pairs & 0xFFFF_0000, to: SIMD8<Float>.self))
  }

  @inline(__always)
  static func store(_ lanes: Lanes<Float>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    store(rounded(lanes.low), rounded(lanes.high), target, offset)
  }

  @inline(__always)
  static func storeNumbers(_ lanes: Lanes<Float>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    store(nearest(lanes.low), nearest(lanes.high), target, offset)
  }

  @inline(__always)
  private static func store(_ low: SIMD8<UInt32>, _ high: SIMD8<UInt32>, _ target: UnsafeMutableRawPointer, _ offset: Int) {
    target.storeBytes(of: (low &>> 16) | (high & 0xFFFF_0000), toByteOffset: offset, as: SIMD8<UInt32>.self)
  }

  /// binary32 whose upper half is the nearest bfloat16 (ties to even, quiet NaN).
  @inline(__always)
  private static func rounded(_ values: SIMD8<Float>) -> SIMD8<UInt32> {
    let bits = unsafeBitCast(values, to: SIMD8<UInt32>.self)
    return nearest(values).replacing(with: bits | 0x0040_0000, where: values .!= values)
  }

  /// The same of numbers.
  @inline(__always)
  private static func nearest(_ values: SIMD8<Float>) -> SIMD8<UInt32> {
    let bits = unsafeBitCast(values, to: SIMD8<UInt32>.self)
    return bits &+ 0x7FFF &+ ((bits &>> 16) & 1)
  }
}

extension KernelElement {
  /// Which of 16 elements stands at position `i` of the two vectors.
  @inline(__always)
  static func element(at i: Int) -> Int { isPaired ? (2 * i) & 15 | i >> 3 : i }

  /// At which position of the two vectors element `i` of 16 stands.
  @inline(__always)
  static func position(of i: Int) -> Int { isPaired ? i >> 1 | (i & 1) << 3 : i }

  /// A byte for each lane of the two vectors, in the order of the elements.
  @inline(__always)
  static func inOrder(_ low: UInt64, _ high: UInt64) -> SIMD16<UInt8> {
    let (low, high) = (unsafeBitCast(low, to: SIMD8<UInt8>.self), unsafeBitCast(high, to: SIMD8<UInt8>.self))
    var bytes = SIMD16<UInt8>()
    if isPaired { (bytes.evenHalf, bytes.oddHalf) = (low, high) } else { (bytes.lowHalf, bytes.highHalf) = (low, high) }
    return bytes
  }
}

/// Sum of the 8 lanes of a vector in binary64, by halves: a fixed order on every CPU.
@inline(__always)
func laneSum<Scalar: ArithmeticScalar>(_ values: SIMD8<Scalar>) -> Double {
  let wide = Scalar.wide(values)
  let four = wide.lowHalf + wide.highHalf
  let two = four.lowHalf + four.highHalf
  return two[0] + two[1]
}
