import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct YoyoFusionTests {
  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, shape: [Int] = Example.shape, name: String = "w",
    _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("yoyo_fusion", parameters), models, shape: shape, name: name)
  }

  private struct Golden: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let parameters: JSON
    var models = 3
    var scale: Double?
    let values: [Double]
  }

  private static let goldens = [
    Golden(
      testDescription: "v1, lower median", parameters: ["use_geometric_median": false], scale: 1.027016840,
      values: [
        0.551559408, -1.024046768, 0.276298479, 1.566755564, 0.163768005, -0.794452994, -0.399519238, 0.841581737, 0.639855523,
        0.212810517, -0.362178263, 1.219601287,
      ]),
    Golden(
      testDescription: "v1, geometric median", parameters: [:], scale: 1,
      values: [
        0.549984057, -1.025330795, 0.277654221, 1.566948816, 0.175079677, -0.793672745, -0.397957427, 0.846615569, 0.642439821,
        0.208329714, -0.361245671, 1.214321222,
      ]),
    Golden(
      testDescription: "v1, anchor 1", parameters: ["anchor_index": 1],
      values: [
        0.580325412, -1.019692825, 0.266162696, 1.553381233, 0.194732131, -0.811994677, -0.403851017, 0.845036874, 0.657985713,
        0.212959371, -0.358807980, 1.200517520,
      ]),
    Golden(
      testDescription: "v1, lower median, no truncation",
      parameters: ["use_geometric_median": false, "use_k_minus_one_truncation": false], scale: 1,
      values: [
        0.551779178, -1.024335670, 0.276505425, 1.566755672, 0.170021278, -0.794705556, -0.398658871, 0.844429754, 0.641285323,
        0.210224151, -0.361401350, 1.216428833,
      ]),
    Golden(
      testDescription: "v3, standard median", parameters: ["version": "v3", "use_geometric_median": false], scale: 1.013418393,
      values: [
        0.538646527, -1.027259094, 0.281718288, 1.571103416, 0.160144313, -0.786579310, -0.397394592, 0.842814926, 0.635660313,
        0.210840284, -0.363520933, 1.223396055,
      ]),
    Golden(
      testDescription: "v1, two models, lower median", parameters: ["use_geometric_median": false], models: 2,
      values: [
        0.596052172, -1.040385057, 0.246642278, 1.560577586, 0.123321139, -0.832417688, -0.420155504, 0.850314710, 0.585775410,
        0.154151424, -0.370136992, 1.210447999,
      ]),
  ]

  @Test(arguments: goldens) private func theExamplesAreMet(golden: Golden) throws {
    let merged = try merge(golden.parameters, Array(Example.models[..<golden.models]))
    #expect(distance(merged.values, golden.values) <= Example.tolerance)
    if let scale = golden.scale { #expect((merged.decision["scale"]!.double! - scale).magnitude <= Example.tolerance) }
    #expect(merged.decision["degenerate"] == false && merged.sweeps == 3)
  }

  @Test func theReportHasTheSubspace() throws {
    let merged = try merge(["use_geometric_median": false])
    let squares = [0.228452277, 0.182994672, 0.048111694].map { $0 * $0 }
    let energy = (squares[0] + squares[1]) / (squares[0] + squares[1] + squares[2])
    #expect(merged.decision["rank"] == 2 && (merged.decision["energy"]!.double! - energy).magnitude <= 1e-8)
    #expect(merged.decision.numbers("weights").count == 3 && merged.decision.numbers("coefficients").count == 3)
    #expect(try merge(["version": "v3", "use_geometric_median": false]).decision["rank"] == 2)
  }

  private static let variants: [JSON] = [
    [:], ["use_geometric_median": false], ["anchor_index": 2], ["version": "v3"], ["version": "v3", "use_z_median": false],
    ["median": "standard", "use_geometric_median": false, "mad_median": "standard"],
    ["version": "v3", "sign_reference_mode": 2],
    ["version": "v3", "use_matrix_boost": true],
    ["version": "v3", "use_matrix_boost": true, "use_geometric_median": false, "sign_reference_mode": 1],
  ]

  @Test(arguments: variants) func theResultHasTheMeanNorm(parameters: JSON) throws {
    let seed: UInt64 = 140
    var random = SplitMix64(state: seed)
    let base = random.values(60)
    let models = (0..<4).map { k in base.map { ($0 + 0.2 * random.signed()) * (1 + 0.1 * Double(k)) } }
    let merged = try merge(parameters, models, shape: [6, 10])
    let mean = models.map { norm($0) }.reduce(0, +) / 4
    // eps adds about 1e-8 to a norm of 4.
    #expect((norm(merged.values) / mean - 1).magnitude <= 1e-7, "seed \(seed)")
  }

  @Test(arguments: variants) func aPowerOfTwoIsOnlyAFactor(parameters: JSON) throws {
    let plain = try merge(parameters)
    let scaled = try merge(parameters, Example.models.map { $0.map { $0 * 1024 } })
    // The 1e-8 inside the mean square and eps are absolute, relative to numbers around 0.7.
    #expect(distance(scaled.values.map { $0 / 1024 }, plain.values) <= 1e-6)
  }

  @Test func equalModelsAreCopied() throws {
    for parameters in Self.variants where parameters["sign_reference_mode"] == nil {
      let merged = try merge(parameters, [Example.base, Example.base, Example.base])
      #expect(merged.copied == 0 && merged.decision["degenerate"] == true)
    }
    #expect(try merge([:], [Example.base]).copied == 0)
  }

  @Test func zeroTensorsStayZero() throws {
    let zero = [Double](repeating: 0, count: 12)
    #expect(try merge([:], [zero, zero]).values == zero)
  }

  @Test func twoModelsWarnWhereOneOfThemIsLost() throws {
    let two = Array(Example.models[..<2])
    let lower = try merge(["use_geometric_median": false], two)
    #expect(lower.decision.warnings.count == 1 && lower.decision.warnings[0].contains("minimum"))
    let anchor = try merge(["anchor_index": 1], two)
    #expect(anchor.decision.warnings.count == 1 && anchor.decision.warnings[0].contains("anchor"))
    // Indeed: the anchor, with the mean norm.
    let factor = (norm(two[0]) + norm(two[1])) / 2 / norm(two[0])
    #expect(distance(anchor.values, two[0].map { $0 * factor }) <= 1e-7)
    #expect(try merge([:], two).decision.warnings.isEmpty)
    #expect(try merge(["use_geometric_median": false, "median": "standard"], two).decision.warnings.isEmpty)
    #expect(try merge(["use_geometric_median": false]).decision.warnings.isEmpty)
  }

  @Test func twoModelsAboutTheStandardMedianGiveTheirMiddleDirection() throws {
    let two = Array(Example.models[..<2])
    let merged = try merge(["use_geometric_median": false, "median": "standard"], two)
    let units = two.map { x in x.map { $0 / norm(x) } }
    let middle = zip(units[0], units[1]).map { $0 + $1 }
    let factor = norm(merged.values) / norm(middle)
    // The 1e-8 inside the mean square is beside a 0.6 that differs between the two by a hundredth.
    #expect(distance(merged.values, middle.map { $0 * factor }) <= 1e-8)
  }

  @Test func signAlignmentFlipsWhatOpposesTheReference() throws {
    // Models that differ in signs only become equal to the first.
    let flipped = Example.base.enumerated().map { $0.offset % 3 == 0 ? -$0.element : $0.element }
    let merged = try merge(["version": "v3", "sign_reference_mode": 1], [Example.base, flipped, flipped])
    #expect(distance(merged.values, Example.base) <= 1e-7)
    let other = try merge(["version": "v3", "sign_reference_mode": 2], [Example.base, flipped, flipped])
    #expect(distance(other.values, flipped) <= 1e-7)
  }

  @Test func theBoostIsForMatricesThatAreNoEmbeddings() throws {
    let parameters: JSON = ["version": "v3", "use_matrix_boost": true]
    let plain = try merge(["version": "v3"]).values
    let boosted = try merge(parameters)
    #expect(distance(boosted.values, plain) > 1e-3 && boosted.sweeps == 5)
    for name in ["model.embed_tokens.weight", "lm_head.weight", "EMBED"] {
      #expect(try merge(parameters, name: name).values == plain, "\(name)")
    }
    for shape in [[12], [2, 2, 3]] { #expect(try merge(parameters, shape: shape).values == plain) }
    let context = TensorContext(name: "w", shape: [4, 3], modelCount: 3, hasBase: false)
    #expect(
      try make("yoyo_fusion", parameters).scratchBytes(context) >= 12 * 8 && make("yoyo_fusion").scratchBytes(context) == 0)
  }

  @Test func contradictionsAreRefused() throws {
    expectFailure(.parameter, "version: v3") { _ = try make("yoyo_fusion", ["use_matrix_boost": true]) }
    expectFailure(.parameter, "version: v3") { _ = try make("yoyo_fusion", ["sign_reference_mode": 1]) }
    expectFailure(.parameter, "'anchor_index'", "is 4", "3 models") { _ = try merge(["anchor_index": 4]) }
    expectFailure(.parameter, "'sign_reference_mode'", "is 5") { _ = try merge(["version": "v3", "sign_reference_mode": 5]) }
    // Names are turned into numbers by the recipe; one that is left over is none of the models.
    expectFailure(.parameter, "'anchor_index'", "'org/model'") { _ = try make("yoyo_fusion", ["anchor_index": "org/model"]) }
  }

  @Test func theMedianFollowsTheVersionUnlessGiven() throws {
    let four = Example.models + [Example.base]
    func values(_ parameters: JSON) throws -> [Double] {
      try merge(.object(members(parameters) + [.init(key: "use_geometric_median", value: false)]), four).values
    }
    #expect(try values([:]) == values(["median": "lower"]) && values([:]) != values(["median": "standard"]))
    #expect(try values(["version": "v3"]) == values(["version": "v3", "median": "standard"]))
    #expect(try values(["version": "v3"]) != values(["version": "v3", "median": "lower"]))
  }
}
