import Testing

@testable import TensorKernels

// Exact: comparisons and sign changes do not round.
@Suite struct ArithmeticScalarTests {
  private static let specials: [Double] = [0.0, -0.0, 1, -1, .infinity, -.infinity, 0x1p-149, -0x1p-149]

  private func checkOrdered<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    for shift in 0..<8 {
      let a = SIMD8<Scalar>((0..<8).map { Scalar(Self.specials[$0]) })
      let b = SIMD8<Scalar>((0..<8).map { Scalar(Self.specials[($0 + shift) % 8]) })
      let (lesser, greater) = Scalar.ordered(a, b)
      for i in 0..<8 {
        #expect(lesser[i] == min(a[i], b[i]) && greater[i] == max(a[i], b[i]))
        // Both are still there, the sign of zero included.
        let signs = [lesser[i], greater[i]].filter { $0.sign == .minus }.count
        #expect(signs == [a[i], b[i]].filter { $0.sign == .minus }.count)
      }
    }
  }

  @Test func orderedPairsHoldTheLesserAndTheGreater() {
    checkOrdered(Float.self)
    checkOrdered(Double.self)
  }

  private func checkNaN<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    for (x, y) in [(Scalar.nan, Scalar(1)), (1, .nan), (.nan, .nan)] {
      let (lesser, greater) = Scalar.ordered(SIMD8(repeating: x), SIMD8(repeating: y))
      for i in 0..<8 {
        #expect([lesser[i], greater[i]].filter(\.isNaN).count == [x, y].filter(\.isNaN).count)
      }
    }
  }

  @Test func orderingLosesNoNaN() {
    checkNaN(Float.self)
    checkNaN(Double.self)
  }

  private func checkSigns<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    for x in Self.specials {
      for y in Self.specials {
        let result = Scalar.withSigns(SIMD8(repeating: Scalar(x)), of: SIMD8(repeating: Scalar(y)))
        let flips = x != 0 && y != 0 && x.sign != y.sign
        for i in 0..<8 {
          #expect(result[i] == Scalar(flips ? -x : x), "\(x) with the sign of \(y)")
          #expect(result[i].sign == (flips ? -x : x).sign, "\(x) with the sign of \(y)")
        }
      }
    }
  }

  @Test func signsAreTakenOverOnlyWhereBothAreNotZero() {
    checkSigns(Float.self)
    checkSigns(Double.self)
  }

  @Test func signsAreTakenLaneByLane() {
    let values = SIMD8<Float>(1, -2, 3, -4, 5, -6, 0, 8)
    let signs = SIMD8<Float>(-1, -1, 1, 1, 0, 0, -1, -0.5)
    #expect(Float.withSigns(values, of: signs) == SIMD8<Float>(-1, -2, 3, 4, 5, -6, 0, -8))
  }

  @Test func aNaNKeepsItsSignAndGivesNone() {
    let fromNaN = Double.withSigns(SIMD8(repeating: 2), of: SIMD8(repeating: -.nan))
    #expect(fromNaN == SIMD8(repeating: 2))
    let ofNaN = Double.withSigns(SIMD8(repeating: .nan), of: SIMD8(repeating: -1))
    for i in 0..<8 { #expect(ofNaN[i].isNaN) }
  }
}
