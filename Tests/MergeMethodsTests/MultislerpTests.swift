import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct MultislerpTests {
  @Test func theMeanDirectionGetsTheMeanLength() throws {
    // Units (1, 0) and (0, 1), lengths 2 and 6.
    let merged = try Runner().merge(make("multislerp"), [[2, 0], [0, 6]])
    let half = 0.5.squareRoot()
    #expect(distance(merged.values, [4 * half, 4 * half]) <= 1e-15 && merged.sweeps == 2)
    #expect((merged.decision["mean_length"]!.double! - half).magnitude <= 1e-15)
    let weighted = try Runner().merge(make("multislerp", ["weight": [3, 1]]), [[2, 0], [0, 6]])
    #expect(distance(weighted.values, [9 / 10.0.squareRoot(), 3 / 10.0.squareRoot()]) <= 1e-15)
  }

  @Test func aBaseIsTheOrigin() throws {
    let merged = try Runner().merge(make("multislerp"), [[12, 5], [10, 11]], base: [10, 5])
    let half = 0.5.squareRoot()
    #expect(distance(merged.values, [10 + 4 * half, 5 + 4 * half]) <= 1e-14)
    let zero = try Runner().merge(make("multislerp"), [[10, 5], [10, 5]], base: [10, 5])
    #expect(zero.values == [10, 5] && zero.decision.warnings.isEmpty)
  }

  @Test(arguments: [DType.f64, .f32, .bf16]) func equalModelsAreKept(dtype: DType) throws {
    let values = [0.1, -0.7, 0, -0.0, 3]
    let expected = Memory(values, dtype).values
    let merged = try Runner(dtype: dtype).merge(make("multislerp", ["weight": [1, 2, 4]]), [values, values, values])
    #expect(merged.values.map(\.bitPattern) == expected.map(\.bitPattern))
  }

  @Test func opposedVectorsHaveNoDirection() throws {
    let merged = try Runner().merge(make("multislerp"), [[1, 2], [-3, -6]])
    #expect(merged.values == [-1, -2] && merged.decision["linear"] == true && merged.decision.warnings.count == 1)
    expectFailure(.method, "cancel") {
      _ = try Runner().merge(make("multislerp", ["compat": "mergekit"]), [[1, 2], [-0.5, -1], [0, 0]])
    }
    expectFailure(.parameter, "sum to 0") {
      _ = try Runner().merge(make("multislerp", ["weight": [1, -1]]), [[1, 2], [3, 4]])
    }
  }

  @Test func mergekitAddsEpsToTheNorms() throws {
    let merged = try Runner().merge(
      make("multislerp", ["compat": "mergekit", "eps": 1]), [[4, 0, 0], [0, 4, 0]])
    // Units of length 0.8: the mean is 0.4 (1, 1), shorter than eps, and the line is taken.
    #expect(merged.values == [2, 2, 0])
    let one = try Runner().merge(make("multislerp", ["weight": 0.3]), [[4, 1]])
    #expect(one.copied == 0)
  }
}
