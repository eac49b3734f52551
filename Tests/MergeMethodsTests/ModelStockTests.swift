import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ModelStockTests {
  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, base: [Double] = Example.base, shape: [Int] = Example.shape,
    name: String = "w", _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("model_stock", parameters), models, base: base, shape: shape, name: name)
  }

  /// base + t_r mean(d) with one t per slice of `length`.
  private func expected(_ t: [Double], length: Int = 12) -> [Double] {
    Example.base.indices.map { i in
      let mean = Example.deltas.reduce(0.0) { $0 + $1[i] } / 3
      return Example.base[i] + t[i / length] * mean
    }
  }

  @Test func theExampleIsMet() throws {
    let merged = try merge([:])
    let values = [
      0.538704272, -1.018061994, 0.270642279, 1.551605697, 0.156766266, -0.783543703, -0.397419715, 0.836123988, 0.630963418,
      0.205160570, -0.346445127, 1.187729684,
    ]
    #expect(distance(merged.values, values) <= Example.tolerance)
    #expect((merged.decision["t"]!.double! - 0.774085450).magnitude <= Example.tolerance)
    #expect(merged.decision["outside_unit"] == false && merged.sweeps == 2)
  }

  @Test func theOtherExamplesOfTAreMet() throws {
    let angle = try merge(["aggregate": "angle"])
    #expect((angle.decision["t"]!.double! - 0.782519160).magnitude <= Example.tolerance)
    #expect(distance(angle.values, expected([0.782519160])) <= Example.tolerance)
    let two = try merge([:], Array(Example.models[..<2]))
    #expect((two.decision["t"]!.double! - 0.742478399).magnitude <= Example.tolerance)
  }

  private static let rowT = [0.167218701, 0.867378397, 0.537449582, 0.924162978]

  @Test(arguments: [["granularity": "row"], ["filter_wise": true], ["granularity": "out_filter"]] as [JSON])
  func rowsHaveTheirOwnRatio(parameters: JSON) throws {
    // In two dimensions slices along the last and along the first axis are the same.
    let merged = try merge(parameters)
    #expect(distance(merged.values, expected(Self.rowT, length: 3)) <= Example.tolerance)
    #expect(merged.sweeps == 1 && merged.decision["rows"] == 4 && merged.decision["outside_unit"] == 0)
    #expect((merged.decision["t_min"]!.double! - Self.rowT[0]).magnitude <= Example.tolerance)
    #expect((merged.decision["t_max"]!.double! - Self.rowT[3]).magnitude <= Example.tolerance)
    #expect((merged.decision["t_mean"]!.double! - Self.rowT.reduce(0, +) / 4).magnitude <= Example.tolerance)
  }

  @Test func sdMechaTakesNeighboursRowByRow() throws {
    let merged = try merge(["compat": "sd_mecha"])
    // The floor of the norms, 1e-6, is far below those of the rows.
    let t = [0.152139244, 0.836385490, -0.254875788, 0.877154301]
    #expect(distance(merged.values, expected(t, length: 3)) <= Example.tolerance)
    #expect(merged.decision["outside_unit"] == 1)
    let clamped = try merge(["aggregate": "adjacent", "granularity": "row", "clamp": "unit"])
    #expect(distance(clamped.values, expected(t.map { max($0, 0) }, length: 3)) <= Example.tolerance)
    #expect(clamped.decision["outside_unit"] == 1)
  }

  @Test func slicesFollowTheAxes() throws {
    // The same twelve numbers as 2 x 2 x 3: rows are slices of 3, filters of 6.
    let shape = [2, 2, 3]
    #expect(
      distance(try merge(["granularity": "row"], shape: shape).values, expected(Self.rowT, length: 3)) <= Example.tolerance)
    let halves = try (0..<2).map { half in
      let range = half * 6..<half * 6 + 6
      return try merge([:], Example.models.map { Array($0[range]) }, base: Array(Example.base[range]), shape: [6])
    }
    let filters = try merge(["granularity": "out_filter"], shape: shape)
    #expect(distance(filters.values, halves[0].values + halves[1].values) <= 1e-15)
    // One dimension is one vector, whatever the granularity.
    let whole = try merge([:])
    for granularity in ["row", "out_filter"] as [JSON] {
      #expect(try merge(["granularity": granularity], shape: [12]).values == whole.values)
    }
  }

  @Test func aScalarTakesTheAverage() throws {
    let merged = try merge([:], [[3], [5]], base: [1], shape: [])
    #expect(merged.values == [4] && merged.decision["t"] == 1.0)
  }

  @Test func oneModelIsTheResult() throws {
    let merged = try merge([:], [Example.models[0]])
    #expect(merged.copied == 1)
  }

  @Test func zeroTaskVectorsGiveTheBaseBitForBit() throws {
    let merged = try merge([:], [Example.base, Example.base, Example.base])
    #expect(merged.copied == 0 && merged.decision["t"] == 0.0)
    // Row by row: the second row of zeros stays the base, the others move.
    var models = Example.models
    for k in 0..<3 { for i in 3..<6 { models[k][i] = Example.base[i] } }
    let rows = try merge(["granularity": "row"], models)
    #expect(Array(rows.values[3..<6]) == Array(Example.base[3..<6]) && rows.values[0] != Example.base[0])
  }

  @Test func ignoredKeysKeepTheAverage() throws {
    let average = expected([1])
    for (keys, name) in [
      (["w"], "w"), (["a", "*.bias"], "x.bias"), ("head.*", "head.weight"), (["clip"], "model.logit_scale"),
    ] as [(JSON, String)] {
      let merged = try merge(["ignore_keys": keys], name: name)
      #expect(distance(merged.values, average) <= 1e-15 && merged.decision["ignored"] == true, "\(name)")
    }
    #expect(try merge(["ignore_keys": ["clip", "v"]], name: "w").values == (try merge([:])).values)
    #expect(ModelStock.clipKeys.count == 6)
  }

  @Test func theTaskVectorIsTheResultWithoutTheBase() throws {
    for parameters in [[:], ["granularity": "row"], ["ignore_keys": ["w"]]] as [JSON] {
      let weights = try merge(parameters)
      let vector = try merge(.object(members(parameters) + [.init(key: "output", value: "task_vector")]))
      #expect(distance(vector.values, zip(weights.values, Example.base).map { $0 - $1 }) <= 1e-15)
    }
  }

  @Test func negativeRatiosExtrapolateUnlessClamped() throws {
    // c = -1/2: t = -2.
    let (base, root) = ([1.0, 1], 0.75.squareRoot())
    let models = [[2.0, 1], [0.5, 1 + root]]
    let free = try merge([:], models, base: base, shape: [2])
    #expect((free.decision["t"]!.double! + 2).magnitude <= 1e-14 && free.decision["outside_unit"] == true)
    #expect(distance(free.values, [0.5, 1 - root]) <= 1e-14)
    #expect(try merge(["clamp": "unit"], models, base: base, shape: [2]).values == base)
  }

  @Test func infiniteRatiosOfSdMechaAreSaturated() throws {
    // Rows of one element with opposite signs: c = -1, t = -infinity, times a mean of 0 or not.
    let merged = try merge(["compat": "sd_mecha"], [[2, 3, 2], [0, 0.5, 2]], base: [1, 1, 1], shape: [3, 1])
    let largest = Double(Float.greatestFiniteMagnitude)
    #expect(merged.values[0] == 1 && merged.values[1] == 1 - largest && merged.values[2] == 2)
  }

  @Test func contradictionsAreRefused() {
    expectFailure(.parameter, "filter_wise", "out_filter") {
      _ = try make("model_stock", ["filter_wise": true, "granularity": "out_filter"])
    }
    expectFailure(.parameter, "scope model", "granularity") {
      _ = try make("model_stock", ["scope": "model", "granularity": "row"])
    }
    expectFailure(.parameter, "scope layer") { _ = try make("model_stock", ["scope": "layer", "compat": "sd_mecha"]) }
    expectFailure(.parameter, "scope layer") { _ = try make("model_stock", ["scope": "layer", "filter_wise": true]) }
  }

  @Test func scopeIsHandedOn() throws {
    #expect(try make("model_stock").scope == .tensor && make("model_stock", ["scope": "layer"]).scope == .layer)
    #expect(try make("model_stock", ["scope": "model"]).scope == .model)
  }

  @Test(arguments: [DType.f32, .bf16, .f16]) func narrowTypesAgreeToTheirPrecision(dtype: DType) throws {
    // Task vectors of about 0.05 beside numbers up to 1.5 rounded to the type: t follows the rounded inputs.
    let rounded = Example.models.map { Memory($0, dtype).values }
    let base = Memory(Example.base, dtype).values
    let exact = try merge([:], rounded, base: base)
    let merged = try merge([:], rounded, base: base, Runner(dtype: dtype))
    let half = dtype == .bf16 ? 0x1p-8 : dtype == .f16 ? 0x1p-11 : 0x1p-24
    #expect(distance(merged.values, exact.values) <= half + 0x1p-20)
    #expect((merged.decision["t"]!.double! - exact.decision["t"]!.double!).magnitude <= 1e-6)
  }
}
