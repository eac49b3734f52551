import Platform
import TensorKernels
import Testing

@testable import Checkpoints

@Suite struct AdapterTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private typealias Tensors = [(name: String, shape: [Int])]

  /// A safetensors file of one type, filled with a number.
  /// - Parameter others: tensors of another type.
  private func file(_ tensors: Tensors, _ type: DType = .f32, fill: UInt8 = 0, others: [String: DType] = [:]) -> [UInt8] {
    var end = 0
    let entries = tensors.map { name, shape in
      let begin = end
      let type = others[name] ?? type
      end += shape.reduce(type.size, *)
      return #""\#(name)":{"dtype":"\#(type.name)","shape":\#(shape),"data_offsets":[\#(begin),\#(end)]}"#
    }
    return safetensors("{\(entries.joined(separator: ","))}", data: [UInt8](repeating: fill, count: end))
  }

  private func model(_ tensors: Tensors, _ type: DType = .f32) throws -> Checkpoint {
    try Checkpoint(path: folder.write(file(tensors, type, fill: 1), to: "model/model.safetensors"))
  }

  /// Write an adapter of rank 2 and alpha 3.
  private func write(_ tensors: Tensors, _ type: DType = .f32, config: String = "") throws {
    let members = #""r": 2, "lora_alpha": 3\#(config.isEmpty ? "" : ", " + config)"#
    try folder.write("{\(members)}", to: "adapter/adapter_config.json")
    try folder.write(
      file(tensors.map { ("base_model.model." + $0.name, $0.shape) }, type, fill: 2), to: "adapter/adapter_model.safetensors")
  }

  private func adapter(_ model: Checkpoint) throws(Failure) -> Adapter { try Adapter(path: folder("adapter"), of: model) }

  private func expectRefused(
    _ model: Checkpoint, _ status: Status, _ words: String..., at location: SourceLocation = #_sourceLocation
  ) {
    do throws(Failure) {
      _ = try adapter(model)
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == status, "\(error.message)", sourceLocation: location)
      for word in words + [folder("adapter")] {
        #expect(error.message.contains(word), "\(error.message)", sourceLocation: location)
      }
    }
  }

  /// Factors of a linear layer.
  private func factors(_ module: String, _ outputs: Int, _ inputs: Int, rank: Int = 2) -> Tensors {
    [(module + ".lora_A.weight", [rank, inputs]), (module + ".lora_B.weight", [outputs, rank])]
  }

  // MARK: - What is added

  @Test func everyFactorFindsItsTensor() throws {
    try write(factors("a.q", 5, 4) + factors("a.k", 3, 4))
    let found = try adapter(try model([("a.q.weight", [5, 4]), ("a.k.weight", [3, 4]), ("a.v.weight", [5, 4])]))
    #expect(found.updates.keys.sorted() == ["a.k.weight", "a.q.weight"])
    #expect(found.replacements.isEmpty)
    let update = try #require(found.updates["a.q.weight"])
    #expect(update.first.name == "base_model.model.a.q.lora_A.weight")
    #expect(update.second.name == "base_model.model.a.q.lora_B.weight")
    #expect(update.rank == 2 && update.scale == 1.5 && !update.isTransposed)
    #expect(found.path == folder("adapter"))
    #expect(found.configPath == folder("adapter/adapter_config.json"))
    #expect(found.checkpoint.files == [folder("adapter/adapter_model.safetensors")])
  }

  @Test func aFileIsAsGoodAsItsFolder() throws {
    try write(factors("q", 5, 4))
    let found = try Adapter(path: folder("adapter/adapter_model.safetensors"), of: try model([("q.weight", [5, 4])]))
    #expect(found.updates.count == 1 && found.configPath == folder("adapter/adapter_config.json"))
  }

  @Test func scalesOfModules() throws {
    try write(
      factors("x.up", 5, 4, rank: 8) + factors("x.q", 4, 4),
      config: #""rank_pattern": {"up": 8}, "alpha_pattern": {"x.q": 10}"#)
    let found = try adapter(try model([("x.up.weight", [5, 4]), ("x.q.weight", [4, 4])]))
    #expect(found.updates.mapValues(\.scale) == ["x.up.weight": 3.0 / 8, "x.q.weight": 5])
    #expect(found.updates["x.up.weight"]?.rank == 8)
  }

  /// W is [out, in], or [in, out] where the shapes say so; for a square one the config does.
  @Test func orientation() throws {
    for (isTransposed, square) in [(true, true), (false, false)] {
      try write(factors("fc", 5, 4) + factors("proj", 4, 4), config: #""fan_in_fan_out": \#(isTransposed)"#)
      let plain = try adapter(try model([("fc.weight", [5, 4]), ("proj.weight", [4, 4])]))
      #expect(plain.updates["fc.weight"]?.isTransposed == false)
      #expect(plain.updates["proj.weight"]?.isTransposed == square)
      let turned = try adapter(try model([("fc.weight", [4, 5]), ("proj.weight", [4, 4])]))
      #expect(turned.updates["fc.weight"]?.isTransposed == true)
    }
  }

  @Test func embeddingsAreTransposed() throws {
    for rows in [7, 5] {
      try write([("wte.lora_embedding_A", [2, rows]), ("wte.lora_embedding_B", [5, 2])])
      let found = try adapter(try model([("wte.weight", [rows, 5])]))
      // A square one, too, whatever the config says of linear layers.
      #expect(found.updates["wte.weight"]?.isTransposed == true)
    }
  }

  @Test func convolutions() throws {
    try write([("conv.lora_A.weight", [2, 3, 5, 7]), ("conv.lora_B.weight", [4, 2, 1, 1])])
    let found = try adapter(try model([("conv.weight", [4, 3, 5, 7])]))
    #expect(found.updates["conv.weight"]?.isTransposed == false)
    #expect(found.updates["conv.weight"]?.rank == 2)
  }

  // MARK: - What takes another's place

  @Test func replacementsAreReadFromTheAdapter() throws {
    let model = try model([("a.bias", [3]), ("norm.weight", [4]), ("head.weight", [2, 2]), ("q.weight", [2, 2])])
    try write([
      ("a.base_layer.bias", [3]), ("norm.weight", [4]), ("head.modules_to_save.default.weight", [2, 2]),
      ("q.lora_A.default.weight", [2, 2]), ("q.lora_B.default.weight", [2, 2]),
    ])
    let found = try adapter(model)
    #expect(found.replacements.keys.sorted() == ["a.bias", "head.weight", "norm.weight"])
    #expect(found.updates.keys.sorted() == ["q.weight"])
    let whole = found.replacing(in: model)
    #expect(whole.tensors.map(\.name) == model.tensors.map(\.name))
    for record in whole.tensors {
      let fill: UInt8 = record.name == "q.weight" ? 1 : 2
      #expect(try bytes(of: whole, record.name).allSatisfy { $0 == fill }, "\(record.name)")
    }
  }

  @Test func aReplacementMayHaveAnotherTypeAndShape() throws {
    let model = try model([("head.weight", [2, 2])])
    try write([("head.weight", [3, 2])], .bf16)
    let whole = try adapter(model).replacing(in: model)
    #expect(whole.tensors.map(\.shape) == [[3, 2]])
    #expect(whole.tensors.map(\.dtype) == [.bf16])
    #expect(whole.totalBytes == 12)
    try write([("head.weight", [2, 2])], .i32)
    expectRefused(model, .dtype, "head.weight", "I32")
  }

  // MARK: - Names

  @Test func onePrefixMoreOrLess() throws {
    for (own, theirs) in [
      ("h.0", "h.0"), ("transformer.h.0", "h.0"), ("a.b.h.0", "h.0"), ("h.0", "model.h.0"), ("h.0", "a.b.h.0"),
    ] {
      try write(factors(own + ".q", 5, 4))
      let found = try adapter(try model([(theirs + ".q.weight", [5, 4]), ("other.weight", [1])]))
      #expect(found.updates.keys.sorted() == [theirs + ".q.weight"])
    }
  }

  @Test func oneChangeHasToDoForAllNames() throws {
    try write(factors("t.q", 5, 4) + factors("k", 5, 4))
    expectRefused(
      try model([("q.weight", [5, 4]), ("k.weight", [5, 4])]), .missingTensor, "\"t.q.weight\"", folder("model"), "trained on")
  }

  /// Without its first word either module would be "q", and one of them would be lost.
  @Test func twoModulesAreNotMadeOne() throws {
    try write(factors("text.q", 5, 4) + factors("vision.q", 5, 4))
    expectRefused(try model([("q.weight", [5, 4])]), .missingTensor, "\"text.q.weight\"", folder("model"))
    try write([("text.bias", [4]), ("vision.bias", [4])])
    expectRefused(try model([("bias", [4])]), .missingTensor, "\"text.bias\"")
  }

  @Test func tensorsThatTheModelLacks() throws {
    let model = try model([("q.weight", [5, 4])])
    try write(factors("q", 5, 4) + [("score.weight", [4])])
    expectRefused(model, .missingTensor, "\"score.weight\"", folder("model"), "trained on")
    try write(factors("lm_head", 5, 4))
    expectRefused(model, .missingTensor, "\"lm_head.weight\"", "tied", folder("model"))
  }

  // MARK: - What is refused

  @Test func whatWouldBeLost() throws {
    let model = try model([("q.weight", [5, 4])])
    for (name, word) in [
      ("q.lora_C.weight", "lora_C"), ("q.lora_A", "lora_A"), ("q.lora_B.bias", "lora_B.bias"),
      ("q.lora_A.other.weight", "other"), ("q.lora_embedding_A.weight", "lora_embedding_A"), ("q.lora_ga.x", "lora_ga"),
      ("q.lora_magnitude_vector", "DoRA"), ("q.lora_magnitude_vector.default.weight", "DoRA"),
    ] {
      try write(factors("q", 5, 4) + [(name, [5])])
      expectRefused(model, .format, "base_model.model." + name, word, "merge_and_unload")
    }
  }

  @Test func onlyOneFactor() throws {
    let model = try model([("a.q.weight", [5, 4])])
    for factor in factors("a.q", 5, 4) {
      try write([factor])
      expectRefused(model, .format, "\"a.q\"", "only one", "fetch it again")
    }
  }

  @Test func oneTensorByTwoNames() throws {
    let model = try model([("q.weight", [4, 4])])
    let pair = factors("q", 4, 4)
    for (more, word) in [
      (("q.lora_A.default.weight", [2, 4]), "lora_A"), (("q.lora_B.default.weight", [4, 2]), "lora_B"),
      (("q.lora_embedding_A", [2, 4]), "lora_embedding_A"),
    ] {
      try write(pair + [more])
      expectRefused(model, .format, "\"q\"", word, "damaged")
    }
    try write(pair + [("q.weight", [4, 4])])
    expectRefused(model, .format, "\"q.weight\"", "both replaces and changes")
    try write([("q.base_layer.weight", [4, 4]), ("q.weight", [4, 4])])
    expectRefused(model, .format, "\"q.weight\"", "twice")
  }

  @Test func factorsThatCannotBeMultiplied() throws {
    let model = try model([("q.weight", [5, 4])])
    let shapes: [([Int], [Int])] = [
      ([2, 4], [5, 3]), ([2], [5, 2]), ([2, 4], [5]), ([], []), ([2, 4], [5, 2, 3]), ([4, 2], [2, 5]), ([0, 4], [5, 2]),
    ]
    for (first, second) in shapes {
      try write([("q.lora_A.weight", first), ("q.lora_B.weight", second)])
      expectRefused(model, .shape, "\"q\"", "\(first)", "\(second)")
    }
    for (name, _) in factors("base_model.model.q", 5, 4) {
      try write(factors("q", 5, 4))
      try folder.write(
        file(factors("base_model.model.q", 5, 4), others: [name: .i32]), to: "adapter/adapter_model.safetensors")
      expectRefused(model, .dtype, name, "I32")
    }
  }

  @Test func factorsOfAnotherShapeOrRank() throws {
    for shape in [[5, 5], [4, 4], [5, 4, 1], [20], []] {
      try write(factors("q", 5, 4))
      expectRefused(
        try model([("q.weight", shape)]), .shape, "\"q.weight\"", "\(shape)", "[5, 4]", folder("model"), "trained on")
    }
    // An embedding's are never added as they are.
    try write([("q.lora_embedding_A", [2, 4]), ("q.lora_embedding_B", [5, 2])])
    expectRefused(try model([("q.weight", [5, 4])]), .shape, "\"q.weight\"", "trained on")
    for rank in [0, 1, 3] {
      try write(factors("q", 5, 4, rank: rank))
      expectRefused(try model([("q.weight", [5, 4])]), .format, "\"q\"", "rank \(rank)", "says 2")
    }
    try write(factors("q", 5, 4))
    let integers = try model([("q.weight", [5, 4])], .i8)
    expectFailure(.dtype, "\"q.weight\"", "I8", folder("model")) { () throws(Failure) in _ = try adapter(integers) }
  }

  @Test func foldersThatAreNoAdapter() throws {
    let model = try model([("q.weight", [5, 4])])
    expectRefused(model, .notFound, "adapter_config.json")
    try write([])
    expectRefused(model, .format, "no tensors")
    try FileSystem.remove(folder("adapter/adapter_model.safetensors"))
    expectRefused(model, .notFound, "no checkpoint")
    try folder.write("junk", to: "adapter/adapter_model.safetensors")
    expectRefused(model, .format, "adapter_model.safetensors")
  }

  // MARK: - Damage

  @Test func anyNamesAndShapes() throws {
    let model = try model([("q.weight", [4, 4]), ("a.q.weight", [4, 2]), ("a.bias", [2])])
    let words = [
      "base_model", "model", "q", "a", "lora_A", "lora_B", "lora_embedding_A", "default", "weight", "bias", "",
      "modules_to_save",
    ]
    var generator = SeededGenerator(seed: 8)
    var accepted = 0
    for round in 0..<400 {
      var tensors: [String: [Int]] = round % 2 == 0 ? ["q.lora_A.weight": [2, 4], "q.lora_B.weight": [4, 2]] : [:]
      for _ in 0..<Int.random(in: 0...2, using: &generator) {
        let name = (0..<Int.random(in: 1...4, using: &generator)).map { _ in words.randomElement(using: &generator)! }
        tensors[name.joined(separator: ".")] = (0..<Int.random(in: 0...3, using: &generator)).map { _ in
          Int.random(in: 0...4, using: &generator)
        }
      }
      try write(tensors.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
      do throws(Failure) {
        let found = try adapter(model)
        accepted += 1
        // Nothing is lost: two tensors of the adapter to an update, one to a replacement.
        #expect(2 * found.updates.count + found.replacements.count == tensors.count, "\(tensors)")
        for (name, update) in found.updates {
          let (inputs, outputs) = (update.first.shape[1], update.second.shape[0])
          #expect(model.tensor(named: name)?.shape == (update.isTransposed ? [inputs, outputs] : [outputs, inputs]))
        }
        for name in found.replacements.keys { #expect(model.tensor(named: name) != nil) }
      } catch {
        #expect(error.message.contains(folder("adapter")))
      }
    }
    #expect(accepted > 20 && accepted < 380)
  }
}
