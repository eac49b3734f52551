import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct RamTests {
  static let base = [1.0, 1, 1, 1]
  static let models = [[3.0, 3, 1.25, 1], [1.0, 5, 1.25, 1], [1.0, 1, 4, 1]]

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func ownChangesAreAddedAndSharedOnesAveraged(dtype: DType) throws {
    // Alone: 2. Together: the mean of 2 and 4. A change of epsilon is none.
    let merged = try Runner(dtype: dtype).merge(make("ram", ["epsilon": 0.25]), Self.models, base: Self.base)
    #expect(merged.values == [3, 4, 4, 1] && merged.sweeps == 1)
    #expect(merged.decision.numbers("unique") == [0.25, 0, 0.25] && merged.decision.numbers("shared") == [0.25, 0.25, 0])
    let vector = try Runner(dtype: dtype).merge(
      make("ram", ["epsilon": 0.25, "lambda": 0.5, "output": "task_vector"]), Self.models, base: Self.base)
    #expect(vector.values == [1, 1.5, 1.5, 0])
  }
}
