import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct SceTests {
  private static let base = [0.0, 0, 0, 0, 0, 0]
  private static let models = [[1.0, 5, 2, 7, 0, 1], [1, 4, 4, 7, 0, 1.5]]

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func theMostDisputedElementsAreChosen(dtype: DType) throws {
    // Three elements differ; two thirds of them are chosen.
    let merged = try Runner(dtype: dtype).merge(make("sce", ["select_topk": 0.67]), Self.models, base: Self.base)
    #expect(merged.values.map { $0 != 0 } == [false, true, true, false, false, false])
    #expect(merged.decision["threshold"]?.double == 0.5)
    #expect(try Runner(dtype: dtype).merge(make("sce", ["select_topk": 0.3]), Self.models, base: Self.base).values == Self.base)
  }

  @Test func weightsAreSquaresAndMinoritiesAreErased() throws {
    let merged = try Runner().merge(make("sce"), [[1, 2, -1], [4, -2, -2]], base: [0, 0, 0])
    // Squares 6 and 24; in the second element both are equal and plus wins.
    #expect(merged.decision.numbers("weights") == [0.2, 0.8] && merged.sweeps == 2)
    #expect(distance(merged.values, [3.4, 2, -1.8]) <= 1e-15)
  }

  @Test func equalVariancesAreChosenByTheLowestIndex() throws {
    let count = isOptimised ? 200_000 : 3000
    let base = [Double](repeating: 0, count: count)
    let models = [base, (0..<count).map { $0 % 3 == 0 ? 0 : 1 }]
    let merged = try Runner(block: 4096).merge(make("sce", ["select_topk": 0.5]), models, base: base)
    let disputed = base.indices.filter { $0 % 3 != 0 }
    let expected = Set(disputed.prefix(disputed.count / 2))
    #expect(base.indices.first { (merged.values[$0] != 0) != expected.contains($0) } == nil)
  }

  @Test func theToolHasFloors() throws {
    let models = [[1e-5, 0], [3e-5, 0]]
    #expect(try Runner().merge(make("sce"), models, base: [0, 0]).decision.numbers("weights")[0] < 0.11)
    let tool = try Runner().merge(make("sce", ["compat": "mergekit"]), models, base: [0, 0])
    #expect(tool.decision.numbers("weights") == [0.5, 0.5])
  }
}
