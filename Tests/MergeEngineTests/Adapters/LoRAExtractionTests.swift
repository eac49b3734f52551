import Checkpoints
import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// An adapter out of a model and its base: what it holds, what is lost, and what is refused.
@Suite struct LoRAExtractionTests {
  private let folder = TemporaryFolder()

  /// Small whole numbers: differences of them are exact.
  private static func tensor(_ name: String, _ shape: [Int], _ seed: UInt64, dtype: DType = .f32) -> Stored {
    var generator = Generator(seed)
    return Stored(
      name: name, shape: shape, values: (0..<shape.reduce(1, *)).map { _ in Float((generator.next() * 8).rounded()) },
      dtype: dtype
    )
  }

  private static let base = [
    tensor("model.embed_tokens.weight", [9, 4], 1), tensor("model.layers.0.q_proj.weight", [6, 5], 2),
    tensor("model.layers.0.q_proj.bias", [6], 3), tensor("model.layers.1.q_proj.weight", [6, 5], 4),
    tensor("model.norm.weight", [4], 5), tensor("model.conv.weight", [4, 2, 3, 1], 6),
    tensor("lm_head.weight", [9, 4], 7), tensor("ids", [3], 8, dtype: .i64),
  ]

  /// The base with u v^T added to some tensors: their last axes count as one.
  private static func tuned(_ names: Set<String>) -> [Stored] {
    base.map { tensor in
      guard names.contains(tensor.name) else { return tensor }
      let columns = tensor.shape.dropFirst().reduce(1, *)
      let values = tensor.values.indices.map { tensor.values[$0] + Float($0 / columns + 1) * Float($0 % columns - 2) }
      return Stored(name: tensor.name, shape: tensor.shape, values: values, dtype: tensor.dtype)
    }
  }

  private func save(_ tensors: [Stored], _ name: String, config: JSON? = nil) throws(Failure) {
    try write(tensors, to: folder(name))
    if let config { try FileSystem.write(config.serialized(indent: 2), to: folder(name + "/config.json")) }
  }

  private func job(
    _ options: JSON = ["rank": 1], to output: String = "lora", _ configure: (inout JobOptions) -> Void = { _ in }
  ) throws(Failure) -> LoRAExtraction {
    var general = JobOptions()
    general.threads = 2
    configure(&general)
    return try LoRAExtraction(
      base: folder("base"), model: folder("model"), output: output == "lora" ? folder("lora") : output,
      try ExtractionOptions(options), options: general)
  }

