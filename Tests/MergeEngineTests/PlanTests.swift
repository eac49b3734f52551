import JSON
import MergeEngine
import MergeMethods
import Platform
import TensorKernels
import Testing

@Suite struct PlanTests {
  private func plan(_ family: Family, _ recipe: JSON) throws(Failure) -> JSON {
    let job = try Job(recipe: recipe, outputPath: nil, options: JobOptions())
    return try JSON.parse(Array(job.planText.utf8), source: "plan")
  }

  private func tensor(_ plan: JSON, _ name: String) -> JSON? { plan["tensors"]?.array?.first { $0["name"]?.string == name } }

  @Test func namesEveryInputTensorAndByte() throws {
    let family = try Family()
    let json = try plan(family, family.recipe("model_stock"))
    #expect(json["inputs"]?.array?.count == 4)
    #expect(json["donor"]?.string == family.folder("base"))
    #expect(json["tensors"]?.array?.count == 6)
    #expect(tensor(json, "ids")?["action"]?.string == "copy")
    #expect(tensor(json, "layers.0.w")?["inputs"]?.array?.count == 4)
    #expect(json["bytes_to_write"]?.int == (Family.large.reduce(1, *) + 2 * 17 * 33 + 33 + 1) * 4 + 24)
  }

  @Test func everyMethodButTheSpectralOnesHasARate() throws {
    for schema in Registry.methods.map({ $0.schema }) {
      let name = schema.name
      // slerp takes two, the base among them.
      let family = try Family(models: name == "slerp" ? 1 : min(schema.maxModels ?? 2, 2))
      let json = try plan(family, family.recipe(name, schema.parameters.contains { $0.name == "t" } ? ["t": 0.5] : [:]))
      #expect((json["rate"]?.double ?? 0 > 0) == (schema.family != "spectral"), "\(name)")
      guard let rate = json["rate"]?.double, let speed = json["machine_speed"]?.double else { continue }
      #expect(speed > 0 && rate / speed > 1e8 && rate / speed < 1e11)
      // A laptop of ten years ago, and a machine ten times as fast as today's.
      #if !DEBUG
        #expect(speed > 0.01 && speed < 20)
      #endif
    }
  }

  @Test func aPlanWithoutOutputCannotRun() throws {
    let family = try Family()
    let job = try Job(recipe: family.recipe("linear"), outputPath: nil, options: JobOptions())
    #expect(throws: Failure.self) { try job.run() }
  }

  // MARK: - Tensors that differ

  private func odd(_ tensors: [Stored]) throws(Failure) -> Family {
    let family = try Family(models: 2)
    try FileSystem.remove(family.folder("model-1"))
    try write(tensors, to: family.folder("model-1"))
    return family
  }

  private func usual(except names: Set<String>) -> [Stored] {
    var generator = Generator(3)
    let shapes: [(String, [Int])] = [
      ("embed.weight", Family.large), ("layers.0.w", [17, 33]), ("layers.0.b", [33]), ("layers.1.w", [17, 33]), ("scale", []),
    ]
    return shapes.filter { !names.contains($0.0) }.map {
      Stored(name: $0.0, shape: $0.1, values: generator.floats($0.1.reduce(1, *)))
    } + [Stored(name: "ids", shape: [3], values: [1, 2, 3], dtype: .i64)]
  }

  @Test func aMissingTensorIsRefusedCopiedOrMergedFromTheRest() throws {
    let family = try odd(usual(except: ["layers.0.b"]))
    let failure = #expect(throws: Failure.self) { try plan(family, family.recipe("linear")) }
    #expect(failure?.status == .missingTensor)
    #expect(failure?.message.contains("layers.0.b") == true && failure?.message.contains("model-1") == true)
    let copied = try plan(family, family.recipe("linear", adding: [.init(key: "on_missing", value: "base")]))
    #expect(tensor(copied, "layers.0.b")?["action"]?.string == "copy")
    let rest = try plan(family, family.recipe("linear", adding: [.init(key: "on_missing", value: "available")]))
    #expect(tensor(rest, "layers.0.b")?["inputs"]?.array == [1])
    #expect(rest["warnings"]?.array?.isEmpty == false)
  }

