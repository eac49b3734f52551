import Testing

@testable import TensorKernels

@Suite struct KernelInputsTests {
  /// The rule in other words: 16-bit types only among themselves, and only where the output has the type too.
  private func expected(_ inputs: [DType], _ output: DType?) -> DType {
    if inputs.contains(.f64) { return .f64 }
    let distinct = Set(inputs)
    guard distinct.count == 1, let only = distinct.first, only == .f16 || only == .bf16 else { return .f32 }
    return output == nil || output == only ? only : .f32
  }

  @Test(arguments: floatTypes) func inputsOfOneTypeFollowTheRule(dtype: DType) {
    for count in 1...3 {
      let inputs = [DType](repeating: dtype, count: count)
      for output in [nil] + DType.allCases.map({ Optional($0) }) {
        #expect(
          KernelInputs.commonType(inputs, output: output) == expected(inputs, output),
          "\(inputs) to \(String(describing: output))")
      }
    }
  }

  @Test func mixedInputsFollowTheRuleInAnyOrder() {
    for a in floatTypes {
      for b in floatTypes {
        for c in floatTypes {
          for output in [nil, .f16, .bf16, .f32, .f64] as [DType?] {
            let common = KernelInputs.commonType([a, b, c], output: output)
            #expect(common == expected([a, b, c], output), "\(a), \(b), \(c) to \(String(describing: output))")
            #expect(kernelTypes.contains(common))
          }
        }
      }
    }
  }

  @Test func examplesOfTheRule() {
    #expect(KernelInputs.commonType([.bf16, .bf16], output: nil) == .bf16)
    #expect(KernelInputs.commonType([.bf16, .bf16], output: .bf16) == .bf16)
    #expect(KernelInputs.commonType([.bf16, .bf16], output: .f32) == .f32)
    #expect(KernelInputs.commonType([.bf16, .f16], output: .bf16) == .f32)
    #expect(KernelInputs.commonType([.f8e5m2, .f8e5m2], output: .f8e5m2) == .f32)
    #expect(KernelInputs.commonType([.f16, .f64], output: .f16) == .f64)
    #expect(KernelInputs.commonType([], output: .bf16) == .f32)
  }

  @Test func aChunkIsSixtyFourAdditionsInSixteenLanes() {
    #expect(KernelGeometry.chunk == 16 * 64)
  }

  @Test(arguments: [1, 2, 3, 16, 33]) func workspaceHoldsTheRowsOfEveryKernel(count: Int) {
    // The centred kernels need most: K inputs, the centre and one row more, in binary64.
    #expect(KernelGeometry.workspaceBytes(rows: count) >= (count + 2) * KernelGeometry.chunk * 8)
  }
}
