import Checkpoints
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// Parts of models, told by names and by the counts of their configs.
@Suite struct ModelPartsTests {
  private let folder = TemporaryFolder()

  /// The parts of a checkpoint with one element in each tensor.
  private func parts(_ names: [String], counts: [Int] = []) throws -> ModelParts {
    if FileSystem.exists(folder("model")) { try FileSystem.remove(folder("model")) }
    try write(names.map { Stored(name: $0, shape: [1], values: [1]) }, to: folder("model"))
    return ModelParts(try Checkpoint(path: folder("model")), counts: counts)
  }

  private func layers(_ stack: String, _ count: Int, _ tensors: [String] = ["attn.weight", "mlp.weight"]) -> [String] {
    (0..<count).flatMap { layer in tensors.map { "\(stack).\(layer).\($0)" } }
  }

  private var llama: [String] {
    layers("model.layers", 3) + ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
  }

  private var towers: [String] {
    layers("model.language_model.layers", 3) + layers("model.visual.blocks", 2) + [
      "model.language_model.embed_tokens.weight", "model.language_model.norm.weight", "model.visual.patch_embed.weight",
      "multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_2.weight", "lm_head.weight",
    ]
  }

  // MARK: - Parts

  @Test func aLanguageModelIsOnePart() throws {
    let found = try parts(llama)
    #expect(found.parts.count == 1 && found.main == 0)
    let part = found.parts[0]
    #expect(part.stack == "model.layers" && part.depth == 3 && part.root == "" && part.layers.count == 3)
    for (layer, names) in part.layers.enumerated() {
      #expect(Set(names) == ["model.layers.\(layer).attn.weight", "model.layers.\(layer).mlp.weight"])
    }
    #expect(Set(part.others) == ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
    for name in ["default", "anything", nil] as [String?] { #expect(try found.part(name, isOnly: true) == 0) }
  }

  @Test func aMultiModalModelHasPartsForWhatItSeesAndSays() throws {
    let found = try parts(towers, counts: [3, 2])
    let text = try found.part("text_decoder", isOnly: false)
    let vision = try found.part("vision_tower", isOnly: false)
    let projector = try found.part("multi_modal_projector", isOnly: false)
    #expect(Set([text, vision, projector]).count == 3 && found.parts.count == 3 && found.main == text)
    #expect(found.parts[text].root == "model.language_model" && found.parts[vision].root == "model.visual")
    #expect(found.parts[text].depth == 3 && found.parts[vision].depth == 2 && found.parts[projector].depth == 0)
    #expect(
      Set(found.parts[text].others) == [
        "model.language_model.embed_tokens.weight", "model.language_model.norm.weight", "lm_head.weight",
      ])
    #expect(found.parts[vision].others == ["model.visual.patch_embed.weight"])
    #expect(Set(found.parts[projector].others).count == 2 && found.parts[projector].stack == "")
    // By what each is called in the names, and by the usual words for the text.
    for name in ["language_model", "text", "llm", "decoder", "model", "default"] where name != "model" {
      #expect(try found.part(name, isOnly: false) == text, "\(name)")
    }
    for name in ["visual", "vision_model", "image_encoder"] {
      #expect(try found.part(name, isOnly: false) == vision, "\(name)")
    }
    #expect(try found.part("connector", isOnly: false) == projector)
  }

  @Test func everyTensorIsInOnePart() throws {
    let experts = (0..<3).flatMap { layer in (0..<4).map { "model.layers.\(layer).mlp.experts.\($0).w" } }
    let odd = ["rotary", "", "0", "a..b", "1.2.3", "model.layers", "model.layers.7x.w", "layers.-1.w"]
    for (names, counts) in [
      (llama, []), (towers, [3, 2]), (towers, []), (llama + experts, [3]), (towers + odd, [3, 2]), (odd, []), (experts, []),
      (["w"], [5]), (layers("a", 2) + layers("a.b", 2) + layers("b", 2), []),
    ] as [([String], [Int])] {
      let found = try parts(names, counts: counts)
      let listed = found.parts.flatMap { $0.layers.joined() + $0.others }
      #expect(listed.sorted() == names.sorted(), "\(names.prefix(3))")
      #expect(found.parts.indices.contains(found.main) && found.parts.allSatisfy { !$0.isEmpty })
      #expect(found.parts.allSatisfy { $0.layers.count == $0.depth })
    }
  }

  @Test func expertsInLayersAreNoStackOfTheirOwn() throws {
    let experts = (0..<3).flatMap { layer in (0..<8).map { "model.layers.\(layer).mlp.experts.\($0).w" } }
    for counts in [[], [3]] {
      let found = try parts(llama + experts, counts: counts)
      #expect(found.parts.count == 1 && found.parts[0].depth == 3)
      #expect(found.parts[0].layers.allSatisfy { $0.count == 10 })
    }
  }

  @Test func aListInsideAPartIsNoPart() throws {
    let mergers = layers("model.visual.merger_list", 4, ["fc1", "fc2"])
    let found = try parts(towers + mergers, counts: [3, 2])
    let vision = found.parts[try found.part("visual", isOnly: false)]
    #expect(vision.depth == 2 && Set(vision.others) == Set(mergers + ["model.visual.patch_embed.weight"]))
  }

