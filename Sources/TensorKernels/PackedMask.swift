// Masks of one bit per element, the lowest first, from masks of one byte per element and back.
//
// Traffic: 9/8 bytes per element.

public enum PackedMask {
  public static func bytes(elements: Int) -> Int { (elements + 7) / 8 }

  /// Eight bytes of 0 or 1 as bits: the product shifts byte j to bit 56 + j, and nothing else gets there.
  @inline(__always)
  static func packed(_ bytes: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: (bytes &* 0x0102_0408_1020_4080) &>> 56) }

  /// Eight bits as bytes of 0 or 1: a copy of the bits in each byte, of which byte j keeps bit j, and shows it in its top bit.
  @inline(__always)
  static func unpacked(_ bits: UInt8) -> UInt64 {
    let own = (UInt64(bits) &* 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201
    return ((own &+ 0x7F7F_7F7F_7F7F_7F7F) | own) &>> 7 & 0x0101_0101_0101_0101
  }

  /// - Parameters:
  ///   - mask: `count` bytes of 0 or 1.
  ///   - bits: room for `bytes(elements: count)`; those past the last element become 0.
  public static func pack(_ mask: UnsafePointer<UInt8>, count: Int, into bits: UnsafeMutablePointer<UInt8>) {
    let source = UnsafeRawPointer(mask)
    for i in 0..<count / 8 { bits[i] = packed(source.loadUnaligned(fromByteOffset: 8 &* i, as: UInt64.self)) }
    guard count % 8 > 0 else { return }
    bits[count / 8] = (0..<count % 8).reduce(0) { $0 | mask[count & ~7 + $1] << UInt8($1) }
  }

  /// The reverse of `pack`.
  public static func unpack(_ bits: UnsafePointer<UInt8>, count: Int, into mask: UnsafeMutablePointer<UInt8>) {
    let target = UnsafeMutableRawPointer(mask)
    for i in 0..<count / 8 { target.storeBytes(of: unpacked(bits[i]), toByteOffset: 8 &* i, as: UInt64.self) }
    for i in count & ~7..<count { mask[i] = bits[i / 8] >> UInt8(i % 8) & 1 }
  }
}
