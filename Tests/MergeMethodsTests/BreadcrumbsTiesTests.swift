import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct BreadcrumbsTiesTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func whatAgreesIsAddedOrAveraged(dtype: DType) throws {
    let models = [[1.0, 2, 3, 9], [1, -3, 5, -8]]
    let zero = [0.0, 0, 0, 0]
    let trim: [JSON.Member] = members(["density": 0.5, "gamma": 0.25])
    let method = try Registry.method(named: "breadcrumbs_ties")
    let sum = try Runner(dtype: dtype).merge(Registry.make(method, trim), models, base: zero)
    #expect(sum.values == [0, -3, 8, 0])
    let mean = try Runner(dtype: dtype).merge(Registry.make(method, trim + members(["normalize": true])), models, base: zero)
    #expect(mean.values == [0, -3, 4, 0] && mean.decision["conflicts"]?.double == 0.25)
  }
}
