import JSON
import Platform
import Testing

@testable import MergeEngine

@Suite struct SettingTests {
  private func value(_ text: String, _ name: String = "model.layers.0.mlp.w", at position: Double = 0) throws -> JSON? {
    try Setting(try JSON.parse(text, source: "test"), place: "here").value(name: name, position: position)
  }

  @Test(arguments: [("1", 1.0), ("0.5", 0.5), (#""0.25""#, 0.25), (#"{"value": 2}"#, 2), (#"[{"value": 3}]"#, 3)])
  func numbersAndTheirSpellings(text: String, expected: Double) throws {
    #expect(try value(text)?.double == expected)
  }

  @Test(arguments: [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (1.0, 5.0)])
  func aListIsAGradient(position: Double, expected: Double) throws {
    #expect(try value("[0, 1, 5]", at: position)?.double == expected)
  }

  @Test func gradientsTakeBooleansAndQuotedNumbers() throws {
    #expect(try value(#"[true, "0.5"]"#, at: 0)?.double == 1)
    #expect(try value(#"[true, "0.5"]"#, at: 1)?.double == 0.5)
  }

  @Test(arguments: ["[]", #"{"value": []}"#, #"[{"filter": "x", "value": []}, {"value": 1}]"#])
  func emptyListsAreKnown(text: String) throws {
    #expect(try Setting(try JSON.parse(text, source: "test"), place: "here").isEmptyList)
    #expect(try !Setting(["value": [1]], place: "here").isEmptyList)
  }

  @Test func listsOfNamesAreNoGradients() throws {
    #expect(try value(#"["a", "b"]"#)?.array == ["a", "b"])
    #expect(try value("[]")?.array == [])
  }

  @Test func theFirstFilterThatMatchesCounts() throws {
    let text = #"[{"filter": "mlp", "value": [1, 2]}, {"filter": "layers", "value": 3}, {"filter": "*", "value": 4}]"#
    #expect(try value(text, at: 1)?.double == 2)
    #expect(try value(text, "model.layers.0.attn")?.double == 3)
    #expect(try value(text, "lm_head")?.double == 4)
    #expect(try value(#"[{"filter": "mlp", "value": 1}]"#, "lm_head") == nil)
    #expect(try value(#"[{"filter": "MLP", "value": 1}]"#) == nil)
  }

  @Test(arguments: ["null", #"{"filter": "x"}"#, #"[{"value": 1}, 2]"#, #"[{"filter": 3, "value": 1}]"#])
  func whatIsNoSettingIsRefused(text: String) throws {
    let failure = #expect(throws: Failure.self) { try Setting(try JSON.parse(text, source: "test"), place: "here") }
    #expect(failure?.status == .recipe && failure?.message.contains("here") == true)
  }
}
