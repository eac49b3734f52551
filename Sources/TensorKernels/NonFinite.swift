// NonFinite: is there a NaN or an infinity among n elements, and where is the first?
//
// Types: all floats. Reads bits, so it never raises. Traffic: size bytes per element.

public enum NonFinite {
  /// True when any of `count` elements is NaN or infinite (NaN only in F8_E4M3FN, which has no infinity).
  @inline(never)
  public static func any(_ source: UnsafeRawPointer, _ dtype: DType, count: Int) -> Bool {
    switch dtype {
    case .f32: scan(source.assumingMemoryBound(to: UInt32.self), count, 0x7F80_0000)
    case .f64: scan(source.assumingMemoryBound(to: UInt64.self), count, 0x7FF0_0000_0000_0000)
    case .f16: scan(source.assumingMemoryBound(to: UInt16.self), count, 0x7C00)
    case .bf16: scan(source.assumingMemoryBound(to: UInt16.self), count, 0x7F80)
    case .f8e5m2: scan(source.assumingMemoryBound(to: UInt8.self), count, 0x7C)
    case .f8e4m3fn: scan(source.assumingMemoryBound(to: UInt8.self), count, 0x7F)
    default: false
    }
  }

  /// Index of the first NaN or infinity, and how many there are; nil when all are finite.
  public static func first(_ source: UnsafeRawPointer, _ dtype: DType, count: Int) -> (index: Int, count: Int)? {
    var found: Int?
    var total = 0
    for i in 0..<count where any(source + i * dtype.size, dtype, count: 1) {
      if found == nil { found = i }
      total += 1
    }
    return found.map { ($0, total) }
  }

  /// - Parameter mask: the exponent's bits, all of which are set in a NaN or an infinity.
  @inline(__always)
  private static func scan<Bits: FixedWidthInteger & UnsignedInteger>(
    _ source: UnsafePointer<Bits>, _ count: Int, _ mask: Bits
  ) -> Bool {
    // Adding the mask's lowest bit carries into the sign bit where all of the mask is set. No early exit inside a stretch: the
    // loop is three vector instructions, and almost every block is finite.
    let lowest = mask & (0 &- mask)
    var start = 0
    while start < count {
      let end = min(start + 4096, count)
      var carries: Bits = 0
      for i in start..<end { carries |= (source[i] & mask) &+ lowest }
      if carries.leadingZeroBitCount == 0 { return true }
      start = end
    }
    return false
  }
}
