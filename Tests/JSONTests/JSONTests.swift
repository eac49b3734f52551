import JSON
import Platform
import Testing

/// Run something that must fail, and check its code and words.
func expectFailure(
  _ status: Status, _ words: String..., at location: SourceLocation = #_sourceLocation, _ body: () throws(Failure) -> Void
) {
  do throws(Failure) {
    try body()
    Issue.record("nothing was thrown", sourceLocation: location)
  } catch {
    #expect(error.status == status, "\(error.message)", sourceLocation: location)
    for word in words { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
  }
}

@Suite struct JSONTests {
  @Test func parsesEveryKindInOrder() throws {
    let text = #" {"z": [1, -2, 2.5, 1e3], "a": {"t": true, "f": false, "n": null}, "é": "\u00e9\n"} "#
    let value = try JSON.parse(text, source: "test")
    let expected: JSON = ["z": [1, -2, 2.5, 1000.0], "a": ["t": true, "f": false, "n": nil], "é": "é\n"]
    #expect(value == expected)
    #expect(value.members?.map(\.key) == ["z", "a", "é"])
  }

  @Test(arguments: [("5", JSON.int(5)), ("-0.5", -0.5), ("\"x\"", "x"), ("true", true), ("[]", .array([]))])
  func takesAnyValueAtTheTop(text: String, value: JSON) throws {
    #expect(try JSON.parse(text, source: "test") == value)
  }

  @Test func accessorsGiveNilForOtherKinds() {
    let value: JSON = ["i": 3, "d": 0.25, "s": "text", "b": true, "a": [1, 2], "o": ["k": 1], "n": nil]
    #expect(value["i"]?.int == 3)
    #expect(value["i"]?.double == 3)
    #expect(value["d"]?.double == 0.25)
    #expect(value["d"]?.int == nil)
    #expect(value["s"]?.string == "text")
    #expect(value["s"]?.double == nil)
    #expect(value["b"]?.bool == true)
    #expect(value["i"]?.bool == nil)
    #expect(value["a"]?.array == [1, 2])
    #expect(value["o"]?.members == [JSON.Member(key: "k", value: 1)])
    #expect(value["n"]?.isNull == true)
    #expect(value["missing"] == nil)
    #expect(value["a"]?["k"] == nil)
    #expect(JSON.double(1).int == nil)
  }

  @Test func keysAreComparedByBytes() throws {
    let value = try JSON.parse(#"{"e\u0301": 1, "\u00e9": 2}"#, source: "test")
    #expect(value["e\u{301}"]?.int == 1)
    #expect(value["\u{e9}"]?.int == 2)
  }

  @Test func numbersWrittenAsRealsAreNoIntegers() throws {
    let value = try JSON.parse("[1.0, 1e2, 1, 9223372036854775807, -9223372036854775808]", source: "test")
    #expect(value.array?.map(\.int) == [nil, nil, 1, Int.max, Int.min])
  }
}
