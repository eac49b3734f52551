import Platform
import Testing

@testable import Checkpoints

@Suite struct NamePatternTests {
  @Test(arguments: [
    ("q_proj", "layers.0.q_proj", true), ("q_proj", "q_proj", true), ("q_proj", "layers.0.xq_proj", false),
    ("q_proj", "q_proj.inner", false), (#"layers\.\d+\.mlp"#, "model.layers.12.mlp", true),
    (#"layers\.\d+\.mlp"#, "layers.x.mlp", false),
    ("(q|k)_proj", "a.k_proj", true), ("a|b", "x.b", true), ("a|b", "x.ab", false), ("^model.a", "model.a", true),
    ("[0-9]{2}", "x.12", true), ("[0-9]{2}", "x.1", false),
  ])
  func endsOfNames(_ key: String, _ name: String, _ expected: Bool) throws {
    #expect(try NamePattern(key, source: "here").matches(name) == expected)
  }

  @Test func listsOfModulesAreLong() throws {
    let layers = (0..<80).map(String.init).joined(separator: "|")
    let pattern = try NamePattern(#"layers\.(\#(layers))\.(mlp|self_attn)\.[a-z_]{1,12}"#, source: "here")
    #expect(pattern.matches("model.layers.79.mlp.up_proj"))
    #expect(!pattern.matches("model.layers.80.mlp.up_proj"))
    #expect(
      try NamePattern(String(repeating: "a", count: 1000), source: "here").matches("x." + String(repeating: "a", count: 1000)))
    let nested = String(repeating: "(", count: 100) + "a" + String(repeating: ")", count: 100)
    #expect(try NamePattern(nested, source: "here").matches("a"))
  }

  @Test(arguments: ["(?i)a", "a*?", "(a", "[a", "(a)\\1", "a{9}{9}{9}"])
  func whatIsNotUnderstood(_ key: String) {
    expectFailure(.format, "here") { () throws(Failure) in _ = try NamePattern(key, source: "here") }
  }
}
