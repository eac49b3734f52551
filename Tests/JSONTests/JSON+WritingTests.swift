import JSON
import Testing

@Suite struct JSONWritingTests {
  private let value: JSON = [
    "b": [1, 2.5, "x"], "a": ["nested": true, "none": nil], "empty": [], "nothing": .object([]), "s": "",
  ]

  @Test func compact() {
    #expect(
      value.serialized(indent: 0)
        == #"{"b":[1,2.5,"x"],"a":{"nested":true,"none":null},"empty":[],"nothing":{},"s":""}"#)
  }

  @Test func indented() {
    let expected = """
      {
        "b": [
          1,
          2.5,
          "x"
        ],
        "a": {
          "nested": true,
          "none": null
        },
        "empty": [],
        "nothing": {},
        "s": ""
      }
      """
    #expect(value.serialized(indent: 2) == expected)
    #expect(value.serialized() == expected)
  }

  @Test func stringsAreEscapedAndUTF8IsKept() throws {
    let text = "quote \" backslash \\ slash / é 漢 😀 \u{7F} \u{8}\u{C}\n\r\t\u{1}\u{1F}\u{0}"
    let written = JSON.string(text).serialized(indent: 0)
    #expect(
      written == "\"quote \\\" backslash \\\\ slash / é 漢 😀 \u{7F} \\b\\f\\n\\r\\t\\u0001\\u001f\\u0000\"")
    let withoutNUL = String(text.dropLast())
    #expect(try JSON.parse(JSON.string(withoutNUL).serialized(), source: "test").string == withoutNUL)
  }

  @Test(
    arguments: [
      0.1, 1.0 / 3.0, 1e16, 1e-7, Double.leastNonzeroMagnitude, Double.greatestFiniteMagnitude, -0.0, 123456789012345680.0,
      2.2250738585072014e-308,
      0.30000000000000004, 100000.0, -1.5,
    ])
  func doublesComeBackBitForBit(number: Double) throws {
    let back = try JSON.parse(JSON.double(number).serialized(), source: "test")
    guard case .double(let value) = back else {
      Issue.record("\(number) came back as \(back)")
      return
    }
    #expect(value.bitPattern == number.bitPattern)
  }

  @Test func doublesHaveTheFewestDigits() {
    #expect(JSON.double(0.1).serialized() == "0.1")
    #expect(JSON.double(3).serialized() == "3.0")
  }

  @Test func nonFiniteNumbersBecomeNull() {
    #expect(JSON.array([.double(.nan), .double(.infinity), .double(-.infinity)]).serialized(indent: 0) == "[null,null,null]")
  }

  @Test func integersKeepAllDigits() {
    #expect(JSON.array([.int(.max), .int(.min)]).serialized(indent: 0) == "[9223372036854775807,-9223372036854775808]")
  }
}