  /// Extract from a model in which these tensors have changed.
  private func extract(_ names: Set<String>, _ options: JSON = ["rank": 1]) throws -> JSON {
    try save(Self.base, "base")
    try save(Self.tuned(names), "model")
    let job = try job(options)
    try job.run()
    return try JSON.parse(Array(try #require(job.reportText).utf8), source: "report")
  }

  private func actions(_ report: JSON) -> [String: String] {
    Dictionary(
      uniqueKeysWithValues: (report["tensors"]?.array ?? []).map { ($0["name"]?.string ?? "", $0["action"]?.string ?? "") })
  }

  /// How far base and adapter are from the model, of the difference of model and base.
  private func distance(_ name: String) throws -> Double {
    let base = try Checkpoint(path: folder("base"))
    let model = try floats(of: name, in: folder("model")).map(Double.init)
    let adapter = try Adapter(path: folder("lora"), of: base)
    let record = try #require(base.tensor(named: name))
    let update = try #require(adapter.updates[name])
    let tensor = AdaptedTensor(.stored(base, record), shape: record.shape, update, of: adapter.checkpoint)
    var sum = [Double](repeating: 0, count: record.count)
    try sum.withUnsafeMutableBufferPointer { try tensor.read(0, record.count, into: $0.baseAddress!) }
    let before = try floats(of: name, in: folder("base")).map(Double.init)
    return norm(zip(sum, model).map { $0 - $1 }) / norm(zip(before, model).map { $0 - $1 })
  }

  private func expect(_ failure: Failure?, _ status: Status, _ words: String..., at location: SourceLocation = #_sourceLocation)
  {
    #expect(failure?.status == status, "\(failure?.message ?? "")", sourceLocation: location)
    for word in words {
      #expect(failure?.message.contains(word) == true, "\(failure?.message ?? "")", sourceLocation: location)
    }
  }

  // MARK: - What the adapter holds

  // Of rank 2, though 1 would do: a matrix of one row keeps its bytes when it is transposed.
  @Test(arguments: [("float32", 0x1p-22), ("bfloat16", 0x1p-6), ("float16", 0x1p-9)])
  func baseAndAdapterAreTheModel(dtype: String, bound: Double) throws {
    let names: Set = ["model.layers.0.q_proj.weight", "model.conv.weight", "model.embed_tokens.weight", "lm_head.weight"]
    let report = try extract(
      names, ["rank": 2, "dtype": .string(dtype), "include": ["conv", "embed_tokens"]])
    #expect(actions(report) == Dictionary(uniqueKeysWithValues: names.map { ($0, "factored") }))
    for entry in report["tensors"]?.array ?? [] {
      let found = try distance(entry["name"]?.string ?? "")
      #expect(found <= bound)
      // The report tells the error of what is stored.
      #expect((found - (entry["error"]?.double ?? .nan)).magnitude < 1e-12)
    }
    let tensors = try Checkpoint(path: folder("lora/adapter_model.safetensors")).tensors
    #expect(tensors.allSatisfy { $0.dtype == DType(recipeName: dtype) } && tensors.count == 8)
    #expect(report["summary"]?["unchanged"]?.int == 4 && report["summary"]?["lost"]?.int == 0)
  }

  @Test func aMatrixWithItsInputsFirstComesBackToo() throws {
    for transposed in [true, false] {
      let report = try extract(["model.layers.0.q_proj.weight"], ["rank": 2, "fan_in_fan_out": .bool(transposed)])
      #expect(report["summary"]?["factored"]?.int == 1)
      let adapter = try Checkpoint(path: folder("lora/adapter_model.safetensors"))
      let first = try #require(adapter.tensor(named: "base_model.model.model.layers.0.q_proj.lora_A.weight"))
      #expect(first.shape == [2, transposed ? 6 : 5])
      #expect(try distance("model.layers.0.q_proj.weight") < 0x1p-22)
      for name in ["base", "model", "lora"] { try FileSystem.remove(folder(name)) }
    }
  }

  @Test func theModelsTypeSaysWhichAxisComesFirst() throws {
    for type in ["gpt2", "llama"] {
      try save(Self.base, "base-\(type)", config: ["model_type": .string(type)])
      try save(Self.tuned(["lm_head.weight"]), "model")
      let job = try LoRAExtraction(
        base: folder("base-\(type)"), model: folder("model"), output: folder("lora"), ExtractionOptions(["rank": 1]),
        options: JobOptions())
      let plan = try JSON.parse(Array(job.planText.utf8), source: "plan")
      #expect(plan["fan_in_fan_out"]?.bool == (type == "gpt2"))
      try FileSystem.remove(folder("model"))
    }
  }

  @Test func savedModulesAreSavedWholeWhateverOfThemHasChanged() throws {
    let report = try extract(
      ["model.layers.0.q_proj.bias", "model.layers.1.q_proj.weight"],
      ["rank": 1, "save_modules": ["model.layers.0.q_proj", "norm"]])
    #expect(
      actions(report) == [
        "model.layers.0.q_proj.weight": "saved", "model.layers.0.q_proj.bias": "saved", "model.norm.weight": "saved",
        "model.layers.1.q_proj.weight": "factored",
      ])
    let path = folder("lora/adapter_model.safetensors")
    for name in ["model.layers.0.q_proj.weight", "model.layers.0.q_proj.bias", "model.norm.weight"] {
      #expect(try bytes(of: "base_model.model." + name, in: path) == bytes(of: name, in: folder("model")))
    }
    let config = try JSON.parse(FileSystem.read(folder("lora/adapter_config.json")), source: "config")
    #expect(config["modules_to_save"]?.array == ["model.layers.0.q_proj", "model.norm"])
    // The other q_proj is not to be wrapped, so its leaf would say too much.
    #expect(config["target_modules"]?.array == ["model.layers.1.q_proj"])
  }

  @Test func whatIsLostIsNamedAndCounted() throws {
    let report = try extract([
      "model.layers.0.q_proj.weight", "model.norm.weight", "model.conv.weight", "model.embed_tokens.weight", "ids",
    ])
    #expect(
      actions(report).filter { $0.value == "lost" }.keys.sorted() == [
        "ids", "model.conv.weight", "model.embed_tokens.weight", "model.norm.weight",
      ])
    #expect(report["warnings"]?.array?.contains { $0.string?.contains("4 tensors that differ") == true } == true)
    // The squares of what u v^T adds: of u, 1 to m, and of v, from -2 up.
    func square(_ rows: Int, _ columns: Int) -> Double {
      let u = (1...rows).reduce(0.0) { $0 + Double($1 * $1) }
      return u * (0..<columns).reduce(0.0) { $0 + Double(($1 - 2) * ($1 - 2)) }
    }
    let lost = square(4, 1) + square(4, 6) + square(9, 4)
    let total = lost + square(6, 5)
    let found = try #require(report["summary"]?["total_error"]?.double)
    #expect((found - (lost / total).squareRoot()).magnitude < 1e-6)
    let notes = report["tensors"]?.array?.compactMap { $0["note"]?.string } ?? []
    for words in ["an embedding", "a convolution", "not a float", "save_modules"] {
      #expect(notes.contains { $0.contains(words) }, "\(notes)")
    }
  }

  @Test func tensorsOnlyTheModelHasAreLostWithAWarning() throws {
    try save(Self.base, "base")
    try save(Self.tuned(["lm_head.weight"]) + [Self.tensor("new.weight", [2, 2], 1)], "model")
    let job = try job()
    try job.run()
    let report = try JSON.parse(Array(try #require(job.reportText).utf8), source: "report")
    #expect(report["warnings"]?.array?.contains { $0.string?.contains("'new.weight'") == true } == true)
  }

  @Test func aModuleOfAnotherShapeOrTypeIsSavedWhole() throws {
    try save(Self.base + [Self.tensor("count.weight", [3], 1), Self.tensor("table.weight", [2, 2], 2, dtype: .i64)], "base")
    let wide = Self.tuned(["lm_head.weight"]).map { tensor in
      tensor.name == "model.norm.weight" ? Self.tensor("model.norm.weight", [5], 1) : tensor
    }
    // Whole numbers whose bytes, read as binary64, are NaN.
    let count = Stored(name: "count.weight", shape: [3], values: [-1, -1, -1], dtype: .i64)
    try save(wide + [count, Self.tensor("table.weight", [2, 2], 2, dtype: .f32)], "model")
    let job = try job(["rank": 1, "save_modules": ["norm", "count", "table"]])
    try job.run()
    let report = try JSON.parse(Array(try #require(job.reportText).utf8), source: "report")
    let saved = actions(report).filter { $0.value == "saved" }.keys.sorted()
    #expect(saved == ["count.weight", "model.norm.weight", "table.weight"])
    for entry in report["tensors"]?.array ?? [] where saved.contains(entry["name"]?.string ?? "") {
      // There is no difference of such tensors.
      #expect(entry["difference_norm"] == .null, "\(entry["name"] ?? .null)")
    }
    for name in saved {
      #expect(
        try bytes(of: "base_model.model." + name, in: folder("lora/adapter_model.safetensors"))
          == bytes(of: name, in: folder("model")))
    }
  }

  // MARK: - What is refused

  @Test func nothingToExtractIsSaidAndLeavesNothing() throws {
    try save(Self.base, "base")
    try save(Self.tuned(["model.norm.weight"]), "model")
    let job = try job()
    expect(#expect(throws: Failure.self) { try job.run() }, .argument, folder("base"), folder("model"), "nothing to extract")
    #expect(!FileSystem.exists(folder("lora")) && !FileSystem.exists(folder("lora.partial")))
    expect(#expect(throws: Failure.self) { try job.run() }, .argument, "another")
  }

  @Test func modelsThatDoNotBelongTogetherAreNamed() throws {
    try save(Self.base, "base")
    try save(Self.base.filter { $0.name != "lm_head.weight" }, "model")
    expect(#expect(throws: Failure.self) { try job() }, .missingTensor, "'lm_head.weight'", folder("model"), "base")
    try FileSystem.remove(folder("model"))
    try save(Self.base.dropLast() + [Self.tensor("ids", [3], 8, dtype: .f32)], "model")
    expect(#expect(throws: Failure.self) { try job() }, .shape, "'ids'", folder("model"), "save_modules")
    try FileSystem.remove(folder("model"))
    try save(Self.base.map { $0.name == "lm_head.weight" ? Self.tensor($0.name, [4, 9], 1) : $0 }, "model")
    expect(#expect(throws: Failure.self) { try job() }, .shape, "'lm_head.weight'", "[9, 4]", "[4, 9]", "save_modules")
  }

  @Test func aNaNIsNamedAndLeavesNothing() throws {
    try save(Self.base, "base")
    var values = Self.base[6].values
    values[5] = .nan
    try save(
      Self.base.map { $0.name == "lm_head.weight" ? Stored(name: $0.name, shape: $0.shape, values: values) : $0 }, "model")
    let job = try job()
    expect(#expect(throws: Failure.self) { try job.run() }, .nonFinite, "'lm_head.weight'", "exclude")
    #expect(!FileSystem.exists(folder("lora")) && !FileSystem.exists(folder("lora.partial")))
  }

  @Test func whatGetsNoFactorsMayHoldAnything() throws {
    let mask = Stored(name: "mask", shape: [2], values: [0, -.infinity])
    try save(Self.base + [mask], "base")
    let odd = Self.tuned(["model.layers.0.q_proj.weight"]).map { tensor in
      guard ["lm_head.weight", "model.norm.weight"].contains(tensor.name) else { return tensor }
      return Stored(name: tensor.name, shape: tensor.shape, values: [.nan] + tensor.values.dropFirst())
    }
    try save(odd + [mask], "model")
    let job = try job(["rank": 1, "exclude": ["lm_head"], "save_modules": ["norm"]])
    try job.run()
    let report = try JSON.parse(Array(try #require(job.reportText).utf8), source: "report")
    // The mask is the same in both.
    #expect(
      actions(report) == [
        "lm_head.weight": "lost", "model.norm.weight": "saved", "model.layers.0.q_proj.weight": "factored",
      ])
    #expect(
      try bytes(of: "base_model.model.model.norm.weight", in: folder("lora/adapter_model.safetensors"))
        == bytes(of: "model.norm.weight", in: folder("model")))
    #expect(report["summary"]?["total_error"]?.double.map { $0 < 0x1p-22 } == true)
  }

  @Test func tooLittleMemoryNamesTheMatrix() throws {
    try save(Self.base, "base")
    try save(Self.tuned(["lm_head.weight"]), "model")
    expect(
      #expect(throws: Failure.self) { try job { $0.maxMemory = 1000 } }, .memory, "'lm_head.weight'",
      "max_memory = 1000", "exclude")
  }

  @Test func outputsThatCannotBeAreRefused() throws {
    try save(Self.base, "base")
    try save(Self.tuned(["lm_head.weight"]), "model")
    for output in [folder("base"), folder("model/"), folder.path] {
      expect(
        #expect(throws: Failure.self) { try job(to: output) { $0.overwrite = true } }, .exists, "another path")
    }
    expect(#expect(throws: Failure.self) { try job(to: folder("x.safetensors")) }, .argument, "folder")
    try job().run()
    expect(#expect(throws: Failure.self) { try job() }, .exists, folder("lora"))
    try job { $0.overwrite = true }.run()
    #expect(try distance("lm_head.weight") < 0x1p-22)
  }

  @Test func aCancelledExtractionLeavesNothing() throws {
    try save(Self.base, "base")
    try save(Self.tuned(["lm_head.weight"]), "model")
    let job = try job()
    job.control.cancel()
    expect(#expect(throws: Failure.self) { try job.run() }, .cancelled)
    #expect(!FileSystem.exists(folder("lora")) && !FileSystem.exists(folder("lora.partial")))
  }

  @Test func namesThatMeetInTheAdapterAreRefused() throws {
    // A tensor of the model that is called as a factor of another one is.
    let odd = Self.tensor("lm_head.lora_A.weight", [1, 4], 9)
    try save(Self.base + [odd], "base")
    try save(Self.tuned(["lm_head.weight"]) + [odd], "model")
    let job = try job(["rank": 1, "save_modules": ["lora_A"]])
    expect(#expect(throws: Failure.self) { try job.run() }, .argument, "base_model.model.lm_head.lora_A.weight")
    #expect(!FileSystem.exists(folder("lora")) && !FileSystem.exists(folder("lora.partial")))
  }
}
