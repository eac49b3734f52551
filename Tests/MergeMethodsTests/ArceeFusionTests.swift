import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ArceeFusionTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func theChangesThatStandOutStay(dtype: DType) throws {
    // One row: importances are proportional to the changes; quartiles 0.25, 0.5 and 0.75 at 2, 4 and 6 of 8.
    let model = [0.125, 0.25, 0.25, 0.25, 0.5, 0.75, 0.75, 3]
    let zero = [Double](repeating: 0, count: 8)
    let merged = try Runner(dtype: dtype).merge(make("arcee_fusion"), [model], base: zero)
    // In ascending order 1, 3 and 5: 0.25, 0.25 and 0.75; the threshold is 0.25 + 1.5 * 0.5 = 1.
    #expect(merged.values == [0, 0, 0, 0, 0, 0, 0, 3] && merged.decision["kept"]?.double == 0.125)
    let vector = try Runner(dtype: dtype).merge(
      make("arcee_fusion", ["lambda": 0.5, "output": "task_vector"]), [model], base: zero)
    #expect(vector.values[7] == 1.5)
  }

  @Test func aShiftOfARowIsNoDivergence() throws {
    var random = SplitMix64(state: 8)
    let base = random.values(160)
    var model = base.map { value in
      let step = random.signed()
      return value + step * step * step
    }
    for i in 0..<32 { model[i] = base[i] + 2 }
    let merged = try Runner().merge(make("arcee_fusion"), [model], base: base, shape: [5, 32])
    #expect(Array(merged.values[..<32]) == Array(base[..<32]) && merged.values != base)
  }

  @Test func withoutDivergenceEverythingStays() throws {
    let merged = try Runner().merge(make("arcee_fusion"), [[1, 2, 3]], base: [0, 0, 0], shape: [3, 1])
    #expect(merged.values == [1, 2, 3] && merged.decision["threshold"]?.double == 0)
  }
}
