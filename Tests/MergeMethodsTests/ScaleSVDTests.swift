import JSON
import LinearAlgebra
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ScaleSVDTests {
  private func merge(
    _ parameters: [JSON.Member] = [], _ models: [[Double]] = Example.models, base: [Double] = Example.base,
    shape: [Int] = Example.shape, name: String = "w", statistics: [[Double]?] = []
  ) throws -> Merged {
    let vector = parameters.contains { $0.key == "output" } ? [] : [JSON.Member(key: "output", value: "task_vector")]
    return try Runner().merge(
      make("scale_svd", .object(parameters + vector)), models, base: base, shape: shape, name: name, statistics: statistics)
  }

  private static let row = [
    0.10, -0.039734855, 0.025862068, 0.06, 0.119996658, -0.078101749, -0.020193154, 0.049981939, 0.09, 0.028348799,
    -0.070168726,
    0.11,
  ]
  private static let d: JSON = [1, 4, 0.25]

  @Test func theExamplesAreMet() throws {
    let merged = try merge(members(["statistics": Self.d]), [Example.models[0]])
    #expect(distance(merged.values, Self.row) <= Example.tolerance)
    #expect(merged.decision["low_rank"] == 1 && (merged.decision["dropped"]!.double! - 0.775).magnitude <= 1e-15)
    #expect(merged.decision.numbers("residuals").count == 1 && merged.decision.warnings.isEmpty)
    let global = try merge(members(["statistics": Self.d, "mask_strategy": "global"]), [Example.models[0]])
    let want = [
      0.10, -0.039197277, 0.034279527, 0.06, 0.118634580, -0.103750504, -0.019869806, 0.050014817, 0.09, 0.028863262,
      -0.072652484, 0.063537393,
    ]
    #expect(distance(global.values, want) <= Example.tolerance)
  }

  @Test func statisticsComeFromTheContextOrTheParameter() throws {
    let given = try merge([], [Example.models[0]], statistics: [[1, 4, 0.25]])
    #expect(distance(given.values, Self.row) <= Example.tolerance)
    let both = try merge(members(["statistics": [Self.d]]), [Example.models[0]], statistics: [[9, 9, 9]])
    #expect(both.values == given.values)
    let plain = try merge([], [Example.models[0]])
    let odd = try merge([], [Example.models[0]], statistics: [[1, 2]])
    #expect(odd.values == plain.values && odd.decision.warnings.count == 1)
    #expect(odd.decision.warnings[0].contains("2 channels") && odd.decision.warnings[0].contains("3 columns"))
    #expect(try merge([], [Example.models[0]], statistics: [nil]).decision.warnings.isEmpty)
    for bad in [[1, -1, 1], [-1, -2, -3]] as [JSON] {
      expectFailure(.parameter, "statistic of model 1") { _ = try merge(members(["statistics": bad]), [Example.models[0]]) }
    }
    expectFailure(.parameter, "'statistics'", "2 lists") { _ = try merge(members(["statistics": [Self.d, nil]])) }
  }

  /// The processed task matrices one by one.
  private func processed(_ parameters: [JSON.Member] = []) throws -> [[Double]] {
    try Example.models.map { try merge(parameters, [$0]).values }
  }

  @Test func theProcessedMatricesAreAddedOrAveraged() throws {
    let parts = try processed()
    let sum = (0..<12).map { i in parts.reduce(0) { $0 + $1[i] } }
    #expect(distance(try merge().values, sum) <= 1e-15)
    #expect(distance(try merge(members(["then": "mean"])).values, sum.map { $0 / 3 }) <= 1e-15)
    let weights = try merge(members(["output": "weights", "lambda": 0.5]))
    #expect(distance(weights.values, zip(Example.base, sum).map { $0 + 0.5 * $1 }) <= 1e-15)
    #expect(try merge(members(["weight": [2, 0, 0]])).decision.numbers("residuals")[1...] == [0, 0])
  }

  @Test(arguments: ["iso_c", "iso_cts", "tsvm"]) func theOtherMethodsMergeThem(then: String) throws {
    let parts = try processed()
    let zero = [Double](repeating: 0, count: 12)
    let fraction: [JSON.Member] = then == "iso_cts" ? [.init(key: "common_space_fraction", value: 0.1)] : []
    let merged = try merge([.init(key: "then", value: .string(then))] + fraction)
    let direct = try Runner().merge(
      make(then, .object([.init(key: "output", value: "task_vector")] + fraction)), parts, base: zero, shape: Example.shape)
    #expect(distance(merged.values, direct.values) <= 1e-12)
    for key in ["rank", "singular_value_sum"] {
      #expect((merged.decision[key]!.double! - direct.decision[key]!.double!).magnitude <= 1e-12)
    }
  }

  @Test func tiesTrimsElectsAndAverages() throws {
    // Nothing is lost by the decomposition (rank 3): the example of the specification.
    let lossless = members(["target_rank": 3, "then": "ties", "density": 0.5])
    let merged = try merge(lossless)
    let want = [0.09, -0.06, 0.07, 0.09, 0.10, -0.07, 0, 0.07, 0.075, -0.05, -0.08, 0.34 / 3]
    #expect(distance(merged.values, want) <= 1e-14 && merged.decision["kept"] == .double(0.5))
    // Without a decomposition, from the raw task vectors. (Rounding of w - w0 decides no tie here.)
    for shape in [[12], [3, 2, 2]] {
      let plain = try merge(members(["then": "ties", "density": 0.5]), shape: shape)
      #expect(distance(plain.values, want) <= 1e-14 && plain.sweeps == 4)
    }
    let excluded = try merge(members(["then": "ties", "density": 0.5, "exclude_keys": ["w"]]))
    #expect(distance(excluded.values, want) <= 1e-14 && excluded.decision["excluded"] == true)
  }

  @Test func whatIsNoMatrixIsNotDecomposed() throws {
    let sum = (0..<12).map { i in Example.deltas.reduce(0) { $0 + $1[i] } }
    #expect(distance(try merge(shape: [12]).values, sum) <= 1e-15)
    for then in ["mean", "iso_c", "iso_cts", "tsvm"] {
      let merged = try merge([.init(key: "then", value: .string(then))], shape: [2, 6, 1])
      #expect(distance(merged.values, sum.map { $0 / 3 }) <= 1e-15)
    }
    #expect(try merge(members(["reshape_conv": true]), shape: [4, 3, 1]).values == merge().values)
  }

  @Test func contradictionsAreRefused() {
    for (parameters, words) in [
      (["mask_strategy": "n:m"], "prune_n"), (["prune_n": 2], "prune_m"), (["prune_n": 4, "prune_m": 2], "prune_m"),
      (["prune_n": 2, "prune_m": 4, "mask_strategy": "global"], "global"), (["num_iters": 0], "num_iters"),
    ] as [(JSON, String)] {
      expectFailure(.parameter, words) { _ = try make("scale_svd", parameters) }
    }
  }

  @Test func zerosAreTheBase() throws {
    for then in ["sum", "mean", "iso_c", "iso_cts", "tsvm", "ties"] as [JSON] {
      let merged = try merge(members(["then": then, "output": "weights"]), [Example.base, Example.base])
      #expect(merged.values == Example.base)
    }
  }

  @Test func theMemoryIsKnownBeforehand() throws {
    let tensor = TensorContext(name: "w", shape: [100, 300], modelCount: 4, hasBase: true)
    let matrix = 100 * 300 * 8
    for (then, matrices) in [("sum", 4), ("mean", 4), ("iso_c", 4), ("iso_cts", 8), ("tsvm", 6), ("ties", 8)] {
      #expect(try make("scale_svd", ["then": .string(then)]).scratchBytes(tensor) >= matrices * matrix)
    }
    let vector = TensorContext(name: "w", shape: [300], modelCount: 4, hasBase: true)
    #expect(try make("scale_svd").scratchBytes(vector) == 0)
    #expect(try make("scale_svd", ["then": "ties"]).scratchBytes(vector) >= 4 * 300 * 8)
  }

  @Test func theDecompositionAloneTakesTheSameParameters() throws {
    let options = try MatrixCompression.options(members(["sparsity": 0.5, "prune_n": 2, "prune_m": 4, "target_rank": 3]))
    #expect(options.sparsity == 0.5 && options.mask == .nOfM(keep: 2, of: 4) && options.targetRank == 3 && !options.refit)
    expectFailure(.parameter, "low_rank_plus_sparse", "'then'") { _ = try MatrixCompression.options(members(["then": "sum"])) }
  }
}
