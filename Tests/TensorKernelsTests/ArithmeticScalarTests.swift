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

  private func checkMasks<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    for x in Self.specials + [.nan] {
      for y in Self.specials + [.nan] {
        let (a, b) = (SIMD8(repeating: Scalar(x)), SIMD8(repeating: Scalar(y)))
        let isLess = Scalar.isLess(a, b)
        #expect(isLess == SIMD8(repeating: Scalar(x) < Scalar(y) ? ~0 : 0), "\(x) below \(y)")
        #expect(Scalar.isZero(a) == SIMD8(repeating: Scalar(x) == 0 ? ~0 : 0), "\(x)")
        let negated = Scalar.negated(a, where: isLess)
        #expect(negated[3].sign == (x < y ? -Scalar(x) : Scalar(x)).sign && negated[3].magnitude == a[3].magnitude || x.isNaN)
      }
      let sign = Scalar.signs(SIMD8(repeating: Scalar(x)))
      #expect(sign == SIMD8(repeating: Scalar(x) > 0 ? 1 : Scalar(x) < 0 ? -1 : 0) && (sign[0] != 0 || sign[0].sign == .plus))
    }
  }

  @Test func masksSayWhatComparesAndNegateByThem() {
    checkMasks(Float.self)
    checkMasks(Double.self)
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

  // MARK: - Task vectors

  private func checkLanes<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    func scalar(_ values: [Double]) -> SIMD8<Scalar> { SIMD8<Scalar>((0..<8).map { Scalar(values[$0]) }) }
    func same(_ a: Scalar, _ b: Scalar) -> Bool { a == b && a.sign == b.sign || a.isNaN && b.isNaN }
    let values = Self.specials
    for shift in 0..<8 {
      let others = (0..<8).map { values[($0 + shift) % 8] }
      let (a, b) = (scalar(values), scalar(others))
      let (signs, above) = (Scalar.signs(a), Scalar.above(a, b))
      let positive = Scalar.positive(a, b)
      let (larger, smaller, wide) = (Scalar.larger(a, b), Scalar.smaller(a, b), Scalar.wide(a))
      let filled = Scalar.fillingZeros(a, with: 5)
      for i in 0..<8 {
        #expect(signs[i] == (a[i] > 0 ? 1 : a[i] < 0 ? -1 : 0))
        #expect(above[i] == (a[i] > b[i] ? 1 : 0))
        #expect(same(positive[i], a[i] > 0 ? b[i] : 0))
        #expect(same(larger[i], b[i] > a[i] ? b[i] : a[i]) && same(smaller[i], b[i] < a[i] ? b[i] : a[i]))
        #expect(wide[i] == Double(a[i]))
        #expect(same(filled[i], a[i] == 0 ? 5 : a[i]))
        for narrow in [false, true] {
          let magnitude = narrow ? Scalar(Float(a[i].magnitude)) : a[i].magnitude
          #expect(same(Scalar.magnitudes(a, narrow: narrow)[i], magnitude))
          // Patterns order as values do; those of binary32 where they are narrow.
          let (first, second) = (Scalar.pattern(a[i], narrow: narrow), Scalar.pattern(b[i], narrow: narrow))
          #expect(
            (first < second) == (a[i].magnitude < b[i].magnitude) && (first == second) == (a[i].magnitude == b[i].magnitude))
          if narrow { #expect(first == UInt64(Float(a[i]).magnitude.bitPattern)) }
          // And lead back to the magnitude.
          #expect(same(Scalar.value(pattern: first, narrow: narrow), magnitude))
        }
      }
    }
  }

  @Test func signsMagnitudesAndComparisonsAreTakenLaneByLane() {
    checkLanes(Float.self)
    checkLanes(Double.self)
  }

  private func checkNaNs<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    let nan = SIMD8<Scalar>(repeating: .nan)
    let one = SIMD8<Scalar>(repeating: 1)
    #expect(Scalar.signs(nan) == .zero && Scalar.above(nan, one) == .zero && Scalar.above(one, nan) == .zero)
    #expect(Scalar.positive(nan, one) == .zero)
    for i in 0..<8 {
      #expect(Scalar.larger(nan, one)[i].isNaN && Scalar.smaller(nan, one)[i].isNaN)
      #expect(Scalar.magnitudes(nan, narrow: false)[i].isNaN && Scalar.fillingZeros(nan, with: 1)[i].isNaN)
    }
  }

  @Test func aNaNHasNoSignAndAgreesWithNobody() {
    checkNaNs(Float.self)
    checkNaNs(Double.self)
  }

  @Test func aNarrowMagnitudeIsTheRoundedOne() {
    let values = SIMD8<Double>(repeating: -1 - 0x1p-40)
    #expect(Double.magnitudes(values, narrow: true) == SIMD8(repeating: 1))
    #expect(Double.magnitudes(values, narrow: false) == SIMD8(repeating: 1 + 0x1p-40))
    #expect(Double.pattern(-1 - 0x1p-40, narrow: true) == UInt64(Float(1).bitPattern))
    #expect(Double.pattern(-1 - 0x1p-40, narrow: false) == (1 + 0x1p-40).bitPattern)
  }

  private func checkKept<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    let values = SIMD8<Scalar>(-3, -2, -1, -0.0, 0, 1, 2, 3)
    let rank = Scalar.magnitudes(values, narrow: false)
    #expect(Scalar.kept(values, rank: rank, from: 2) == SIMD8(-3, -2, 0, 0, 0, 0, 2, 3))
    #expect(Scalar.kept(values, rank: rank, from: Scalar(2).nextUp) == SIMD8(-3, 0, 0, 0, 0, 0, 0, 3))
    #expect(Scalar.kept(values, rank: rank, upTo: 2) == SIMD8(0, -2, -1, 0, 0, 1, 2, 0))
    #expect(Scalar.kept(values, rank: rank, upTo: Scalar(2).nextDown) == SIMD8(0, 0, -1, 0, 0, 1, 0, 0))
    let zeros = Scalar.kept(values, rank: rank, from: 0)
    #expect(zeros == values && zeros[3].sign == .minus)
    let words = SIMD8<UInt32>(0, 1, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFE, 0xFFFF_FFFF, 16_777_217)
    for limit in [0, 1, 2, 16_777_217, 16_777_218, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF] as [UInt32] {
      let kept = Scalar.kept(SIMD8(repeating: 9), mask: masks(of: words, below: limit))
      for i in 0..<8 { #expect(kept[i] == (words[i] < limit ? 9 : 0), "\(words[i]) below \(limit)") }
    }
  }

  private func checkCounts<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    let values = SIMD8<Scalar>(-3, -2, .leastNonzeroMagnitude, -0.0, 0, 1, .infinity, -.greatestFiniteMagnitude)
    let ones = SIMD8<Scalar.Count>(repeating: 1)
    #expect(Scalar.counting(ones, values) == SIMD8(2, 2, 2, 1, 1, 2, 2, 2))
    let ranks = Scalar.magnitudes(values, narrow: false)
    let below = Scalar.isBelow(ranks, SIMD8(repeating: 2))
    #expect(below == SIMD8(0, 0, -1, -1, -1, -1, 0, 0))
    #expect(Scalar.bytes(below) == 0x0000_FFFF_FFFF_0000)
    #expect(Scalar.cleared(values, where: below) == SIMD8(-3, -2, 0, 0, 0, 0, .infinity, -.greatestFiniteMagnitude))
  }

  @Test func whatIsNotZeroAndWhatIsBelowIsCounted() {
    checkCounts(Float.self)
    checkCounts(Double.self)
  }

  @Test func whatIsKeptIsAboveTheThresholdOrItsWordBelowTheLimit() {
    checkKept(Float.self)
    checkKept(Double.self)
  }

  private func checkGreater<Scalar: ArithmeticScalar>(_: Scalar.Type) {
    let keys = SIMD8<Scalar>(0, 1, 2, 3, 0, -1, .infinity, 5)
    let others = SIMD8<Scalar>(0, 0, 2, 4, -0.0, -2, .infinity, 6)
    let (value, key) = Scalar.greater(SIMD8(repeating: 1), key: keys, SIMD8(repeating: 2), key: others)
    #expect(value == SIMD8(2, 1, 2, 2, 2, 1, 2, 2))
    #expect(key == SIMD8(0, 1, 2, 4, 0, -1, .infinity, 6))
  }

  @Test func ofEqualKeysTheSecondIsTaken() {
    checkGreater(Float.self)
    checkGreater(Double.self)
  }
}