  @Test func theMainPartIsThatWhoseDepthTheConfigStates() throws {
    let names = layers("encoder.layers", 5) + layers("decoder.layers", 3) + ["shared.weight"]
    let stated = try parts(names, counts: [3, 5])
    #expect(stated.parts[stated.main].stack == "decoder.layers")
    #expect(stated.parts[stated.main].others == ["shared.weight"])
    // Without a config, the deepest.
    let deepest = try parts(names)
    #expect(deepest.parts[deepest.main].stack == "encoder.layers")
    // The text's comes before a deeper one of images.
    let images = try parts(layers("vision.layers", 5) + layers("text.layers", 3))
    #expect(images.parts[images.main].stack == "text.layers")
  }

  @Test func layersThatAreMissingMakeNoStack() throws {
    let names = layers("model.layers", 4).filter { !$0.contains("layers.2.") } + ["norm"]
    let found = try parts(names)
    #expect(found.parts.count == 1 && found.parts[0].depth == 0 && Set(found.parts[0].others) == Set(names))
    // A numbered list with one tensor each is no stack either, unless the config says so.
    let list = layers("model.layers", 4, ["weight"])
    #expect(try parts(list).parts[0].depth == 0)
    #expect(try parts(list, counts: [4]).parts[0].depth == 4)
  }

  @Test func aListWithoutANameIsNoStack() throws {
    let found = try parts(["0.weight", "0.bias", "1.weight", "1.bias"], counts: [2])
    #expect(found.parts.count == 1 && found.parts[0].depth == 0 && found.parts[0].others.count == 4)
  }

  @Test(arguments: [("blocks.%", "blocks.7"), ("blocks.0%", "blocks.07"), ("blocks.00%", "blocks.007")])
  func layersAreNumberedAsTheyAreStored(pattern: String, seventh: String) throws {
    let names = (0..<2).flatMap { layer in
      ["a.0.w", "b"].map {
        pattern.split(separator: "%", omittingEmptySubsequences: false).joined(separator: "\(layer)") + ".\($0)"
      }
    }
    let part = try parts(names).parts[0]
    #expect(part.depth == 2 && part.beginning(7) == seventh && part.beginning(1234) == "blocks.1234")
    #expect(Set(part.layers[1].map { part.rest(of: $0) }) == [".a.0.w", ".b"])
  }

  @Test(arguments: 0..<60) func whateverTheNamesEveryTensorIsInOnePart(seed: Int) throws {
    var generator = Generator(UInt64(seed))
    let words = [
      "model", "layers", "visual", "blocks", "text", "projector", "merger", "audio", "0", "1", "2", "00", "01", "", "w", "é",
      "-1",
    ]
    func draw(_ count: Int) -> Int { min(count - 1, Int((generator.next() + 1) / 2 * Double(count))) }
    var names: Set<String> = ["w"]
    for _ in 0..<30 { names.insert((0...draw(5)).map { _ in words[draw(words.count)] }.joined(separator: ".")) }
    let found = try parts(Array(names), counts: (0..<draw(3)).map { _ in 1 + draw(3) })
    #expect(found.parts.flatMap { $0.layers.joined() + $0.others }.sorted() == names.sorted())
    #expect(found.parts.indices.contains(found.main))
    for part in found.parts {
      #expect(part.layers.count == part.depth && part.layers.allSatisfy { !$0.isEmpty })
      for (layer, tensors) in part.layers.enumerated() {
        #expect(tensors.allSatisfy { LayerIndex(names: [$0]).place($0) != nil && $0.contains("\(layer)") })
      }
    }
    for module in words { if let part = try? found.part(module, isOnly: false) { #expect(found.parts.indices.contains(part)) } }
  }

  // MARK: - Modules

  @Test func slicesAloneDoNotSayWhichStackTheyMean() throws {
    let found = try parts(towers, counts: [3, 2])
    let failure = #expect(throws: Failure.self) { try found.part(nil, isOnly: true) }
    #expect(failure?.status == .recipe)
    for words in [folder("model"), "3 parts", "model.language_model: 3 layers", "model.visual: 2 layers", "'modules'"] {
      #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
    }
  }

  @Test func aModuleThatIsNoPartIsRefusedWithWhatThereIs() throws {
    let found = try parts(towers, counts: [3, 2])
    for name in ["audio_tower", "visua", "layers.0"] {
      let failure = #expect(throws: Failure.self) { try found.part(name, isOnly: false) }
      #expect(failure?.status == .recipe)
      for words in ["modules.\(name)", folder("model"), "model.visual"] {
        #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
      }
    }
  }

  @Test(arguments: [
    ("vision_tower", ModelParts.Kind.vision), ("model.visual.blocks", .vision), ("audio_encoder", .audio), ("Speech", .audio),
    ("language_model.layers", .text), ("vision_projector", .projector), ("visual.merger", .projector), ("model.layers", nil),
    ("", nil),
  ])
  func kindsAreToldByWords(name: String, kind: ModelParts.Kind?) { #expect(ModelParts.Kind(name) == kind) }

  @Test func embeddingsComeBeforeTheLayersAndHeadsAfter() {
    for name in [
      "model.embed_tokens.weight", "transformer.wte.weight", "wpe.weight", "gpt_neox.embed_in.weight", "shared.weight",
      "vision.patch_embed.proj.weight", "cls_token", "vision.pre_layrnorm.weight", "conv1.weight",
    ] { #expect(ModelParts.isBefore(name), "\(name)") }
    for name in [
      "model.norm.weight", "lm_head.weight", "gpt_neox.embed_out.weight", "ln_f.weight", "score.weight", "project_out.w",
    ] {
      #expect(!ModelParts.isBefore(name), "\(name)")
    }
  }
}
