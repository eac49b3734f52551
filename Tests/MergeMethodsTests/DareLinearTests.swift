import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct DareLinearTests {
  private let count = isOptimised ? 5000 : 700

  private func rows(_ models: Int, seed: UInt64) -> [[Double]] {
    var random = SplitMix64(state: seed)
    return (0..<models).map { _ in quarters(count, &random) }
  }

  private func tau(_ parameters: JSON, _ d: [[Double]], name: String = "w", _ dtype: DType = .f64) throws -> Merged {
    try Runner(dtype: dtype).merge(make("dare_linear", parameters), d, base: d[0].map { _ in 0 }, name: name)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func masksAreThoseOfThePage(dtype: DType) throws {
    let d = rows(1, seed: 151)
    for (name, seed) in [("layers.0.w", 0), ("layers.1.w", 0), ("", 123_456_789)] as [(String, UInt64)] {
      let merged = try tau(
        ["density": 0.3, "rescale": false, "random_seed": .int(Int(seed))], d, name: name, dtype)
      #expect(merged.values == Philox.dropped(d[0], name, seed: seed, model: 0, 0.3), "\(name)")
    }
  }

  @Test func theRescaledRestIsAddedUp() throws {
    let d = rows(3, seed: 152)
    let kept = [0.5, 0.25, 1]
    let dropped = d.indices.map { Philox.dropped(d[$0], model: $0, kept[$0]) }
    func sum(_ row: [Double]) -> Double { row.reduce(0) { $0 + $1.magnitude } }
    for (rescale, factors) in [
      ("l1", d.indices.map { sum(d[$0]) / sum(dropped[$0]) }), ("inverse", kept.map { 1 / $0 }), ("none", [1, 1, 1]),
    ] {
      let merged = try tau(
        ["density": [0.5, 0.25, 1], "weight": [1, -0.5, 2], "lambda": 0.5, "rescale": .string(rescale)], d)
      let expected = (0..<count).map { i in
        0.5 * (0..<3).reduce(0.0) { $0 + [1, -0.5, 2][$1] * factors[$1] * dropped[$1][i] }
      }
      // A few roundings of values up to 20.
      #expect(distance(merged.values, expected) <= 2e-14, "\(rescale)")
      if rescale != "none" { #expect(merged.decision.numbers("rescale") == factors) }
      let share = dropped.map { Double($0.filter { $0 != 0 }.count) / Double(count) }
      #expect(merged.decision.numbers("kept") == share)
    }
  }

  @Test func densityOneIsTaskArithmetic() throws {
    var random = SplitMix64(state: 153)
    let base = random.values(100)
    let models = (0..<3).map { _ in random.values(100) }
    for parameters in [[:], ["weight": [1, 2, -1], "lambda": 0.3], ["weight": [1, 2, 5], "normalize": true]] as [JSON] {
      let dare = try Runner().merge(make("dare_linear", parameters), models, base: base)
      let plain = try Runner().merge(make("task_arithmetic", parameters), models, base: base)
      // Two orders of the same few roundings.
      #expect(distance(dare.values, plain.values) <= 1e-14)
      #expect(dare.sweeps == 1)
    }
  }

  @Test func normalizeDividesByTheSumOfTheWeights() throws {
    let d: [[Double]] = [[1, 2], [3, 4]]
    #expect(try tau(["weight": [1, 3], "normalize": true], d).values == [2.5, 3.5])
    #expect(try tau(["weight": [1, -1], "normalize": true], d).values == [-2, -2])
    #expect(try tau(["weight": [1, 3]], d).values == [10, 14])
  }

  @Test func nothingKeptIsTheBase() throws {
    let base: [Double] = [-0.0, 1, -2]
    for rescale in ["l1", "inverse", "none"] {
      let merged = try Runner().merge(
        make("dare_linear", ["density": 0, "rescale": .string(rescale)]), [[1, 2, 3], [4, 5, 6]], base: base)
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern))
    }
  }

  @Test func mergekitLeavesTinySumsAlone() throws {
    let d = [[Double](repeating: 1e-10, count: 100)]
    let given: [JSON.Member] = members(["density": 0.5])
    let plain = try tau(.object(given), d).decision.numbers("rescale")[0]
    #expect(plain > 1.2)
    let compat = try tau(.object(given + [.init(key: "compat", value: "mergekit")]), d)
    #expect(compat.decision.numbers("rescale") == [1])
    // Sums above 1e-7 are as they are.
    let large = try tau(.object(given + [.init(key: "compat", value: "mergekit")]), [d[0].map { $0 * 1e10 }])
    #expect((large.decision.numbers("rescale")[0] - plain).magnitude <= 1e-12)
  }

  @Test func theSumIsUnbiased() throws {
    // The mean over many elements of one value: five standard deviations of the sum.
    let d = [[Double](repeating: 1, count: count)]
    let merged = try tau(["density": 0.4, "rescale": "inverse"], d)
    let mean = merged.values.reduce(0, +) / Double(count)
    #expect((mean - 1).magnitude <= 5 * (0.6 / 0.4 / Double(count)).squareRoot())
  }

  @Test func namesModelsAndSeedsHaveDifferentMasks() throws {
    let d = [[Double](repeating: 1, count: 200), [Double](repeating: 1000, count: 200)]
    let parameters: JSON = ["density": 0.5, "rescale": false]
    let first = try tau(parameters, d).values
    // Both models' masks are in the sum: they differ.
    #expect(Set(first) == [0, 1, 1000, 1001])
    #expect(try tau(parameters, d).values == first)
    #expect(try tau(parameters, d, name: "v").values != first)
    #expect(try tau(["density": 0.5, "rescale": false, "random_seed": 1], d).values != first)
  }
}
