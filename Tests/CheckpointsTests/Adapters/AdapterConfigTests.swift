import Platform
import Testing

@testable import Checkpoints

@Suite struct AdapterConfigTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func config(_ text: String) throws(Failure) -> AdapterConfig {
    let path = folder("adapter_config.json")
    try FileSystem.remove(path)
    try FileSystem.write(Array(text.utf8), to: path)
    return try AdapterConfig(path: path)
  }

  /// A plain one of rank 4 and alpha 6, and more members.
  private func plain(_ members: String = "") throws(Failure) -> AdapterConfig {
    try config(#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6\#(members.isEmpty ? "" : ", " + members)}"#)
  }

  private func expectRefused(
    _ status: Status = .format, _ words: String..., at location: SourceLocation = #_sourceLocation,
    _ body: () throws(Failure) -> Void
  ) {
    do throws(Failure) {
      try body()
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == status, "\(error.message)", sourceLocation: location)
      for word in words + [folder("adapter_config.json")] {
        #expect(error.message.contains(word), "\(error.message)", sourceLocation: location)
      }
    }
  }

  private func expectRefused(_ text: String, _ word: String, at location: SourceLocation = #_sourceLocation) {
    expectRefused(.format, word, at: location) { () throws(Failure) in _ = try config(text) }
  }

  // MARK: - The scale

  @Test func alphaByRank() throws {
    #expect(try plain().scale(of: "q_proj", rank: 4) == 1.5)
    #expect(try plain(#""use_rslora": false"#).scale(of: "q_proj", rank: 4) == 1.5)
    #expect(try plain(#""use_rslora": true"#).scale(of: "q_proj", rank: 4) == 3)
    #expect(try config(#"{"r": 3, "lora_alpha": 2}"#).scale(of: "x", rank: 3) == 2.0 / 3)
    #expect(try config(#"{"r": 2, "lora_alpha": 0.5}"#).scale(of: "x", rank: 2) == 0.25)
    #expect(try config(#"{"r": 2, "lora_alpha": -1}"#).scale(of: "x", rank: 2) == -0.5)
    #expect(try config(#"{"r": 2, "lora_alpha": 0}"#).scale(of: "x", rank: 2) == 0)
  }

  @Test func patternsOfRanksAndAlphas() throws {
    let config = try plain(
      #""rank_pattern": {"layers\\.\\d+\\.up": 2, "up": 16}, "alpha_pattern": {"up": 8, "layers.0.up": 1, "down": 2}"#)
    // The first that matches counts, of either kind.
    #expect(try config.scale(of: "model.layers.0.up", rank: 2) == 4)
    #expect(try config.scale(of: "other.up", rank: 16) == 0.5)
    #expect(try config.scale(of: "layers.0.down", rank: 4) == 0.5)
    #expect(try config.scale(of: "layers.0.q", rank: 4) == 1.5)
    expectRefused(.format, "\"other.up\"", "rank 4", "16") { () throws(Failure) in
      _ = try config.scale(of: "other.up", rank: 4)
    }
    let stabilised = try plain(#""use_rslora": true, "rank_pattern": {"up": 9}, "alpha_pattern": {"up": 12}"#)
    #expect(try stabilised.scale(of: "up", rank: 9) == 4)
    #expect(try plain(#""rank_pattern": {}, "alpha_pattern": null"#).scale(of: "up", rank: 4) == 1.5)
  }

  @Test func factorsOfAnotherRank() throws {
    for rank in [0, 1, 3, 5, .max] {
      expectRefused(.format, "\"a.q_proj\"", "rank \(rank)", "says 4") { () throws(Failure) in
        _ = try plain().scale(of: "a.q_proj", rank: rank)
      }
    }
  }

  @Test func ranksOfAnySize() throws {
    for rank in [1, 1 << 53 + 1, Int.max - 1, .max] {
      let config = try config(#"{"r": \#(rank), "lora_alpha": 1}"#)
      expectRefused(.format, "\"a\"", "says \(rank)") { () throws(Failure) in _ = try config.scale(of: "a", rank: 4) }
      #expect(try config.scale(of: "a", rank: rank) == 1 / Double(rank))
    }
  }

  @Test(arguments: ["0", "-4", "0.5", "4.5", "1e300", "-1e300", "9223372036854775808.0", "1e19"])
  func ranksOfPatternsAreNumbersFromOne(_ rank: String) {
    expectRefused(.format, "\"q_proj\"") { () throws(Failure) in
      _ = try plain(#""rank_pattern": {"q_proj": \#(rank)}"#)
    }
  }

  @Test func orientation() throws {
    #expect(try plain().isTransposed == false)
    #expect(try plain(#""fan_in_fan_out": false"#).isTransposed == false)
    #expect(try plain(#""fan_in_fan_out": true"#).isTransposed)
  }

  // MARK: - What is no plain LoRA

  @Test func whatAnAdapterHasToHave() {
    for text in [
      "{}", "[]", "3", #"{"r": 4}"#, #"{"lora_alpha": 4}"#, #"{"r": 0, "lora_alpha": 4}"#, #"{"r": -1, "lora_alpha": 4}"#,
      #"{"r": 4.0, "lora_alpha": 4}"#, #"{"r": "4", "lora_alpha": 4}"#, #"{"r": null, "lora_alpha": 4}"#,
      #"{"r": 4, "lora_alpha": null}"#, #"{"r": 4, "lora_alpha": "4"}"#, #"{"r": 4, "lora_alpha": true}"#,
      #"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}"#,
    ] { expectRefused(text, "'r'") }
  }

  @Test(arguments: ["LOHA", "lora", "ADALORA", ""]) func otherTypes(_ type: String) {
    expectRefused(#"{"peft_type": "\#(type)", "r": 4, "lora_alpha": 6}"#, "\"\(type)\"")
    expectRefused(#"{"peft_type": "\#(type)", "r": 4, "lora_alpha": 6}"#, "merge_and_unload")
  }

  @Test(arguments: [
    ("use_dora", "DoRA"), ("lora_bias", "biases"), ("use_qalora", "QA-LoRA"), ("alora_invocation_tokens", "activated"),
    ("layer_replication", "repeated layers"), ("target_parameters", "parameters"), ("trainable_token_indices", "tokens"),
    ("megatron_config", "Megatron"), ("arrow_config", "mixture"),
  ])
  func whatNeedsMoreThanTwoFactors(_ key: String, _ word: String) throws {
    for value in ["true", "[1]", #"{"a": 1}"#, #""x""#, "1"] {
      expectRefused(.format, word, "'\(key)'", "merge_and_unload") { () throws(Failure) in
        _ = try plain(#""\#(key)": \#(value)"#)
      }
    }
    // So PEFT writes what is not used.
    for value in ["null", "false", "[]", "{}"] { _ = try plain(#""\#(key)": \#(value)"#) }
  }

  @Test(arguments: ["pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga"])
  func beginningsThatChangeTheModel(_ name: String) {
    expectRefused(.format, "init_lora_weights", "merge_and_unload", "path_initial_model") { () throws(Failure) in
      _ = try plain(#""init_lora_weights": "\#(name)""#)
    }
  }

  @Test(arguments: ["true", "false", "null", #""gaussian""#, #""eva""#, #""orthogonal""#])
  func beginningsThatDoNot(_ value: String) throws {
    #expect(try plain(#""init_lora_weights": \#(value)"#).scale(of: "a", rank: 4) == 1.5)
  }

  // MARK: - Patterns

  @Test func patternsWithoutANumber() {
    for pattern in ["rank_pattern", "alpha_pattern"] {
      for value in [#""4""#, "null", "true", "[4]", "{}"] {
        expectRefused(.format, "\"q_proj\"", pattern == "rank_pattern" ? "rank" : "number") { () throws(Failure) in
          _ = try plain(#""\#(pattern)": {"q_proj": \#(value)}"#)
        }
      }
      expectRefused(.format, "\"(?i)q\"", "not understood") { () throws(Failure) in
        _ = try plain(#""\#(pattern)": {"(?i)q": 4}"#)
      }
    }
  }

  /// The C library's expressions know no limit: each of these would take the stack, the memory or the time.
  @Test func patternsThatTakeTheMachine() {
    let nested = String(repeating: "(", count: 200_000) + "a" + String(repeating: ")", count: 200_000)
    let repeated = (0..<5).reduce("a") { inner, _ in "(\(inner)){255}" }
    let optional = "(a?){20000}"
    let recalled = #"(a*)*\\1\\1\\1"#
    for key in [nested, repeated, optional, recalled, "a{2000}{2000}", "a{,32767}{9}", String(repeating: "a?", count: 50_000)] {
      for pattern in ["rank_pattern", "alpha_pattern"] {
        expectRefused(.format, "pattern", "not understood") { () throws(Failure) in
          _ = try plain(#""\#(pattern)": {"\#(key)": 4}"#)
        }
      }
    }
  }

  // MARK: - The file

  @Test func whatIsNotThere() throws {
    expectFailure(.notFound, folder("adapter_config.json"), "PEFT") { () throws(Failure) in
      _ = try AdapterConfig(path: folder("adapter_config.json"))
    }
    try FileSystem.makeFolder(folder("adapter_config.json"))
    expectFailure(.notFound, folder("adapter_config.json")) { () throws(Failure) in
      _ = try AdapterConfig(path: folder("adapter_config.json"))
    }
  }

  private let sound =
    #"{"peft_type":"LORA","r":4,"lora_alpha":6,"rank_pattern":{"a\\d":2},"use_dora":false,"x":[1,{"y":null}]}"#

  @Test func cutAtEveryByte() throws {
    _ = try config(sound)
    for count in 0..<sound.utf8.count { expectRefused(String(sound.prefix(count)), "adapter_config.json") }
  }

  @Test func everyByteChangedAndRandomDamage() throws {
    func survives(_ bytes: [UInt8]) throws {
      try folder.write(bytes, to: "adapter_config.json")
      do throws(Failure) {
        let config = try AdapterConfig(path: folder("adapter_config.json"))
        for rank in [2, 4] { #expect(try config.scale(of: "a1", rank: rank).isFinite) }
      } catch {
        #expect(error.status == .format && error.message.contains(folder("adapter_config.json")))
      }
    }
    let sound = Array(sound.utf8)
    var generator = SeededGenerator(seed: 7)
    for place in sound.indices {
      for value in [0, 0xFF, sound[place] ^ 1, UInt8(ascii: "9")] {
        var bytes = sound
        bytes[place] = value
        try survives(bytes)
      }
    }
    for _ in 0..<500 { try survives(damaged(sound, using: &generator)) }
  }
}
