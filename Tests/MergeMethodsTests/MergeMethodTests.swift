import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct MergeMethodTests {
  @Test func contextCountsElementsAndInputs() {
    let tensor = TensorContext(name: "w", shape: [4, 3, 2], modelCount: 3, hasBase: true)
    #expect(tensor.count == 24 && tensor.inputCount == 4 && tensor.firstModel == 1)
    let scalar = TensorContext(name: "s", shape: [], modelCount: 2, hasBase: false)
    #expect(scalar.count == 1 && scalar.inputCount == 2 && scalar.firstModel == 0)
    #expect(TensorContext(name: "e", shape: [0, 5], modelCount: 1, hasBase: false).count == 0)
  }

  /// Every method, with parameters that take another way through it.
  private static let variants: [(name: String, parameters: JSON, models: Int)] = [
    ("linear", ["weight": [0.2, 0.5, -0.3]], 3), ("task_arithmetic", ["lambda": 0.4], 3), ("slerp", ["t": 0.3], 1),
    ("model_stock", [:], 3), ("model_stock", ["granularity": "row"], 3), ("model_stock", ["granularity": "out_filter"], 3),
    ("model_stock", ["compat": "sd_mecha"], 3), ("model_stock", ["output": "task_vector"], 2), ("yoyo_scale", [:], 3),
    ("yoyo_scale", ["solver": "qp"], 4), ("geometric_median", [:], 3),
    ("geometric_median", ["start": "median"], 4), ("geometric_median", ["start": "median", "maxiter": 0], 4),
    ("geometric_median", ["include_base": true], 3), ("yoyo_fusion", [:], 3), ("yoyo_fusion", ["anchor_index": 2], 3),
    ("yoyo_fusion", ["use_geometric_median": false], 4), ("yoyo_fusion", ["version": "v3"], 3),
    ("yoyo_fusion", ["version": "v3", "use_matrix_boost": true], 3),
    ("yoyo_fusion", ["version": "v3", "sign_reference_mode": 1, "use_geometric_median": false], 3),
    ("tsvm", [:], 3), ("tsvm", ["variant": "lossless"], 2), ("tsvm", ["compat": "fusion_bench", "output": "task_vector"], 4),
    ("tsvm", [:], 1), ("iso_c", [:], 3), ("iso_c", ["null_space": "complete", "lambda": 0.5], 2), ("iso_cts", [:], 3),
    ("iso_cts", ["common_space_fraction": 0.4, "output": "task_vector"], 2),
    ("iso_cts", ["null_space": "complete", "common_space_fraction": 0], 2), ("scale_svd", [:], 2),
    ("scale_svd", ["then": "mean", "mask_strategy": "global", "refit": true], 2),
    ("scale_svd", ["then": "iso_c", "prune_n": 2, "prune_m": 4], 2), ("scale_svd", ["then": "iso_cts"], 2),
    ("scale_svd", ["then": "tsvm", "compat": "awrank"], 3), ("scale_svd", ["then": "ties", "density": 0.5], 3),
    ("ties", [:], 3), ("ties", ["density": 0.5], 3), ("ties", ["compat": "ties_merging", "density": 0.3], 4),
    ("ties", ["elect": "normmass", "density": 0.7, "merge": "max"], 3), ("ties_soup", ["weight": [1, 2, 0.5]], 3),
    ("dare_linear", ["density": 0.5], 3), ("dare_linear", ["density": 0.5, "drop": "della", "rescale": "inverse"], 3),
    ("dare_ties", ["density": 0.6, "trim_density": 0.5, "zero_sign": "majority"], 3), ("tsd", [:], 3),
    ("tsd", ["trim_density": 0.5, "rescale": true], 4), ("tsd_v2", [:], 3), ("tsd_v2", ["aggregate": "angle"], 2),
    ("tgmd", [:], 3), ("tgmd", ["reading": "coordwise", "drop": "della", "epsilon": -0.1], 4),
    ("magnitude_prune", ["rescale": true], 3), ("magnitude_prune", ["compat": "merge_lm", "density": 0.5], 3),
    ("magmax", ["lambda": 0.5], 3), ("tall_mask", [:], 3), ("tall_mask", ["use_ties": true, "density": 0.5], 3),
    ("consensus_ta", ["k": 1], 3), ("consensus_ties", ["k": 1, "density": 0.5], 3), ("ties", ["density": 0.5], 17),
    ("ties", ["density": 0.5, "rescale": true], 3), ("nuslerp", ["weight": [0.7, 0.3]], 2),
    ("nuslerp", ["nuslerp_flatten": false], 2), ("nuslerp", ["nuslerp_flatten": false, "nuslerp_row_wise": true], 2),
    ("multislerp", ["weight": [0.5, 0.3, 0.2]], 3), ("karcher", [:], 3), ("passthrough", [:], 1),
    ("breadcrumbs", ["density": 0.5, "gamma": 0.1], 3), ("breadcrumbs", ["density": 0.5, "gamma": 0.1, "rescale": true], 9),
    ("breadcrumbs_ties", ["density": 0.7, "gamma": 0.2, "zero_sign": "majority"], 3),
    ("della_linear", ["density": 0.5], 3), ("della", ["density": [0.5, 0.7], "rescale": "inverse"], 2), ("sce", [:], 3),
    ("sce", ["select_topk": 0.5], 3), ("arcee_fusion", [:], 1), ("nearswap", ["t": 0.05], 1), ("ram", ["epsilon": 0.03], 3),
    ("ramplus_tl", ["epsilon": 0.03], 3),
  ]

  /// Models near a common base, as fine-tunes are.
  private func inputs(_ count: Int, models: Int, seed: UInt64) -> (base: [Double], models: [[Double]]) {
    var random = SplitMix64(state: seed)
    let base = random.values(count)
    return (base, (0..<models).map { _ in base.map { $0 + 0.1 * random.signed() } })
  }

  private func run(
    _ variant: (name: String, parameters: JSON, models: Int), _ runner: Runner, _ shape: [Int], seed: UInt64
  ) throws -> Merged {
    let method = try make(variant.name, variant.parameters)
    let (base, models) = inputs(shape.reduce(1, *), models: variant.models, seed: seed)
    return try runner.merge(method, models, base: method.usesBase(given: true) ? base : nil, shape: shape, name: "w")
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func resultsAreTheSameForEveryBlockSize(dtype: DType) throws {
    // Several chunks and a tail; the rows of 29 and 1 do not divide a block.
    let shapes = isOptimised ? [[257, 29], [29, 257], [longTensor]] : [[113, 29]]
    for shape in shapes {
      for variant in Self.variants {
        let whole = try run(variant, Runner(dtype: dtype, block: 1 << 20), shape, seed: 1)
        for block in [1024, 2048, 4096] {
          let cut = try run(variant, Runner(dtype: dtype, block: block), shape, seed: 1)
          let note: Comment = "\(variant.name) \(variant.parameters.serialized(indent: 0)) \(shape) in blocks of \(block)"
          #expect(whole.values.indices.first { whole.values[$0].bitPattern != cut.values[$0].bitPattern } == nil, note)
          #expect(whole.decision.entries == cut.decision.entries, note)
        }
      }
    }
  }

  @Test func everyVariantComputesSomethingFinite() throws {
    for variant in Self.variants {
      let merged = try run(variant, Runner(), [12, 29], seed: 2)
      #expect(merged.values.allSatisfy { $0.isFinite }, "\(variant.name)")
      #expect(Set(merged.values).count > 300, "\(variant.name)")
    }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func equalModelsGiveThatModelBitForBit(dtype: DType) throws {
    // Base and models equal: every method answers with them (task vectors with zero). Sign alignment copies nothing, and is left
    // out: it restores the norm by a division.
    var random = SplitMix64(state: 3)
    let values = random.values(100) + [0, -0.0]
    let expected = Memory(values, dtype).values
    for variant in Self.variants where variant.parameters["sign_reference_mode"] == nil {
      let method = try make(variant.name, variant.parameters)
      let merged = try Runner(dtype: dtype).merge(
        method, [[Double]](repeating: values, count: variant.models), base: method.usesBase(given: true) ? values : nil,
        shape: [6, 17])
      let isTaskVector = variant.parameters["output"] == "task_vector"
      #expect(merged.values == (isTaskVector ? expected.map { _ in 0 } : expected), "\(variant.name) \(variant.parameters)")
    }
  }

  @Test(arguments: [0, 1, 2, 3]) func shapesWithoutElementsOrWithOneAreMerged(rank: Int) throws {
    for variant in Self.variants {
      let one = try run(variant, Runner(), [Int](repeating: 1, count: rank), seed: 4)
      #expect(one.values.count == 1 && one.values[0].isFinite, "\(variant.name) \(variant.parameters)")
      if rank == 0 { continue }
      let none = try run(variant, Runner(), [Int](repeating: 2, count: rank - 1) + [0], seed: 4)
      #expect(none.values.isEmpty, "\(variant.name)")
    }
  }

  @Test func everyReportedKeyIsInTheSchema() throws {
    var strange: Set<String> = []
    for variant in Self.variants {
      let known = try Registry.method(named: variant.name).schema.reports
      for shape in [[6, 17], [102], []] {
        let keys = try run(variant, Runner(), shape, seed: 5).decision.entries.map(\.key)
        for key in keys where !known.contains(key) { strange.insert("\(variant.name): \(key)") }
      }
    }
    #expect(strange == [])
  }

  @Test func gramSweepsNameTheirSquaresForTheSearchOfUnderflow() throws {
    // The elementwise methods ask for magnitudes first, which are added up and not squared (TgmdTests has the one that does).
    for variant in Self.variants where !["linear", "task_arithmetic"].contains(variant.name) {
      if try Registry.method(named: variant.name).schema.family == "elementwise" { continue }
      let method = try make(variant.name, variant.parameters)
      let hasBase = method.usesBase(given: true)
      let tensor = TensorContext(name: "w", shape: [6, 17], modelCount: variant.models, hasBase: hasBase)
      guard case .sweep(let sweep) = try method.begin(tensor), !sweep.writes, !sweep.wide else { continue }
      #expect(!sweep.squares.isEmpty && sweep.squares.allSatisfy { (0..<sweep.sums).contains($0) }, "\(variant.name)")
    }
  }
}
