import Checkpoints
import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// Which tensors an output has, what they are called, and what their sources call them.
@Suite struct OutputTensorsTests {
  private let folder = TemporaryFolder()

  /// A model of one element per tensor, each with another value.
  private func save(_ names: [String], _ model: String, from first: Float = 0, config: JSON? = nil) throws(Failure) {
    try write(
      names.enumerated().map { Stored(name: $0.element, shape: [1], values: [first + Float($0.offset)]) }, to: folder(model))
    if let config { try FileSystem.write(config.serialized(), to: folder(model) + "/config.json") }
  }

  private func layers(_ stack: String, _ count: Int, _ tensors: [String] = ["attn.w", "mlp.w"]) -> [String] {
    (0..<count).flatMap { layer in tensors.map { "\(stack).\(layer).\($0)" } }
  }

  private func llama(_ count: Int) -> [String] {
    ["model.embed_tokens.weight"] + layers("model.layers", count) + ["model.norm.weight", "lm_head.weight"]
  }

  private func slice(_ sources: [(String, Int, Int)], _ more: [JSON.Member] = []) -> JSON {
    let list = sources.map { source -> JSON in
      ["model": .string(folder(source.0)), "layer_range": [.int(source.1), .int(source.2)]]
    }
    return .object([.init(key: "sources", value: .array(list))] + more)
  }

  private func output(_ method: String, _ members: [JSON.Member]) throws(Failure) -> OutputTensors {
    let recipe = try Recipe(.object([.init(key: "merge_method", value: .string(method))] + members), strict: false)
    return try OutputTensors(PlanInputs(recipe, threads: 1))
  }

  private func slices(_ method: String, _ list: JSON..., base: String? = nil) throws(Failure) -> OutputTensors {
    let base = base.map { [JSON.Member(key: "base_model", value: .string(folder($0)))] } ?? []
    return try output(method, [.init(key: "slices", value: .array(list))] + base)
  }

  private func models(_ names: String...) -> JSON { .array(names.map { .string(folder($0)) }) }

  // MARK: - Whole models

