import Testing

@testable import MergeMethods

@Suite struct GlobTests {
  private static let matching: [(String, String)] = [
    ("", ""), ("*", ""), ("*", "anything.at.all"), ("**", "x"), ("a", "a"), ("a*", "a"), ("a*", "abc"), ("*c", "abc"),
    ("a*c", "ac"), ("a*c", "abcbc"), ("a?c", "abc"), ("???", "abc"), ("*.weight", "model.layers.0.weight"),
    ("model.*.self_attn.*", "model.layers.12.self_attn.q_proj.weight"), ("*a*b*", "xxaxxbxx"), ("*ab", "aaab"),
    ("a*b*c", "abbbcbc"), ("[ab].weight", "[ab].weight"), ("a.b", "a.b"), ("*é*", "café.w"), ("layers.?.w", "layers.3.w"),
  ]

  @Test(arguments: matching) func matches(pattern: String, name: String) {
    #expect(Glob(pattern).matches(name))
  }

  private static let others: [(String, String)] = [
    ("", "a"), ("a", ""), ("a", "ab"), ("a", "b"), ("?", ""), ("?", "ab"), ("a?", "a"), ("a*", "ba"), ("*c", "cb"),
    ("a*c", "abcb"),
    ("*.weight", "model.weights"), ("[ab].weight", "a.weight"), ("a.b", "axb"), ("A", "a"), ("*a*b*", "xxbxxaxx"),
    ("layers.?.w", "layers.12.w"), ("\\*", "*"), ("abc*", "ab"),
  ]

  @Test(arguments: others) func doesNotMatch(pattern: String, name: String) {
    #expect(!Glob(pattern).matches(name))
  }

  @Test func aQuestionMarkStandsForOneCharacterWhateverItsBytes() {
    #expect(Glob("caf?").matches("café"))
    #expect(!Glob("caf??").matches("café"))
  }

  @Test func manyStarsTakeNoExponentialTime() {
    let name = String(repeating: "a", count: 2000)
    #expect(!Glob(String(repeating: "a*", count: 30) + "b").matches(name))
    #expect(Glob(String(repeating: "*a", count: 30)).matches(name))
  }
}
