import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct BreadcrumbsTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func bothEndsGo(dtype: DType) throws {
    let model = [3.0, -1, 10, 2, -9, 4, 0.5, 8, -7, 6]
    let zero = [Double](repeating: 0, count: 10)
    let merged = try Runner(dtype: dtype).merge(make("breadcrumbs", ["density": 0.3, "gamma": 0.2]), [model], base: zero)
    #expect(merged.values == [0, 0, 0, 0, 0, 0, 0, 8, -7, 6])
    #expect(merged.decision.numbers("thresholds") == [6] && merged.decision.numbers("outlier_thresholds") == [9])
    // The density holds where both do not fit.
    let most = try Runner(dtype: dtype).merge(make("breadcrumbs", ["density": 0.9, "gamma": 0.2]), [model], base: zero)
    #expect(most.values == [3, -1, 0, 2, -9, 4, 0.5, 8, -7, 6])
    #expect(try Runner(dtype: dtype).merge(make("breadcrumbs", ["gamma": 0.2]), [model], base: zero).values == model)
  }

  @Test func smallTensorsKeepTheirChanges() throws {
    let model = [1.0, -4, 3]
    let merged = try Runner().merge(make("breadcrumbs", ["density": 0.7]), [model], base: [0, 0, 0])
    #expect(merged.values == [0, -4, 3])
    #expect(try Runner().merge(make("breadcrumbs", ["density": 0.1]), [model], base: [0, 0, 0]).values == [0, -4, 0])
    let tool = try Runner().merge(make("breadcrumbs", ["density": 0.1, "compat": "mergekit"]), [model], base: [0, 0, 0])
    #expect(tool.values == [0, 0, 0])
  }

  @Test func rescaleAndWeights() throws {
    let parameters: JSON = ["density": 0.5, "gamma": 0.25, "rescale": true, "weight": [2, 1], "normalize": true]
    let merged = try Runner().merge(make("breadcrumbs", parameters), [[1, 2, 3, 4], [8, 0, 0, 0]], base: [0, 0, 0, 0])
    // Of the first 2 and 3 stay, times 10/5; of the second zeros, which cannot be rescaled.
    #expect(distance(merged.values, [0, 8.0 / 3, 4, 0]) <= 1e-15)
    #expect(merged.decision.numbers("rescale") == [2, 1])
  }
}