  @Test func wholeModelsKeepNamesAndOrder() throws {
    try save(llama(3), "a")
    try save(llama(3).reversed() + ["extra.w", "model.layers.0.extra.w"], "b")
    try save(llama(3) + ["extra.w"], "c")
    let found = try output("linear", [.init(key: "models", value: models("a", "b", "c"))])
    let stored = try Checkpoint(path: folder("a"))
    #expect(found.tensors.map(\.name) == stored.positionsInFiles.map { stored.tensors[$0].name })
    #expect(found.tensors.allSatisfy { $0.stored == nil && $0.record.name == $0.name && $0.owner == 0 })
    #expect(found.tensors.allSatisfy { stored.tensors[$0.index].name == $0.name })
    // Each once, from the first that has it.
    #expect(Set(found.extras.map(\.name)) == ["extra.w", "model.layers.0.extra.w"] && found.extras.count == 2)
    #expect(found.extras.allSatisfy { $0.input == 1 })
    #expect(found.stacks.count == 1 && found.stacks[0].name == "model.layers" && !found.stacks[0].isRestacked)
    #expect(found.stacks[0].layers.map(\.layer) == [0, 1, 2])
    let positions = Dictionary(uniqueKeysWithValues: found.tensors.map { ($0.name, $0.position) })
    #expect(
      positions["model.layers.1.mlp.w"] == 0.5 && positions["model.layers.2.mlp.w"] == 1 && positions["lm_head.weight"] == 0)
  }

  // MARK: - Slices

  @Test func layersAreRenumberedAsTheyAreStacked() throws {
    let experts = ["attn.w", "experts.0.w", "experts.7.w"]
    try save(["embed.w"] + layers("model.layers", 12, experts) + ["norm.w"], "a")
    try save(["embed.w"] + layers("model.layers", 12, experts) + ["norm.w"], "b")
    let found = try slices("passthrough", slice([("a", 9, 12)]), slice([("b", 0, 0)]), slice([("b", 1, 2)]))
    let inLayers = found.tensors.filter { $0.name.hasPrefix("model.layers.") }
    #expect(inLayers.count == 4 * 3)
    for (layer, source) in [9, 10, 11, 1].enumerated() {
      for rest in experts {
        let tensor = try #require(inLayers.first { $0.name == "model.layers.\(layer).\(rest)" })
        #expect(tensor.record.name == "model.layers.\(source).\(rest)" && tensor.stored == ["model.layers.\(source).\(rest)"])
        #expect(tensor.owner == (layer < 3 ? 0 : 1))
      }
    }
    // Before the layers stands what the first slice has, after them what the last one has.
    #expect(found.tensors.first?.name == "embed.w" && found.tensors.first?.owner == 0)
    #expect(found.tensors.last?.name == "norm.w" && found.tensors.last?.owner == 1)
    #expect(found.tensors.count == 14)
    #expect(found.stacks.count == 1 && found.stacks[0].isRestacked)
    #expect(found.stacks[0].layers.map(\.input) == [0, 0, 0, 1] && found.stacks[0].layers.map(\.layer) == [9, 10, 11, 1])
  }

  @Test func eachSourceHasItsOwnNameForALayer() throws {
    try save(llama(4), "a")
    try save(["transformer.wte.weight"] + layers("transformer.h", 6) + ["transformer.ln_f.weight"], "b")
    let found = try slices("slerp", slice([("a", 1, 3), ("b", 4, 6)]), base: "a")
    let tensor = try #require(found.tensors.first { $0.name == "model.layers.1.mlp.w" })
    // The base is one of the two, and no source beside itself where a method subtracts it.
    #expect(tensor.storedInBase == "model.layers.2.mlp.w")
    for (position, source) in tensor.slice.sources.enumerated() {
      let isFirst = source.layers == 1..<3
      #expect(tensor.stored(position) == (isFirst ? "model.layers.2.mlp.w" : "transformer.h.5.mlp.w"))
    }
    #expect(tensor.slice.sources.contains { $0.layers == 4..<6 })
  }

  @Test func positionsRunOverTheSlice() throws {
    try save(llama(4), "a")
    let found = try slices("linear", slice([("a", 0, 3)]), slice([("a", 3, 4)]))
    for (layer, position) in [0, 0.5, 1, 1].enumerated() {
      #expect(found.tensors.filter { $0.name.hasPrefix("model.layers.\(layer).") }.map(\.position) == [position, position])
    }
    #expect(found.tensors.filter { !$0.name.hasPrefix("model.layers") }.allSatisfy { $0.position == 0 })
  }

  @Test func whatOnlyAnotherSourceHasIsAnExtraUnderTheOutputsName() throws {
    try save(llama(4), "a")
    try save(llama(4) + ["model.layers.3.bias"], "b")
    let found = try slices("linear", slice([("a", 0, 1), ("b", 0, 1)]), slice([("a", 0, 2), ("b", 2, 4)]))
    #expect(found.extras.count == 1)
    #expect(found.extras.first?.name == "model.layers.2.bias" && found.extras.first?.record.name == "model.layers.3.bias")
  }

  @Test func numbersMayBePaddedWithZeros() throws {
    func padded(_ count: Int) -> [String] {
      ["embed.w"]
        + (0..<count).flatMap { layer in ["attn.w", "mlp.w"].map { "blocks.\(layer < 10 ? "0" : "")\(layer).\($0)" } }
    }
    try save(padded(12), "a")
    try save(padded(12), "b", from: 100)
    try save(["embed.w"] + layers("model.layers", 3), "c", from: 200)
    let found = try slices("linear", slice([("a", 1, 3), ("b", 9, 11)]), slice([("c", 0, 1)]))
    let names = found.tensors.map(\.name).filter { $0 != "embed.w" }
    #expect(names.sorted() == [0, 1, 2].flatMap { ["blocks.0\($0).attn.w", "blocks.0\($0).mlp.w"] })
    let second = try #require(found.tensors.first { $0.name == "blocks.01.mlp.w" })
    #expect(second.stored == ["blocks.02.mlp.w", "blocks.10.mlp.w"])
    #expect(found.tensors.first { $0.name == "blocks.02.attn.w" }?.stored == ["model.layers.0.attn.w"])
    // What is merged are the layers that were asked for.
    let recipe: JSON = ["merge_method": "linear", "slices": [slice([("a", 1, 3), ("b", 9, 11)])]]
    try Job(recipe: recipe, outputPath: folder("out"), options: JobOptions()).run()
    // Values count up in the order of the names: embed.w, then two in each layer.
    #expect(try floats(of: "blocks.01.mlp.w", in: folder("out")) == [Float(2 * 2 + 2 + 100 + 2 * 10 + 2) / 2])
  }

  @Test func rangesBeyondTheLayersAreRefused() throws {
    try save(llama(4), "a")
    try save(["0.w", "0.b", "1.w", "1.b"], "plain")
    for (list, words) in [
      (slice([("a", 2, 5)]), ["slices[0]", folder("a"), "4 layers", "layer_range"]),
      (slice([("a", 5, 5)]), ["slices[0]", "4 layers"]),
      (slice([("a", 0, .max)]), ["4 layers"]), (slice([("plain", 0, 1)]), [folder("plain"), "no layers"]),
    ] {
      let failure = #expect(throws: Failure.self) { try slices("linear", slice([("a", 0, 1)]), list) }
      #expect(failure?.status == .recipe)
      for word in words {
        let place = word == "slices[0]" ? "slices[1]" : word
        #expect(failure?.message.contains(place) == true, "\(failure?.message ?? "")")
      }
    }
  }

  // MARK: - Modules

  private var towers: [String] {
    ["language_model.embed_tokens.weight"] + layers("language_model.layers", 3) + ["language_model.norm.weight"]
      + ["visual.patch_embed.weight"] + layers("visual.blocks", 2) + ["lm_head.weight"]
  }

  @Test func aModuleIsRestackedAndTheOthersAreNot() throws {
    let config: JSON = ["text_config": ["num_hidden_layers": 3], "vision_config": ["num_hidden_layers": 2]]
    try save(towers, "a", config: config)
    let modules: JSON = [
      "vision_tower": ["slices": [slice([("a", 0, 2)]), slice([("a", 0, 2)])]], "text": ["models": models("a")],
    ]
    let found = try output("passthrough", [.init(key: "modules", value: modules)])
    let expected = Set(towers + layers("visual.blocks", 4))
    #expect(Set(found.tensors.map(\.name)) == expected && found.tensors.count == expected.count)
    #expect(found.stacks.map(\.module) == ["vision_tower", "text"] && found.stacks.map(\.isRestacked) == [true, false])
    #expect(found.stacks.map(\.layers.count) == [4, 3])
    #expect(found.configChanges == [.init(path: ["vision_config", "num_hidden_layers"], value: 4)])
    #expect(found.warnings.isEmpty && found.unlisted.isEmpty)
  }

  @Test func whatNoModuleListsIsNamed() throws {
    try save(towers, "a")
    let found = try output("linear", [.init(key: "modules", value: ["text": ["models": models("a")]])])
    #expect(Set(found.unlisted.map(\.record.name)) == Set(towers.filter { $0.hasPrefix("visual") }))
    #expect(found.warnings.count == 1 && found.warnings[0].contains("5 tensors of 'visual'"))
    #expect(found.tensors.count + found.unlisted.count == towers.count)
  }

  @Test func twoModulesForOnePartAreRefused() throws {
    try save(towers, "a")
    let whole: JSON = ["models": models("a")]
    let sliced: JSON = ["slices": [slice([("a", 0, 1)])]]
    for modules in [
      ["text": whole, "language_model": whole], ["language_model": whole, "text_decoder": sliced],
      ["llm": sliced, "language_model": sliced],
    ] as [JSON] {
      let failure = #expect(throws: Failure.self) { try output("passthrough", [.init(key: "modules", value: modules)]) }
      #expect(failure?.status == .recipe)
      for word in (modules.members ?? []).map({ "modules.\($0.key)" }) + [folder("a"), "language_model"] {
        #expect(failure?.message.contains(word) == true, "\(failure?.message ?? "")")
      }
    }
  }

  // MARK: - Configs

  @Test func theCountOfLayersFollowsTheStack() throws {
    try save(llama(4), "a", config: ["num_hidden_layers": 4, "vocab_size": 4])
    let found = try slices("passthrough", slice([("a", 0, 3)]), slice([("a", 1, 4)]))
    #expect(found.configChanges == [.init(path: ["num_hidden_layers"], value: 6)] && found.warnings.isEmpty)
  }

  @Test func aConfigThatContradictsTheNamesIsToldOnce() throws {
    try save(llama(4), "a", config: ["num_hidden_layers": 7])
    let whole = try output("linear", [.init(key: "models", value: models("a"))])
    #expect(whole.warnings.count == 1)
    for word in [folder("a"), "num_hidden_layers = 7", "4 layers", "model.layers"] {
      #expect(whole.warnings.first?.contains(word) == true, "\(whole.warnings)")
    }
    let found = try slices("passthrough", slice([("a", 0, 1)]), slice([("a", 1, 4)]), slice([("a", 0, 1)]))
    #expect(found.warnings.count { $0.contains("num_hidden_layers = 7") } == 1)
    #expect(found.configChanges.isEmpty && found.warnings.contains { $0.contains("for 5 layers") })
  }

  @Test(arguments: ["[]", "{}", "null", #"{"num_hidden_layers": "four"}"#, #"{"num_hidden_layers": -4}"#])
  func aConfigThatSaysNothingDoesNoHarm(text: String) throws {
    try save(llama(4), "a")
    try FileSystem.write(text, to: folder("a") + "/config.json")
    let found = try slices("passthrough", slice([("a", 0, 4)]), slice([("a", 0, 4)]))
    #expect(found.tensors.count == 8 * 2 + 3 && found.configChanges.isEmpty)
  }
}
