import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TsvmTests {
  private func merge(
    _ parameters: JSON = [:], _ models: [[Double]] = Example.models, base: [Double] = Example.base,
    shape: [Int] = Example.shape,
    _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("tsvm", parameters), models, base: base, shape: shape)
  }

  static let delta = [
    0.130560137, -0.026874343, 0.054246480, 0.066522172, 0.175893041, 0.014490895, 0.106420615, -0.083158853, -0.027583904,
    -0.021695473, -0.019307378, 0.178843762,
  ]

  @Test(arguments: [["variant": "standard"], ["variant": "eigen"], ["compat": "fusion_bench"]] as [JSON])
  func theExampleIsMet(parameters: JSON) throws {
    let vector = JSON.object(members(parameters) + [.init(key: "output", value: "task_vector")])
    let merged = try merge(vector)
    #expect(distance(merged.values, Self.delta) <= 2 * Example.tolerance)
    #expect(merged.decision["rank"] == 3 && merged.sweeps == 4)
    let sum = 0.197392757 + 0.181038523 + 0.190724234
    #expect((merged.decision["singular_value_sum"]!.double! - sum).magnitude <= 3 * Example.tolerance)
    let turned = try merge(
      vector, Example.models.map { transposed($0, rows: 4, columns: 3) }, base: transposed(Example.base, rows: 4, columns: 3),
      shape: [3, 4])
    #expect(distance(turned.values, transposed(Self.delta, rows: 4, columns: 3)) <= 2 * Example.tolerance)
    let weights = try merge(parameters)
    #expect(distance(weights.values, zip(Example.base, Self.delta).map { $0 + $1 }) <= 2 * Example.tolerance)
  }

  @Test func orthogonalTasksAreAddedUp() throws {
    // Task vectors in different rows and columns do not meet: nothing is lost of them, k = 2.
    let base = [Double](repeating: 1, count: 16)
    let one = [3.0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    let two = [0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 1, 4]
    let models = [one, two].map { zip(base, $0).map { $0 + $1 } }
    let merged = try merge([:], models, base: base, shape: [4, 4])
    #expect(distance(merged.values, zip(zip(base, one), two).map { $0.0 + $0.1 + $1 }) <= 1e-14)
    #expect(merged.decision["rank"] == 4)
  }

  @Test func equalTasksGiveWhatTheyShare() throws {
    // k = 1 of each: the leading triplet, once.
    let merged = try merge(["output": "task_vector"], [Example.models[0], Example.models[0], Example.models[0]])
    let k1 = try Runner().merge(
      make("scale_svd", ["output": "task_vector", "target_rank": 1, "unstruct_sparse": 1, "num_iters": 1]), [Example.models[0]],
      base: Example.base, shape: Example.shape)
    #expect(distance(merged.values, k1.values) <= 1e-12 && merged.decision["rank"] == 1)
  }

  @Test func losslessKeepsEverything() throws {
    // One task would give itself; two with disjoint rows and columns too, at full rank.
    let merged = try merge(["variant": "lossless", "output": "task_vector"], Array(Example.models[..<2]))
    #expect(merged.decision["rank"] == 3 && merged.values.allSatisfy(\.isFinite))
    let (a, b) = (Example.deltas[0], Example.deltas[1])
    let base = [Double](repeating: 0, count: 8 * 6)
    func placed(_ delta: [Double], _ row: Int, _ column: Int) -> [Double] {
      var result = base
      for i in 0..<12 { result[(row + i / 3) * 6 + column + i % 3] = delta[i] }
      return result
    }
    let apart = try merge(
      ["variant": "lossless", "output": "task_vector"], [placed(a, 0, 0), placed(b, 4, 3)], base: base, shape: [8, 6])
    #expect(distance(apart.values, zip(placed(a, 0, 0), placed(b, 4, 3)).map { $0 + $1 }) <= 1e-14)
  }

  @Test func oneModelIsItself() throws {
    let merged = try merge(["lambda": 0.5, "weight": 3], [Example.models[0]])
    #expect(distance(merged.values, zip(Example.base, Example.deltas[0]).map { $0 + 1.5 * $1 }) <= 1e-15)
    #expect(try merge([:], [Example.models[0]]).copied == 1)
  }

  @Test func moreModelsThanDirectionsAreAveraged() throws {
    let models = Example.models + [Example.base]
    let merged = try merge([:], models)
    let mean = Example.base.indices.map { i in Example.base[i] + Example.deltas.reduce(0) { $0 + $1[i] } / 4 }
    #expect(distance(merged.values, mean) <= 1e-15 && merged.decision.warnings.count == 1)
    #expect(merged.decision.warnings[0].contains("averaged"))
    let compatible = try merge(["compat": "fusion_bench"], models)
    #expect(compatible.values == Example.base && compatible.decision.warnings.count == 1)
    // Their k is 0 for 49 models of rank 49: 49 * (1 / 49) is below 1 in binary64.
    #expect(TaskSingularVectors(isLossless: false, isCompatible: true).rank(side: 49, models: 49) == 0)
    #expect(TaskSingularVectors(isLossless: false, isCompatible: false).rank(side: 49, models: 49) == 1)
  }

  @Test func aTaskVectorOfZeroDoesNotDisturbTheOthers() throws {
    let merged = try merge(["output": "task_vector"], [Example.models[0], Example.base, Example.base])
    let alone = try merge(["output": "task_vector"], [Example.models[0], Example.models[0], Example.models[0]])
    #expect(distance(merged.values, alone.values) <= 1e-12)
    let none = try merge([:], [Example.base, Example.base])
    #expect(none.values == Example.base && none.decision["rank"] == 0)
    #expect(try merge(["compat": "fusion_bench"], [Example.base, Example.base]).values == Example.base)
  }

  @Test func theMemoryIsKnownBeforehand() throws {
    let tensor = TensorContext(name: "w", shape: [100, 300], modelCount: 4, hasBase: true)
    let standard = try make("tsvm").scratchBytes(tensor)
    #expect(standard >= 2 * 100 * 300 * 8 + 100 * 400 * 8)
    #expect(try make("tsvm", ["variant": "lossless"]).scratchBytes(tensor) >= standard + 300 * 400 * 8)
    #expect(try make("tsvm", ["exclude_keys": ["*"]]).scratchBytes(tensor) == 0)
  }
}
