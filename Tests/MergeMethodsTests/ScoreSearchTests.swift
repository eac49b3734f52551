import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ScoreSearchTests {
  /// Finds order statistics of the deviations of two models, and finishes.
  private struct Program: SweepProgram {
    let ranks: [Int]
    let report: @Sendable ([FoundThreshold?]) -> [JSON]

    func begin(_ tensor: TensorContext) throws(Failure) -> Step {
      let scores = ElementScores(.deviation, models: tensor.modelCount, narrow: !tensor.isDouble)
      let search = ScoreSearch(scores, tensor, ranks: ranks.count)
      return search.begin { _ in
        ranks.map { $0 > 0 ? ThresholdTarget(rank: $0, ties: .all) : nil }
      } _: { found in
        .finish(Decision([.init(key: "found", value: .array(report(found)))]))
      }
    }
  }

  @Test(arguments: [DType.f64, .f32, .bf16]) func ranksAreThoseOfASort(dtype: DType) throws {
    var random = SplitMix64(state: 5)
    let count = isOptimised ? 70_001 : 2001
    let base = [Double](repeating: 0, count: count)
    let models = (0..<2).map { _ in Memory(random.values(count), dtype).values }
    // Of two values the deviation is half of their distance.
    let scores = (0..<count).map { i -> Double in
      let half = (models[1][i] - models[0][i]).magnitude / 2
      return dtype == .f64 ? half : Double(Float(half))
    }
    let ordered = scores.sorted(by: >)
    let ranks = [1, count / 4, 0, count]
    let found = try Runner(dtype: dtype).merge(
      Program(ranks: ranks) { $0.map { found in found.map { .double($0.value) } ?? .null } }, models, base: base)
    let values = found.decision["found"]!.array!
    for (rank, value) in zip(ranks, values) {
      if rank == 0 {
        #expect(value.isNull)
      } else {
        #expect((value.double! / ordered[rank - 1] - 1).magnitude <= 1e-15 || value.double! == ordered[rank - 1], "\(rank)")
      }
    }
  }
}
