import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct IsoCTSTests {
  private func merge(
    _ parameters: JSON = [:], _ models: [[Double]] = Example.models, base: [Double] = Example.base, shape: [Int] = Example.shape
  ) throws -> Merged {
    try Runner().merge(make("iso_cts", parameters), models, base: base, shape: shape)
  }

  @Test func theExampleIsMet() throws {
    let delta = [
      0.156194050, -0.027182788, 0.042746876, 0.085412524, -0.033131714, -0.112458177, 0.044991735, 0.171904012, 0.024972145,
      0.013167119, -0.050019054, 0.137083057,
    ]
    let two = Array(Example.models[..<2])
    for nullSpace in ["drop", "complete"] as [JSON] {
      let merged = try merge(["common_space_fraction": 0.4, "output": "task_vector", "null_space": nullSpace], two)
      #expect(distance(merged.values, delta) <= Example.tolerance)
      #expect(merged.decision["common_rank"] == 1 && merged.decision["task_rank"] == 1 && merged.decision["rank"] == 3)
      // The sum, every task, the result.
      #expect(merged.sweeps == 4)
    }
    let turned = try merge(
      ["common_space_fraction": 0.4, "output": "task_vector"], two.map { transposed($0, rows: 4, columns: 3) },
      base: transposed(Example.base, rows: 4, columns: 3), shape: [3, 4])
    #expect(turned.decision["common_rank"] == 1 && turned.values.allSatisfy(\.isFinite))
  }

  @Test func withoutTaskDirectionsItIsIsoC() throws {
    let merged = try merge(["output": "task_vector"])
    #expect(distance(merged.values, IsoCTests.delta) <= Example.tolerance)
    #expect(merged.decision["common_rank"] == 3 && merged.decision["task_rank"] == 0 && merged.sweeps == 2)
    let other = try merge(["common_space_fraction": 1, "output": "task_vector"], Array(Example.models[..<2]))
    let isoC = try Runner().merge(
      make("iso_c", ["output": "task_vector"]), Array(Example.models[..<2]), base: Example.base, shape: [4, 3])
    #expect(distance(other.values, isoC.values) <= 1e-15)
  }

  private func sizes(_ r: Int, _ n: Int, _ f: Double) -> [Int] {
    let sizes = CommonAndTaskSubspaces(fraction: f, isotropy: Isotropy(nullSpace: .drop, tolerance: 1e-6))
      .sizes(side: r, models: n)
    return [sizes.common, sizes.task]
  }

  @Test func theSpaceIsDivided() {
    #expect(sizes(768, 8, 0.8) == [616, 19])
    #expect(sizes(768, 20, 0.8) == [608, 8])
    #expect(sizes(4096, 3, 0.8) == [3277, 273])
    // Half to even, and never more than there is.
    #expect(sizes(12, 4, 0.5) == [4, 2] && sizes(20, 4, 0.5) == [12, 2])
    #expect(sizes(11, 4, 0) == [3, 2] && sizes(32, 3, 0) == [2, 10] && sizes(2, 5, 0) == [2, 0])
  }

  @Test func theResultIsIsotropic() throws {
    var random = SplitMix64(state: 41)
    let (m, n) = isOptimised ? (90, 100) : (10, 12)
    let base = random.values(m * n)
    let models = (0..<4).map { _ in zip(base, random.values(m * n)).map { $0 + 0.1 * $1 } }
    let merged = try merge(["common_space_fraction": 0.5, "output": "task_vector"], models, base: base, shape: [m, n])
    let mean = merged.decision["singular_value_sum"]!.double! / Double(m)
    let gram = product(merged.values, transposed(merged.values, rows: m, columns: n), rows: m, inner: n, columns: m)
    #expect(merged.decision["rank"] == .int(m))
    #expect(distance(gram, identity(m, mean * mean)) <= 1e-6 * mean * mean)
  }

  @Test func aTaskVectorOfZeroAddsNothing() throws {
    let models = [Example.models[0], Example.base]
    let merged = try merge(["common_space_fraction": 0.4, "output": "task_vector"], models)
    // One common direction, and one of the only task.
    #expect(merged.decision["rank"] == 2 && merged.values.allSatisfy(\.isFinite))
    let complete = try merge(["common_space_fraction": 0.4, "null_space": "complete"], models)
    #expect(complete.decision["rank"] == 3)
    let none = try merge(["common_space_fraction": 0.4], [Example.base, Example.base])
    #expect(none.values == Example.base && none.decision["rank"] == 0)
  }

  @Test func equalTasksShareTheirDirections() throws {
    // What is outside the common space is the same for both: half of the task directions vanish.
    let merged = try merge(["common_space_fraction": 0.4, "output": "task_vector"], [Example.models[0], Example.models[0]])
    #expect(merged.decision["rank"] == 2 && merged.values.allSatisfy(\.isFinite))
  }

  @Test func theMemoryIsKnownBeforehand() throws {
    let tensor = TensorContext(name: "w", shape: [100, 300], modelCount: 5, hasBase: true)
    #expect(try make("iso_cts").scratchBytes(tensor) >= 2 * 100 * 300 * 8 + 100 * 400 * 8)
    let vector = TensorContext(name: "w", shape: [30000], modelCount: 5, hasBase: true)
    #expect(try make("iso_cts").scratchBytes(vector) == 0)
  }
}
