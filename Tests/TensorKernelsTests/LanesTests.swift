import Testing

@testable import TensorKernels

// Exact throughout: a load widens, a store of loaded values gives the same bits back.
@Suite struct LanesTests {
  private func sorted<Scalar>(_ lanes: Lanes<Scalar>) -> [Double] {
    ((0..<8).map { Double(lanes.low[$0]) } + (0..<8).map { Double(lanes.high[$0]) }).sorted()
  }

  private func checkLoad<Element: KernelElement>(_: Element.Type, _ dtype: DType) {
    #expect(Element.size == dtype.size)
    let values = (0..<48).map { Double($0 * $0 % 61) - 30 }
    for misalignment in [0, 1, 3] {
      let source = GuardedBytes(count: 48 * dtype.size, misalignment: misalignment)
      source.store(values, as: dtype)
      for first in [0, 1, 16, 17, 32] {
        let lanes = Element.load(UnsafeRawPointer(source.start), first * Element.size)
        #expect(sorted(lanes) == values[first..<first + 16].sorted(), "\(dtype) from \(first)")
      }
    }
  }

  @Test func aLoadHoldsTheSixteenElementsAtItsOffset() {
    checkLoad(F32Element.self, .f32)
    checkLoad(F64Element.self, .f64)
    checkLoad(F16Element.self, .f16)
    checkLoad(BF16Element.self, .bf16)
  }

  private func checkStore<Element: KernelElement>(_: Element.Type, _ dtype: DType) {
    let source = GuardedBytes(count: 16 * dtype.size)
    source.store((0..<16).map { Double($0 * $0 % 61) - 30 }, as: dtype)
    for misalignment in [0, 1, 3] {
      // Sixteen elements more than are written, all of which stay as they are.
      let target = GuardedBytes(count: 32 * dtype.size, misalignment: misalignment)
      Element.store(Element.load(UnsafeRawPointer(source.start), 0), target.start, 8 * dtype.size)
      let untouched = [UInt8](repeating: 0xA5, count: 8 * dtype.size)
      #expect(target.bytes == untouched + source.bytes + untouched, "\(dtype)")
      #expect(target.isIntact)
    }
  }

  @Test func aStoreUndoesALoadAndWritesSixteenElements() {
    checkStore(F32Element.self, .f32)
    checkStore(F64Element.self, .f64)
    checkStore(F16Element.self, .f16)
    checkStore(BF16Element.self, .bf16)
  }

  private func checkAllCodes<Element: KernelElement>(_: Element.Type, _ format: FloatFormat) {
    let source = GuardedBytes(count: 65536 * 2)
    source.store(Array(format.codes))
    let target = GuardedBytes(count: 65536 * 2)
    for tile in 0..<4096 {
      Element.store(Element.load(UnsafeRawPointer(source.start), tile * 32), target.start, tile * 32)
    }
    let result = target.load(as: UInt16.self)
    let wrong = format.codes.filter { code in
      let back = result[Int(code)]
      return format.isNaN(code) ? !format.isQuiet(back) || (back ^ code) & 0x8000 != 0 : back != code
    }
    #expect(wrong.isEmpty, "codes \(wrong.prefix(5))")
  }

  @Test func everySixteenBitCodeSurvivesLoadAndStore() {
    checkAllCodes(F16Element.self, .f16)
    checkAllCodes(BF16Element.self, .bf16)
  }

  private func checkRounding<Element: KernelElement>(_: Element.Type, _ format: FloatFormat) where Element.Arithmetic == Float {
    let step = isOptimised ? 1 : 97
    let target = GuardedBytes(count: 32)
    var wrong: [UInt16] = []
    for code in stride(from: UInt16(0), to: format.overflow, by: step) {
      let middle = Float(format.middle(code))
      for value in [middle, middle.nextDown, middle.nextUp, -middle] {
        Element.store(Lanes(low: SIMD8(repeating: value), high: SIMD8(repeating: -value)), target.start, 0)
        let stored = Set(target.load(as: UInt16.self))
        if stored != [format.nearest(Double(value)), format.nearest(Double(-value))] { wrong.append(code) }
      }
    }
    #expect(wrong.isEmpty, "codes \(wrong.prefix(5))")
  }

  @Test func aStoreRoundsToNearestEvenAndOverflowsToInfinity() {
    checkRounding(F16Element.self, .f16)
    checkRounding(BF16Element.self, .bf16)
  }

  @Test func aBFloat16LoadHoldsEvenAndOddElements() {
    let source = GuardedBytes(count: 32)
    source.store((0..<16).map { Double($0) }, as: .bf16)
    let lanes = BF16Element.load(UnsafeRawPointer(source.start), 0)
    #expect(lanes.low == SIMD8(0, 2, 4, 6, 8, 10, 12, 14))
    #expect(lanes.high == SIMD8(1, 3, 5, 7, 9, 11, 13, 15))
  }

  @Test func lanesAreSummedByHalvesInBinary64() {
    let seed: UInt64 = 11
    var random = SplitMix64(state: seed)
    for _ in 0..<200 {
      let x = random.values(8)
      let four = (0..<4).map { x[$0] + x[$0 + 4] }
      let two = (0..<2).map { four[$0] + four[$0 + 2] }
      #expect(laneSum(SIMD8(x)) == two[0] + two[1], "seed \(seed)")
    }
    // binary32 would lose the ones.
    #expect(laneSum(SIMD8<Float>(0x1p30, 1, 1, 1, 1, 1, 1, 1)) == 0x1p30 + 7)
  }

  private func checkPlaces<Element: KernelElement>(_: Element.Type, _ dtype: DType) {
    let source = GuardedBytes(count: 16 * dtype.size)
    source.store((0..<16).map { Double($0) }, as: dtype)
    let lanes = Element.load(UnsafeRawPointer(source.start), 0)
    let positions = (0..<8).map { Int(lanes.low[$0]) } + (0..<8).map { Int(lanes.high[$0]) }
    for i in 0..<16 {
      #expect(Element.element(at: i) == positions[i] && Element.position(of: positions[i]) == i, "\(dtype): \(i)")
    }
    #expect(Element.isPaired == (dtype == .bf16))
  }

  @Test func placesOfTheElementsAreKnown() {
    checkPlaces(F32Element.self, .f32)
    checkPlaces(F64Element.self, .f64)
    checkPlaces(F16Element.self, .f16)
    checkPlaces(BF16Element.self, .bf16)
  }
}
