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

  @Test(arguments: ["(?i)a", "a*?", "(a", "[a"])
  func whatOnlyPythonKnows(_ key: String) {
    expectFailure(.format, "here") { () throws(Failure) in _ = try NamePattern(key, source: "here") }
  }
}
