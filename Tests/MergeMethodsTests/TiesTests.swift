import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TiesTests {
  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, base: [Double] = Example.base, _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("ties", parameters), models, base: base)
  }

  /// tau of some task vectors about a base of zeros.
  private func tau(_ parameters: JSON, _ d: [[Double]], _ runner: Runner = Runner()) throws -> [Double] {
    try merge(parameters, d, base: d[0].map { _ in 0 }, runner).values
  }

  // MARK: - The example

  private static let example: [(parameters: JSON, tau: [Double])] = [
    (
      ["compat": "ties_merging", "density": 0.5],
      [0.09, -0.06, 0.07, 0.066666667, 0.10, -0.07, 0.04, 0.07, 0.075, -0.05, -0.08, 0.113333333]
    ),
    (
      ["compat": "ties_merging", "density": 0.5, "merge": "sum"],
      [0.18, -0.06, 0.07, 0.20, 0.20, -0.14, 0.04, 0.07, 0.15, -0.05, -0.16, 0.34]
    ),
    (
      ["compat": "ties_merging", "density": 0.5, "merge": "max"],
      [0.10, -0.06, 0.07, 0.09, 0.12, -0.08, 0.04, 0.07, 0.09, -0.05, -0.09, 0.13]
    ),
    (["density": 0.5], [0.09, -0.06, 0.07, 0.09, 0.10, -0.07, 0, 0.07, 0.075, -0.05, -0.08, 0.113333333]),
  ]

  @Test(arguments: example.indices) func theExampleIsMet(index: Int) throws {
    let (parameters, tau) = Self.example[index]
    let merged = try merge(parameters)
    #expect(distance(merged.values, zip(Example.base, tau).map { $0 + $1 }) <= Example.tolerance)
    let vector = try merge(.object(members(parameters) + [.init(key: "output", value: "task_vector")]))
    #expect(distance(vector.values, tau) <= Example.tolerance)
    let kept = index < 3 ? 7.0 / 12 : 0.5
    #expect(merged.decision.numbers("kept") == [kept, kept, kept])
  }

  @Test func lambdaScalesTheMergedTaskVector() throws {
    let merged = try merge(["density": 0.5, "lambda": -0.3, "output": "task_vector"])
    #expect(distance(merged.values, Self.example[3].tau.map { -0.3 * $0 }) <= Example.tolerance)
    #expect(try merge(["density": 0.5, "lambda": 0]).values == Example.base)
  }

  // MARK: - Trim

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func asManyStayAsTheDensitySays(dtype: DType) throws {
    var random = SplitMix64(state: 131)
    let count = longTensor
    let range = 0..<count
    let rows: [(name: String, d: [Double])] = [
      ("all equal", range.map { $0 % 2 == 0 ? 1 : -1 }), ("two values", range.map { $0 % 3 == 0 ? 2 : -1 }),
      ("one large", range.map { $0 == count / 2 ? 4 : 1 }), ("quarters", quarters(count, &random)),
      ("ties at the end", range.map { $0 >= count - 5 ? 1 : 2 }), ("mostly zero", range.map { $0 % 101 == 0 ? 1 : 0 }),
    ]
    for (name, d) in rows {
      for density in [0.0001, 0.3, 0.5, 0.9999] {
        let merged = try merge(["density": .double(density)], [d], base: d.map { _ in 0 }, Runner(dtype: dtype))
        let kept = max(1, Int(Double(count) * density))
        let expected = Plain.trimmed(d, kept: kept)
        #expect(merged.values.indices.first { merged.values[$0] != expected[$0] } == nil, "\(name), \(density) of \(dtype)")
        // Zeros may be among the kept.
        #expect(merged.decision.numbers("kept") == [Double(expected.filter { $0 != 0 }.count) / Double(count)])
        let inclusive = try merge(
          ["density": .double(density), "trim": "inclusive"], [d], base: d.map { _ in 0 }, Runner(dtype: dtype))
        let all = Plain.trimmedInclusive(d, density: density)
        #expect(inclusive.values.indices.first { inclusive.values[$0] != all[$0] } == nil, "\(name), \(density) of \(dtype)")
      }
    }
  }

  @Test func theEndsKeepEverythingOrNothing() throws {
    #expect(try merge(["density": 0]).values == Example.base)
    let all = try merge(["density": 1, "merge": "sum", "elect": "none"])
    #expect(distance(all.values, zip(Example.base, Plain.sum(Example.deltas)).map { $0 + $1 }) <= 1e-15)
    #expect(all.sweeps == 1)
    // Density times elements below 1 keeps the largest.
    #expect(try tau(["density": 0.01], [[1, -3, 2]]) == [0, -3, 0])
  }

  @Test func eachModelHasItsDensityAndWeight() throws {
    let d: [[Double]] = [[1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1]]
    let merged = try tau(["density": [0.5, 0, 1], "weight": [2, 1, 0.5], "normalize": false], d)
    #expect(merged == [0.5, 0.5, 6.5, 8.5])
    expectFailure(.parameter, "2 values for 3 models") { _ = try merge(["density": [1, 1]]) }
    expectFailure(.parameter, "4 values for 3 models") { _ = try merge(["weight": [1, 1, 1, 1]]) }
  }

  // MARK: - Votes

  // A vote of 0 at the first element; sums say plus and numbers minus at the second; two of the others are minus.
  private let votes: [[Double]] = [[1, 5, -1, -2], [-1, -1, -1, 1], [0, -2, 0, 0]]

  @Test func electionsAreBySumOrByNumber() throws {
    #expect(try tau(["elect": "mass", "zero_sign": "drop"], votes) == [0, 5, -1, -2])
    #expect(try tau(["elect": "count", "zero_sign": "drop"], votes) == [0, -1.5, -1, 0])
    #expect(try tau(["elect": "none"], votes) == [0, 2.0 / 3, -1, -0.5])
  }

  @Test func aVoteOfZeroBecomesPlusTheMajorityOrNobody() throws {
    #expect(try tau(["zero_sign": "plus"], votes)[0] == 1)
    #expect(try tau(["zero_sign": "drop"], votes)[0] == 0)
    // One vote is plus, two are minus.
    let majority = try merge(["zero_sign": "majority"], votes, base: [0, 0, 0, 0])
    #expect(majority.values[0] == -1 && majority.decision["majority_sign"] == -1)
    #expect(try tau(["zero_sign": "majority"], votes.map { $0.map { -$0 } })[0] == 1)
  }

  @Test(arguments: ["mass", "count", "normfrac", "normmass"]) func everyRuleIsThatOfAPlainReference(elect: String) throws {
    var random = SplitMix64(state: 132)
    let count = 2000
    let d = (0..<4).map { _ in quarters(count, &random) }
    let squares = d.map { $0.reduce(0) { $0 + $1 * $1 } }
    let votes = (0..<count).map { i -> Double in
      let column = d.map { $0[i] }
      let shares = zip(column, squares).map { $0 * $0 * (1 / $1) }
      switch elect {
      case "mass": return column.reduce(0, +)
      case "count": return column.reduce(0) { $0 + Plain.sign($1) }
      case "normfrac": return column[shares.firstIndex(of: shares.max()!)!]
      default: return zip(column, shares).reduce(0) { $0 + Plain.sign($1.0) * $1.1 }
      }
    }
    let majority: Double = votes.reduce(0) { $0 + Plain.sign($1) } >= 0 ? 1 : -1
    for (zeroSign, zero) in [("plus", 1), ("majority", majority), ("drop", 0)] {
      let signs = votes.map { $0 == 0 ? zero : Plain.sign($0) }
      for rule in ["mean", "sum", "max"] {
        let merged = try tau(["elect": .string(elect), "zero_sign": .string(zeroSign), "merge": .string(rule)], d)
        #expect(distance(merged, Plain.merged(d, signs, rule)) == 0, "\(zeroSign) \(rule)")
      }
    }
  }

  @Test func weightsCountBeforeTheVoteAndInTheMean() throws {
    let d: [[Double]] = [[1], [-0.75]]
    #expect(try tau(["weight": [1, 2]], d) == [-0.75])
    #expect(try tau(["weight": [1, 2], "normalize": false], d) == [-1.5])
    #expect(try tau(["weight": [1, -2]], d) == [-2.5])
    #expect(try tau(["weight": [0, 0]], d) == [0])
  }

  // MARK: - Presets

  @Test func presetsAreTheSettingsOfATool() throws {
    var random = SplitMix64(state: 133)
    let d = (0..<3).map { _ in quarters(333, &random) }
    for (compat, given) in [
      ("none", [:]), ("mergekit", [:]), ("sd_mecha", ["trim": "inclusive", "zero_sign": "drop"]),
    ] as [(String, JSON)] {
      let preset = try tau(["compat": .string(compat), "density": 0.5], d)
      // The density is such that sd-mecha's k is the paper's: floor(0.5 n) and n - floor(0.5 n) differ, so n is made even.
      #expect(preset.count == 333)
      if compat != "sd_mecha" {
        #expect(try preset == tau(.object(members(given) + [.init(key: "density", value: 0.5)]), d), "\(compat)")
      }
    }
    let even = d.map { Array($0[..<332]) }
    for (compat, given) in [
      ("sd_mecha", ["trim": "inclusive", "zero_sign": "drop"]),
      ("ties_merging", ["trim": "inclusive", "zero_sign": "majority"]),
      ("fusion_bench", ["trim": "inclusive", "zero_sign": "majority"]),
      ("merge_lm", ["trim": "inclusive", "zero_sign": "majority"]),
    ] as [(String, JSON)] {
      let preset = try tau(["compat": .string(compat), "density": 0.5], even)
      #expect(try preset == tau(.object(members(given) + [.init(key: "density", value: 0.5)]), even), "\(compat)")
      #expect(try preset != tau(["density": 0.5], even), "\(compat)")
    }
  }

  @Test func scopesArePresetToo() throws {
    for (compat, scope) in [
      ("none", Scope.tensor), ("mergekit", .tensor), ("sd_mecha", .tensor), ("ties_merging", .model), ("fusion_bench", .model),
      ("merge_lm", .model),
    ] {
      #expect(try make("ties", ["compat": .string(compat)]).scope == scope)
      #expect(try make("ties", ["compat": .string(compat), "scope": "tensor"]).scope == .tensor)
      #expect(try make("ties", ["compat": .string(compat), "scope": "model"]).scope == .model)
    }
  }

  @Test func explicitParametersWin() throws {
    var random = SplitMix64(state: 134)
    let d = (0..<3).map { _ in quarters(332, &random) }
    for compat in ["sd_mecha", "ties_merging", "fusion_bench", "merge_lm"] {
      let given: JSON = ["compat": .string(compat), "density": 0.5, "trim": "exact", "zero_sign": "plus"]
      #expect(try tau(given, d) == tau(["density": 0.5], d), "\(compat)")
      // Even where they say what the default says.
      let zero: JSON = ["compat": .string(compat), "density": 0.5, "zero_sign": "plus"]
      #expect(try tau(zero, d) == tau(["density": 0.5, "trim": "inclusive"], d), "\(compat)")
    }
  }

  @Test func aTiedMajorityKeepsNegativesInThePapersCode() throws {
    // One plus, one minus, and a vote of 0.
    let d: [[Double]] = [[1, -1, 2], [1, -1, -2]]
    #expect(try tau(["zero_sign": "majority"], d)[2] == 2)
    for compat in ["ties_merging", "fusion_bench", "merge_lm"] { #expect(try tau(["compat": .string(compat)], d)[2] == -2) }
  }

  @Test func sdMechaAndMergeLMCountFromBelow() throws {
    // 0.5 of 13: the paper's k is 7, theirs 6.
    let d = [(1...13).map { Double($0) }]
    #expect(try tau(["compat": "ties_merging", "density": 0.5], d).filter { $0 != 0 }.count == 7)
    for compat in ["sd_mecha", "merge_lm"] {
      #expect(try tau(["compat": .string(compat), "density": 0.5], d).filter { $0 != 0 }.count == 8, "\(compat)")
    }
    // floor(0.01 * 13) = 0: sd-mecha takes the smallest, MergeLM trims nothing.
    for compat in ["sd_mecha", "merge_lm"] {
      #expect(try tau(["compat": .string(compat), "density": 0.99], d) == d[0], "\(compat)")
    }
  }

  // MARK: - Ends

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    for parameters in [[:], ["density": 0.5], ["compat": "ties_merging", "density": 0.2], ["elect": "normfrac"]] as [JSON] {
      let merged = try merge(parameters, [base, base], base: base, Runner(dtype: dtype))
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern), "\(parameters)")
    }
  }

  @Test func oneModelIsItsTrimmedTaskVector() throws {
    let d: [Double] = [1, -2, 3, -4, 5, 6]
    #expect(try tau(["density": 0.5], [d]) == [0, 0, 0, -4, 5, 6])
    #expect(try tau(["density": 0.5, "weight": 3], [d]) == [0, 0, 0, -4, 5, 6])
    #expect(try tau(["density": 0.5, "weight": 3, "normalize": false], [d]) == [0, 0, 0, -12, 15, 18])
  }

  @Test func moreThanSixteenModelsAreTrimmedTheSame() throws {
    var random = SplitMix64(state: 135)
    let d = (0..<17).map { _ in quarters(300, &random) }
    let trimmed = d.map { Plain.trimmed($0, kept: 90) }
    let expected = Plain.merged(trimmed, Plain.signs(trimmed, zero: 1), "mean")
    for dtype in [DType.f64, .f32, .bf16] {
      let merged = try tau(["density": 0.3], d, Runner(dtype: dtype))
      // One rounding of a mean of quarters to the type.
      let unit = dtype == .bf16 ? 0x1p-8 : 0x1p-24
      #expect(zip(merged, expected).allSatisfy { ($0 - $1).magnitude <= unit * $1.magnitude }, "\(dtype)")
    }
  }
}
