import Testing

@testable import TensorKernels

// Exact: whole numbers.
@Suite struct PackedMaskTests {
  @Test func everyByteComesBack() {
    for bits in UInt8.min...UInt8.max {
      let bytes = PackedMask.unpacked(bits)
      for place in 0..<8 { #expect(bytes >> UInt64(8 * place) & 255 == UInt64(bits >> UInt8(place) & 1)) }
      #expect(PackedMask.packed(bytes) == bits)
    }
  }

  @Test(arguments: [0, 1, 7, 8, 9, 64, 1001]) func aMaskComesBack(count: Int) {
    var random = SplitMix64(state: 23)
    let mask = (0..<count).map { _ in UInt8(random.below(2)) }
    let bits = GuardedBytes(count: PackedMask.bytes(elements: count))
    let again = GuardedBytes(count: count)
    PackedMask.pack(mask, count: count, into: bits.start.assumingMemoryBound(to: UInt8.self))
    PackedMask.unpack(
      bits.start.assumingMemoryBound(to: UInt8.self), count: count, into: again.start.assumingMemoryBound(to: UInt8.self))
    #expect(again.bytes == mask && bits.isIntact && again.isIntact)
    for i in 0..<8 * bits.bytes.count { #expect(bits.bytes[i / 8] >> UInt8(i % 8) & 1 == (i < count ? mask[i] : 0)) }
  }
}
