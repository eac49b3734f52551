import Testing

@testable import TensorKernels

@Suite struct NearSwapTests {
  private func run(_ kernel: NearSwap, _ inputs: Inputs, _ count: Int, _ type: DType) -> (values: [Double], swapped: Double) {
    let output = GuardedBytes(count: count * type.size)
    let swapped = kernel.run(inputs.kernel, count: count, output: output.start, type)
    #expect(output.isIntact)
    return (output.values(as: type), swapped)
  }

  @Test(arguments: kernelTypes) func stepsAreCutOff(dtype: DType) {
    var random = SplitMix64(state: 51)
    for count in lengths {
      // Multiples of a quarter: exact in every type.
      let inputs = Inputs([quarters(count, &random), quarters(count, &random)], dtype, misalignment: dtype.size)
      let (a, b) = (inputs.values[0], inputs.values[1])
      for limit in [0, 0.25, 0.5, 8] {
        let found = run(NearSwap(limit: limit, floor: 0), inputs, count, dtype)
        let expected = zip(a, b).map { a, b in
          (b - a).magnitude <= limit ? b : a + (b > a ? limit : -limit)
        }
        #expect(difference(found.values, expected) == nil, "\(count) \(limit)")
        #expect(found.swapped == Double(zip(a, b).filter { ($1 - $0).magnitude <= limit }.count))
      }
    }
  }

  @Test func aFloorShortensSmallSteps() {
    let inputs = Inputs([[0, 0, 0], [0x1p-30, 0x1p-20, 1]], .f64)
    let found = run(NearSwap(limit: 0x1p-22, floor: 0x1p-20), inputs, 3, .f64)
    #expect(found.values == [0x1p-32, 0x1p-22, 0x1p-22] && found.swapped == 0)
  }

  @Test(arguments: kernelTypes) func nonFiniteInputsShow(dtype: DType) {
    let inputs = Inputs([[.nan, 1, 1, .infinity, 1, 2], [1, .nan, .infinity, 1, -.infinity, 2]], dtype)
    let found = run(NearSwap(limit: 0.5, floor: 0), inputs, 6, dtype).values
    #expect(found[..<5].allSatisfy { !$0.isFinite } && found[5] == 2)
  }

  @Test(arguments: kernelTypes) func signsOfZerosAreTheSecondInputs(dtype: DType) {
    let inputs = Inputs([[0, -0.0, 0, -0.0], [0, 0, -0.0, -0.0]], dtype)
    #expect(sameBits(run(NearSwap(limit: 0.5, floor: 0), inputs, 4, dtype).values, [0, 0, -0.0, -0.0]) == nil)
  }
}
