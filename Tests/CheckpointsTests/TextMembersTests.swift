import JSON
import Platform
import Testing

@testable import Checkpoints

@Suite struct TextMembersTests {
  private func members(_ text: String) throws -> TextMembers {
    try TextMembers(Array(text.utf8), source: "tokenizer_config.json")
  }

  private func set(_ text: String, _ key: String, _ value: JSON) throws -> String {
    String(decoding: try members(text).setting(key, to: value), as: UTF8.self)
  }

  @Test(
    arguments: [
      (#"{"a": 1}"#, #"{"a": "x"}"#), (#"{"b":[{"a":1},"}"],"a":{"a":[2]},"c":3}"#, #"{"b":[{"a":1},"}"],"a":"x","c":3}"#),
      (#"{ "a" : 1000000000000000019884624838656 , "z" : 1e9 }"#, #"{ "a" : "x" , "z" : 1e9 }"#),
      (#"{"\u0061": "\"}", "b": "\\"}"#, #"{"\u0061": "x", "b": "\\"}"#), (#"{"a": null}"#, #"{"a": "x"}"#),
      // Absent: the last member.
      (#"{"b": 1}"#, "{\"b\": 1,\n  \"a\": \"x\"}"), ("{}", "{\n  \"a\": \"x\"\n}"),
      ("{\n  \"b\": 1\n}\n", "{\n  \"b\": 1,\n  \"a\": \"x\"\n}\n"),
    ])
  func setsOneValue(before: String, after: String) throws {
    #expect(try set(before, "a", "x") == after)
    #expect(try members(after).value("a") == "x")
  }

  @Test func valuesBeyondJSONAreOnlySteppedOver() throws {
    let read = try members(#"{"a": 1000000000000000019884624838656, "b": [1, 2]}"#)
    #expect(read.has("a"))
    #expect(read.value("a") == nil)
    #expect(read.value("b") == [1, 2])
    #expect(read.value("c") == nil)
  }

  @Test(arguments: [
    "", "[]", "{", #"{"a"#, #"{"a""#, #"{"a":"#, #"{"a": "x"#, #"{"a": [1, 2"#, #"{"a" 1}"#, #"{a: 1}"#, #"{"a": }"#,
  ])
  func refusesWhatIsNoObject(text: String) throws {
    let failure = #expect(throws: Failure.self) { try members(text) }
    #expect(failure?.status == .format)
    #expect(failure?.message.contains("tokenizer_config.json") == true)
  }
}
