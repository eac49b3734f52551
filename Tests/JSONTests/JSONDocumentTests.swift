import JSON
import Platform
import Testing

@Suite struct JSONDocumentTests {
  private func document(_ text: String) throws -> JSONDocument {
    try Array(text.utf8).withUnsafeBytes { try JSONDocument($0, source: "test") }
  }

  @Test func walksWithoutCopying() throws {
    let root = try document(#"{"b": {"x": [1, 2.5, "s"]}, "a": true, "": null}"#).root
    #expect(root.isObject)
    #expect(root.count == 3)
    #expect(root.members.map(\.key) == ["b", "a", ""])
    #expect(root["b"]?["x"]?.count == 3)
    #expect(root["b"]?["x"]?[0]?.int == 1)
    #expect(root["b"]?["x"]?[1]?.double == 2.5)
    #expect(root["b"]?["x"]?[1]?.int == nil)
    #expect(root["b"]?["x"]?[2]?.string == "s")
    #expect(root["b"]?["x"]?[3] == nil)
    #expect(root["b"]?["x"]?[-1] == nil)
    #expect(root["b"]?["x"]?.elements.map(\.double) == [1, 2.5, nil])
    #expect(root["a"]?.bool == true)
    #expect(root[""]?.isNull == true)
    #expect(root["nothing"] == nil)
    #expect(root["a"]?["x"] == nil)
    #expect(root["a"]?.count == 0)
    #expect(Array(try #require(root["a"]).elements).isEmpty)
    #expect(Array(try #require(root["a"]).members).isEmpty)
  }

  @Test func aNodeKeepsItsDocumentAlive() throws {
    func deep() throws -> JSONNode? { try document(#"{"a": {"b": "\#(String(repeating: "x", count: 1000))"}}"#).root["a"] }
    let node = try deep()
    #expect(node?["b"]?.string?.count == 1000)
  }

  @Test(
    arguments: [
      (#"{"a": 1, "a": 2}"#, "duplicate"),
      (#"{"a": {"b": 1, "b": 1}}"#, "duplicate"),
      (#"{"a\u0000b": 1}"#, "NUL"),
      (#"{"a": "x\u0000y"}"#, ""),
      ("", ""),
      ("{", ""),
      ("{} {}", "end of file"),
      ("[1,]", ""),
      ("[1e400]", "overflow"),
      ("[9223372036854775808]", "too big integer"),
      (#"["\ud800"]"#, ""),
      ("[NaN]", ""),
      ("[01]", ""),
      ("{'a': 1}", ""),
      ("{\"a\": 1} // comment", ""),
    ])
  func refuses(text: String, word: String) {
    expectFailure(.format, "recipe.json", "line 1", word) { () throws(Failure) in
      _ = try JSON.parse(text, source: "recipe.json")
    }
  }

  @Test func namesTheLine() {
    expectFailure(.format, "config.json is not valid JSON", "line 3") { () throws(Failure) in
      _ = try JSON.parse("{\n\"a\": 1,\n\"a\": 2\n}", source: "config.json")
    }
  }

  @Test func refusesTextThatIsNotUTF8() {
    for bytes in [[0x22, 0xFF, 0x22], [0x22, 0xC0, 0xAF, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0xEF, 0xBB, 0xBF, 0x31]] {
      expectFailure(.format, "test") { () throws(Failure) in
        _ = try JSON.parse(bytes.map { UInt8($0) }, source: "test")
      }
    }
  }

  @Test func messagesHoldNoControlCharacters() {
    expectFailure(.format) { () throws(Failure) in
      do throws(Failure) {
        _ = try JSON.parse("[\"a\u{1}\n\"]", source: "test")
      } catch {
        #expect(error.message.unicodeScalars.allSatisfy { $0.value >= 0x20 })
        throw error
      }
    }
  }

  @Test func deepNestingIsRefusedNotFollowed() {
    let deep = String(repeating: "[", count: 100_000) + String(repeating: "]", count: 100_000)
    expectFailure(.format, "depth") { () throws(Failure) in _ = try JSON.parse(deep, source: "test") }
  }

  @Test func theDeepestNestingAllowedIsReadWrittenAndCompared() throws {
    let text = String(repeating: "[", count: 2000) + String(repeating: "]", count: 2000)
    let value = try JSON.parse(text, source: "test")
    #expect(value.serialized(indent: 0) == text)
    #expect(try JSON.parse(text, source: "test") == value)
  }
}