  @Test func extraTensorsAreNamedAndKeptOnlyWhenAsked() throws {
    let family = try odd(usual(except: []) + [Stored(name: "new.head", shape: [2], values: [1, 2])])
    let dropped = try plan(family, family.recipe("linear"))
    #expect(tensor(dropped, "new.head") == nil)
    #expect(dropped["warnings"]?.array?.contains { $0.string?.contains("new.head") == true } == true)
    let kept = try plan(family, family.recipe("linear", adding: [.init(key: "extras", value: "keep")]))
    #expect(tensor(kept, "new.head")?["action"]?.string == "copy")
  }

  @Test func anotherShapeIsRefusedCopiedOrCropped() throws {
    let shape = [Family.large[0] + 5, Family.large[1] - 2]
    let wide = Stored(name: "embed.weight", shape: shape, values: [Float](repeating: 2, count: shape[0] * shape[1]))
    let family = try odd(usual(except: ["embed.weight"]) + [wide])
    let failure = #expect(throws: Failure.self) { try plan(family, family.recipe("linear")) }
    #expect(failure?.status == .shape)
    #expect(failure?.message.contains("embed.weight") == true)
    let copied = try plan(family, family.recipe("linear", adding: [.init(key: "on_shape_mismatch", value: "base")]))
    #expect(tensor(copied, "embed.weight")?["action"]?.string == "copy")
    let crop = family.recipe("linear", adding: [.init(key: "on_shape_mismatch", value: "crop")])
    #expect(tensor(try plan(family, crop), "embed.weight")?["shape"]?.array == [.int(Family.large[0]), .int(shape[1])])
    try family.merge(crop, to: "out")
    let merged = try floats(of: "embed.weight", in: family.folder("out"))
    let model = try floats(of: "embed.weight", in: family.folder("model-0"))
    for row in [0, 7, Family.large[0] - 1] {
      for column in [0, shape[1] - 1] {
        let expected = (Double(model[row * Family.large[1] + column]) + 2) / 2
        #expect(merged[row * shape[1] + column] == Float(expected))
      }
    }
  }

  @Test func mixedFloatAndIntegerIsRefused() throws {
    let family = try odd(usual(except: ["scale"]) + [Stored(name: "scale", shape: [], values: [1], dtype: .i64)])
    let failure = #expect(throws: Failure.self) { try plan(family, family.recipe("linear")) }
    #expect(failure?.status == .dtype)
  }

  @Test func tooLittleMemoryIsRefusedByThePlan() throws {
    let family = try Family()
    var options = JobOptions()
    options.maxMemory = 1000
    let failure = #expect(throws: Failure.self) { try Job(recipe: family.recipe("linear"), outputPath: nil, options: options) }
    #expect(failure?.status == .memory)
  }

  @Test func theBaseAmongTheModelsCountsOnce() throws {
    let family = try Family(models: 1)
    let list: JSON = [["model": .string(family.folder("base"))], ["model": .string(family.folder("model-0"))]]
    let recipe: JSON = [
      "merge_method": "slerp", "base_model": .string(family.folder("base")), "models": list, "parameters": ["t": 0.3],
    ]
    #expect(try plan(family, recipe)["inputs"]?.array?.count == 2)
    let linear: JSON = ["merge_method": "linear", "base_model": .string(family.folder("base")), "models": list]
    #expect(tensor(try plan(family, linear), "scale")?["inputs"]?.array?.count == 2)
  }

  @Test func whatAMethodHoldsCountsAsMemory() throws {
    let family = try Family()
    let ties = family.recipe("ties", ["density": 0.5, "scope": "model"])
    var options = JobOptions()
    // The weights of the group's samples: a megabyte per model, three models.
    options.maxMemory = 3 << 20
    let failure = #expect(throws: Failure.self) { try Job(recipe: ties, outputPath: nil, options: options) }
    #expect(failure?.status == .memory)
    for words in ["'embed.weight'", "max_memory = 3145728", "raise it"] {
      #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
    }
    // Without a trim there are none.
    _ = try Job(recipe: family.recipe("ties"), outputPath: nil, options: options)
    try family.merge(ties, to: "much") { $0.threads = 5 }
    for (number, limit) in [5 << 20, 6 << 20, 12 << 20].enumerated() {
      try family.merge(ties, to: "little-\(number)") { ($0.threads, $0.maxMemory) = (5, limit) }
      for name in ["embed.weight", "layers.0.w", "scale"] {
        #expect(try bytes(of: name, in: family.folder("little-\(number)")) == bytes(of: name, in: family.folder("much")))
      }
    }
  }
}
