import Testing

@testable import TensorKernels

/// The list against a plain loop over the row.
@Suite struct LanePlacesTests {
  private func check<Scalar: ArithmeticScalar>(_ values: [Scalar], from least: Scalar, to most: Scalar, vectors: Int) {
    let bytes = GuardedBytes(count: 2 * KernelGeometry.chunk * MemoryLayout<Scalar>.size)
    let rows = Rows<Scalar>(bytes.start)
    // The other row would give other places.
    for i in 0..<KernelGeometry.chunk { (rows[0][i], rows[1][i]) = (least, values[i]) }
    var above = SIMD8<Scalar.Count>(repeating: 1)
    let found = LanePlaces.withChunk { places in
      let count = places.fill(
        rows, 1, vectors: vectors, from: SIMD8(repeating: least), to: SIMD8(repeating: most), narrow: true, above: &above)
      return (0..<count).map { places[$0] }
    }
    let looked = values[..<(8 * vectors)]
    #expect(found == looked.indices.filter { values[$0].magnitude >= least && values[$0].magnitude <= most })
    #expect(Int(above.wrappedSum()) == 8 + looked.count { $0.magnitude > most })
    #expect(bytes.isIntact)
  }

  private func check<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    var random = SplitMix64(state: 7)
    let values = (0..<KernelGeometry.chunk).map { _ in Scalar(Float(random.signed())) }
    for (least, most) in [(0.5, 0.75), (0.9, 0.91), (0.25, 0.26), (2, 3), (0, 2)] as [(Scalar, Scalar)] {
      for vectors in [0, 1, 2, 3, 77, KernelGeometry.chunk / 8] { check(values, from: least, to: most, vectors: vectors) }
    }
    // The ends are inside.
    check((0..<KernelGeometry.chunk).map { Scalar($0 % 8) * ($0 % 3 == 0 ? -1 : 1) }, from: 2, to: 5, vectors: 128)
  }

  @Test func placesOfBinary32() { check(Float.self) }
  @Test func placesOfBinary64() { check(Double.self) }
}
