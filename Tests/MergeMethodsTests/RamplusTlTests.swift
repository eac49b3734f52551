import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct RamplusTlTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func ownChangesGrowWithWhatIsShared(dtype: DType) throws {
    // Model 0: one of its own, one shared: a ratio of 1. Model 1 has none of its own, model 2 shares none.
    let merged = try Runner(dtype: dtype).merge(
      make("ramplus_tl", ["epsilon": 0.25, "r": 0.5, "alpha": 4]), RamTests.models, base: RamTests.base)
    #expect(merged.decision.numbers("factors") == [1.5, 1, 1] && merged.values == [4, 4, 4, 1] && merged.sweeps == 2)
    let cut = try Runner(dtype: dtype).merge(
      make("ramplus_tl", ["epsilon": 0.25, "r": 0.5, "alpha": 0.5]), RamTests.models, base: RamTests.base)
    #expect(cut.decision.numbers("factors") == [1.25, 1, 1] && cut.values == [3.5, 4, 4, 1])
  }
}
