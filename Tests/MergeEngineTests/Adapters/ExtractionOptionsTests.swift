import Checkpoints
import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

@Suite struct ExtractionOptionsTests {
  private func treatment(
    _ name: String, _ shape: [Int], dtype: DType = .f32, _ more: [JSON.Member] = [], transposes: Bool = false
  ) throws -> String {
    let options = try ExtractionOptions(.object([.init(key: "rank", value: 4)] + more))
    let folder = TemporaryFolder()
    let count = shape.reduce(1, *)
    try write(
      [Stored(name: name, shape: shape, values: [Float](repeating: 0, count: count), dtype: dtype)], to: folder("model"))
    let record = try Checkpoint(path: folder("model")).tensors[0]
    switch options.treatment(record, transposes: transposes) {
    case .factored(let isTransposed, let isEmbedding):
      return "factored" + (isTransposed ? " transposed" : "") + (isEmbedding ? " embedding" : "")
    case .saved: return "saved"
    case .lost: return "lost"
    }
  }

  private func list(_ key: String, _ patterns: String...) -> JSON.Member {
    .init(key: key, value: .array(patterns.map { .string($0) }))
  }

  // MARK: - What becomes of a tensor

  @Test(arguments: [
    ("model.layers.0.q_proj.weight", [4, 5], "factored"), ("lm_head.weight", [4, 5], "factored"),
    ("model.layers.0.q_proj.bias", [4], "lost"), ("model.norm.weight", [4], "lost"), ("scale", [], "lost"),
    ("model.embed_tokens.weight", [4, 5], "lost"), ("transformer.wte.weight", [4, 5], "lost"),
    ("conv.weight", [4, 5, 3], "lost"), ("conv.weight", [4, 5, 3, 3], "lost"), ("q_proj.weight", [0, 5], "lost"),
    ("q_proj.weight", [5, 0], "lost"), ("experts.gate_up_proj", [4, 5], "lost"), ("weight", [4, 5], "lost"),
  ])
  func onlyMatricesOfLinearLayersAreFactoredUnasked(name: String, shape: [Int], expected: String) throws {
    #expect(try treatment(name, shape) == expected)
  }

  @Test func whatIsNoFloatIsLostUnlessItIsSaved() throws {
    #expect(try treatment("ids.weight", [4, 5], dtype: .i64, [list("include", "*")]) == "lost")
    #expect(try treatment("ids.weight", [4, 5], dtype: .i64, [list("save_modules", "ids")]) == "saved")
  }

  @Test func includedModulesAreFactored() throws {
    #expect(
      try treatment("model.embed_tokens.weight", [9, 5], [list("include", "embed_tokens")]) == "factored transposed embedding")
    #expect(try treatment("model.conv.weight", [4, 5, 3, 3], [list("include", "model.conv")]) == "factored")
    #expect(try treatment("model.conv.weight", [4, 5, 3, 3], [list("include", "conv2")]) == "lost")
    // What has no two axes has no factors, asked for or not.
    #expect(try treatment("model.norm.weight", [4], [list("include", "*")]) == "lost")
  }

  @Test func savingCountsBeforeExcludingAndThatBeforeIncluding() throws {
    let (save, exclude, include) = (list("save_modules", "q_proj"), list("exclude", "q_*"), list("include", "q_proj"))
    #expect(try treatment("a.q_proj.weight", [4, 5], [exclude]) == "lost")
    #expect(try treatment("a.q_proj.weight", [4, 5], [exclude, include]) == "lost")
    #expect(try treatment("a.q_proj.weight", [4, 5], [exclude, include, save]) == "saved")
    #expect(try treatment("a.q_proj.bias", [4], [save]) == "saved")
  }

  @Test func patternsMeanAWholeNameOrItsLastComponent() throws {
    for pattern in ["q_proj", "model.layers.0.q_proj", "*.q_proj", "q_*", "model.*"] {
      #expect(try treatment("model.layers.0.q_proj.weight", [4, 5], [list("save_modules", pattern)]) == "saved", "\(pattern)")
    }
    for pattern in ["proj", "layers.0.q_proj", "q_proj.weight", "model", "Q_PROJ"] {
      #expect(
        try treatment("model.layers.0.q_proj.weight", [4, 5], [list("save_modules", pattern)]) == "factored", "\(pattern)")
    }
  }

  @Test func inputsComeFirstInMatricesOfLinearLayersAlone() throws {
    #expect(try treatment("h.0.c_fc.weight", [4, 5], transposes: true) == "factored transposed")
    #expect(try treatment("lm_head.weight", [4, 5], transposes: true) == "factored")
    #expect(try treatment("conv.weight", [4, 5, 3], [list("include", "conv")], transposes: true) == "factored")
  }

  @Test func aModuleIsTheNameWithoutItsLastComponent() {
    #expect(ExtractionOptions.module(of: "a.b.weight") == "a.b")
    #expect(ExtractionOptions.module(of: "a..weight") == "a.")
    #expect(ExtractionOptions.module(of: "weight") == "")
    #expect(ExtractionOptions.module(of: "") == "")
  }

  // MARK: - Reading

  @Test func onlyTheRankHasToBeGiven() throws {
    let plain = try ExtractionOptions(["rank": 16])
    #expect(plain.rank == 16 && plain.dtype == .f32 && plain.isTransposed == nil)
    #expect(plain.include.isEmpty && plain.exclude.isEmpty && plain.saved.isEmpty)
    let nulls = try ExtractionOptions(["rank": 1, "include": nil, "save_modules": nil, "fan_in_fan_out": nil, "dtype": nil])
    #expect(nulls.dtype == .f32 && nulls.isTransposed == nil && nulls.include.isEmpty)
    let all = try ExtractionOptions(
      ["rank": 2, "include": ["a"], "exclude": ["b"], "save_modules": ["c"], "fan_in_fan_out": false, "dtype": "bfloat16"])
    #expect(
      all.include == ["a"] && all.exclude == ["b"] && all.saved == ["c"] && all.isTransposed == false && all.dtype == .bf16)
  }

  static let refused: [(JSON, String)] = [
    ([:], "rank"), (nil, "rank"), (["rank": 0], "rank"), (["rank": -3], "rank"), (["rank": 2.5], "rank"),
    (["rank": "8"], "rank"),
    (["rank": 9_223_372_036_854_775_807], "rank"), (["rank": 2, "include": "q_proj"], "include"),
    (["rank": 2, "exclude": [5]], "exclude"), (["rank": 2, "save_modules": [""]], "save_modules"),
    (["rank": 2, "fan_in_fan_out": 1], "fan_in_fan_out"), (["rank": 2, "dtype": "int8"], "dtype"),
    (["rank": 2, "dtype": "float64"], "dtype"), (["rank": 2, "dtype": 32], "dtype"), (["rank": 2, "ranks": 3], "'ranks'"),
  ]

  @Test(arguments: refused.indices) func whatCannotBeIsRefusedByItsName(number: Int) {
    let (json, name) = Self.refused[number]
    let failure = #expect(throws: Failure.self) { try ExtractionOptions(json) }
    #expect(failure?.status == .parameter && failure?.message.contains(name) == true, "\(failure?.message ?? "")")
  }
}
