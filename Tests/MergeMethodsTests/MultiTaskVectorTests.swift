import JSON
import TensorKernels
import Testing

@testable import MergeMethods

/// What the three methods with TALL masks share.
@Suite struct MultiTaskVectorTests {
  private static let methods = ["tall_mask", "consensus_ta", "consensus_ties"]

  @Test func theirParametersDifferInOneDefault() throws {
    for name in Self.methods {
      let schema = try Registry.method(named: name).schema
      #expect(schema.parameter("use_ties")?.defaultValue == .bool(name == "consensus_ties"))
      #expect(schema.parameter("tall_mask_lambda")?.defaultValue == 0.4 && schema.parameter("density")?.defaultValue == 0.2)
      #expect(
        schema.parameter("zero_sign")?.defaultValue == "majority" && schema.parameter("trim")?.defaultValue == "inclusive")
      #expect(schema.parameter("scope")?.defaultValue == "model")
      #expect((schema.parameter("k") != nil) == (name != "tall_mask"))
    }
  }

  @Test func theScopeCountsOnlyWhereSomethingIsTrimmed() throws {
    for name in Self.methods {
      #expect(try make(name, ["use_ties": true]).scope == .model && make(name, ["use_ties": false]).scope == .tensor)
      #expect(try make(name, ["use_ties": true, "scope": "tensor"]).scope == .tensor)
    }
  }

  @Test func scratchIsThatOfTies() throws {
    let tensor = TensorContext(name: "w", shape: [100, 100], modelCount: 3, hasBase: true)
    let ties = try make("ties", ["density": 0.2, "scope": "model"]).scratchBytes(tensor)
    for name in Self.methods {
      #expect(try make(name, ["use_ties": true]).scratchBytes(tensor) == ties && ties > 0)
      #expect(try make(name, ["use_ties": false]).scratchBytes(tensor) == 0)
    }
  }

  private func tau(_ name: String, _ parameters: JSON, _ d: [[Double]]) throws -> Merged {
    try Runner().merge(make(name, parameters), d, base: d[0].map { _ in 0 })
  }

  @Test(arguments: methods) func theVectorIsTheSumOrThatOfTies(name: String) throws {
    var random = SplitMix64(state: 221)
    let d = (0..<3).map { _ in quarters(700, &random) }
    // Nothing is masked.
    let plain: [JSON.Member] = name == "tall_mask" ? [] : members(["k": 0])
    let sum = try tau(name, .object(plain + members(["use_ties": false, "weight": [1, 0.5, -2]])), d)
    #expect(sum.values == Plain.sum(d, weights: [1, 0.5, -2]))
    let ties = try tau(name, .object(plain + members(["use_ties": true, "density": 0.3, "lambda": 0.5])), d)
    let spelled = try tau(
      "ties", ["density": 0.3, "trim": "inclusive", "zero_sign": "majority", "normalize": false, "lambda": 0.5], d)
    #expect(ties.values == spelled.values)
    for key in ["thresholds", "majority_sign"] {
      #expect(ties.decision[key] == spelled.decision[key] && ties.decision[key] != nil)
    }
  }

  @Test(arguments: methods) func masksLookAtTheWholeChange(name: String) throws {
    var random = SplitMix64(state: 222)
    let d = (0..<3).map { _ in quarters(700, &random) }
    let lambdas = [0.25, 0.5, 1]
    let trimmed = d.map { Plain.trimmedInclusive($0, density: 0.3) }
    let majority: Double = Plain.signs(trimmed, zero: 0).reduce(0, +) >= 0 ? 1 : -1
    let tau = Plain.merged(trimmed, Plain.signs(trimmed, zero: majority), "sum")
    let kept = zip(d, lambdas).map { row, l in
      Double(row.indices.filter { row[$0].magnitude > l * (tau[$0] - row[$0]).magnitude }.count) / 700
    }
    let merged = try self.tau(name, ["use_ties": true, "density": 0.3, "tall_mask_lambda": [0.25, 0.5, 1]], d)
    #expect(merged.decision.numbers("mask_kept") == kept)
    #expect((merged.decision["consensus_kept"] != nil) == (name != "tall_mask"))
  }

  @Test(arguments: methods) func thereIsOneLambdaPerModel(name: String) {
    expectFailure(.parameter, "'tall_mask_lambda'", "2 values for 3 models") {
      _ = try tau(name, ["tall_mask_lambda": [1, 2]], Example.deltas)
    }
    expectFailure(.parameter, "'tall_mask_lambda'", "at least 0") { _ = try make(name, ["tall_mask_lambda": -1]) }
  }

  @Test(arguments: methods, [DType.f64, .f32, .bf16, .f16])
  func noChangeGivesTheBaseBitForBit(name: String, dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    for usesTies in [true, false] {
      let merged = try Runner(dtype: dtype).merge(make(name, ["use_ties": .bool(usesTies)]), [base, base], base: base)
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern))
      #expect(merged.decision.numbers("mask_kept") == [0, 0])
    }
  }
}
