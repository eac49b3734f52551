import JSON
import Platform
import Testing

@testable import Checkpoints

@Suite struct QuantizationTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func failure(tensors: [String], config: String? = nil) throws -> Failure? {
    try folder.write(sound(tensors.map { ($0, 1) }), to: "model.safetensors")
    try FileSystem.remove(folder("config.json"))
    if let config { try folder.write(config, to: "config.json") }
    return try Quantization.failure(of: Checkpoint(path: folder.path))
  }

  @Test(
    arguments: [
      "model.layers.0.mlp.down_proj.weight_scale_inv", "x.weight_scale", "x.qweight", "x.qzeros", "x.weight.absmax",
      "x.weight.quant_state.bitsandbytes__nf4", "x.SCB",
    ])
  func tensorsOfQuantisersAreRefused(name: String) throws {
    let found = try #require(try failure(tensors: ["x.weight", name]))
    #expect(found.status == .quantized)
    #expect(found.message.contains("\"\(name)\""))
    #expect(found.message.contains("model.safetensors"))
    #expect(found.message.contains("bfloat16"))
  }

  @Test func scalesCountBesidePackedWeightsOnly() throws {
    #expect(try failure(tensors: ["x.scales", "x.qweight"])?.status == .quantized)
    #expect(try failure(tensors: ["x.scales", "x.weight", "y.weights"]) == nil)
  }

  @Test func ordinaryTensorsPass() throws {
    let names = [
      "model.embed_tokens.weight", "x.scale", "layer_scale.weight", "scb", "qweight_proj.weight", "x.weight_scaled",
      "logit_scale",
      "x.quant_states.weight", "x.bias", "absmaximum", "inv_freq",
    ]
    #expect(try failure(tensors: names) == nil)
    #expect(try failure(tensors: names, config: "{}") == nil)
  }

  @Test(
    arguments: [
      #"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#,
      #"{"text_config": {"quantization_config": {"quant_method": "gptq"}}}"#,
    ])
  func configsAreBelieved(config: String) throws {
    let found = try #require(try failure(tensors: ["x.weight"], config: config))
    #expect(found.status == .quantized)
    #expect(found.message.contains("config.json"))
    #expect(found.message.contains("\"gptq\""))
    #expect(found.message.contains("de-quantise"))
  }

  @Test(
    arguments: [
      #"{"quantization_config": null}"#, #"{"quantization_config": {}}"#, #"{"note": "quantization_config"}"#, "[]", "{}",
    ])
  func configsWithoutItPass(config: String) throws { #expect(try failure(tensors: ["x.weight"], config: config) == nil) }

  @Test func aBrokenConfigIsAnError() throws {
    try folder.write(sound([("a", 1)]), to: "model.safetensors")
    try folder.write("{", to: "config.json")
    let checkpoint = try Checkpoint(path: folder.path)
    expectFailure(.format, "config.json") { () throws(Failure) in _ = try Quantization.failure(of: checkpoint) }
  }

  @Test func aSingleFileIsJudgedByItsTensors() throws {
    try folder.write(sound([("a.qweight", 1)]), to: "x.safetensors")
    try folder.write(sound([("a.weight", 1)]), to: "y.safetensors")
    #expect(try Quantization.failure(of: Checkpoint(path: folder("x.safetensors")))?.status == .quantized)
    #expect(try Quantization.failure(of: Checkpoint(path: folder("y.safetensors"))) == nil)
  }

  @Test func realModelsPass() throws {
    #expect(try Quantization.failure(of: Checkpoint(path: fixtures + "/goldens/models/inputs/a")) == nil)
  }
}
