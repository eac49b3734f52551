import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ConsensusTaTests {
  private static let expected = [0.15, -0.07, 0, 0.20, 0.22, -0.13, 0.01, 0.14, 0.12, 0.02, -0.18, 0.34]
  /// How many of the three masks are on.
  private static let counts = [2, 2, 1, 2, 2, 2, 3, 2, 2, 3, 2, 3]

  private func merge(_ parameters: JSON, _ models: [[Double]] = Example.models) throws -> Merged {
    try Runner().merge(make("consensus_ta", parameters), models, base: Example.base)
  }

  @Test func theExampleIsMet() throws {
    let merged = try merge([:])
    #expect(distance(merged.values, zip(Example.base, Self.expected).map { $0 + $1 }) <= Example.tolerance)
    #expect(merged.sweeps == 1 && merged.decision["consensus_kept"]?.double == 11.0 / 12)
    // 26 of 36 bits.
    #expect((merged.decision.numbers("mask_kept").reduce(0, +) * 12 - 26).magnitude < 1e-12)
  }

  @Test func asManyMasksAsAskedFor() throws {
    let sum = Plain.sum(Example.deltas)
    for k in 0...4 {
      let merged = try merge(["k": .int(k), "lambda": 0.5])
      let expected = sum.indices.map { Example.base[$0] + (Self.counts[$0] >= k ? 0.5 * sum[$0] : 0) }
      #expect(distance(merged.values, expected) <= 1e-15, "\(k)")
      #expect(merged.decision["consensus_kept"]?.double == Double(Self.counts.filter { $0 >= k }.count) / 12)
    }
    #expect(try merge(["k": 4]).values == Example.base)
  }

  @Test func oneModelHasNoConsensusOfTwo() throws {
    #expect(try merge([:], [Example.models[0]]).values == Example.base)
    #expect(distance(try merge(["k": 1], [Example.models[0]]).values, Example.models[0]) <= 1e-15)
  }

  @Test func itHasNoMasksToStore() throws {
    let tensor = TensorContext(name: "w", shape: [4, 3], modelCount: 3, hasBase: true)
    #expect(try make("consensus_ta").artifacts(tensor, dtype: .f32).isEmpty)
    let store = ArtifactStore([2, 2, 2])
    _ = try Runner().merge(make("consensus_ta"), Example.models, base: Example.base, artifacts: store)
    #expect(store.bytes == [[0xA5, 0xA5], [0xA5, 0xA5], [0xA5, 0xA5]])
  }

  @Test func theNumberIsAWholeOne() {
    expectFailure(.parameter, "'k'", "whole number") { _ = try make("consensus_ta", ["k": 1.5]) }
    expectFailure(.parameter, "'k'", "at least 0") { _ = try make("consensus_ta", ["k": -1]) }
  }
}
