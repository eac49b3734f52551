import Testing

@testable import Platform

/// Names looked at by their bytes.
@Suite struct BytesTests {
  @Test(arguments: [
    ("model.embed_tokens.weight", "embed", true), ("embed", "embed", true), ("emb", "embed", false), ("", "", true),
    ("a", "", true),
    ("eembed", "embed", true), ("embeembe", "embed", false), ("x", "xx", false),
  ]) func containsText(text: String, part: String, isThere: Bool) {
    #expect(text.containsText(part) == isThere)
  }

  @Test func endings() {
    #expect("a.qweight".hasEnding(".qweight") && ".qweight".hasEnding(".qweight") && "x".hasEnding(""))
    #expect(!"qweight".hasEnding(".qweight") && !"a.qweights".hasEnding(".qweight"))
  }

  @Test func theComponentBeforeTheLast() {
    #expect("model.embed_tokens.weight".component(before: "weight") == "embed_tokens")
    #expect("wte.weight".component(before: "weight") == "wte" && "a..weight".component(before: "weight") == "a")
    #expect("weight".component(before: "weight") == nil && "a.overweight".component(before: "weight") == nil)
    #expect("a.weight.bias".component(before: "weight") == nil && ".weight".component(before: "weight") == nil)
  }

  @Test(arguments: [
    "model.layers.12.mlp.experts.3.w", "h.3", "0.w", "7", "", ".", "..5..", "a.1234567890", "a.123456789", "a.-3.b", "a.3x.4",
    "a.03.b",
    "vision.blocks.1é.2", "layers.0",
  ]) func numbersAreFoundAsBySplittingAtDots(name: String) {
    // The same by Swift's own means.
    let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    var expected: [String] = []
    for (place, part) in parts.enumerated() {
      guard !part.isEmpty, part.utf8.count < 10, part.utf8.allSatisfy({ (48...57).contains($0) }) else { continue }
      expected.append(parts[..<place].joined(separator: ".") + "|" + String(Int(part)!))
    }
    #expect(name.numberedComponents.map { "\($0.before)|\($0.number)" } == expected)
  }
}
