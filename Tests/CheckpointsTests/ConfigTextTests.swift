import Platform
import Testing

@testable import Checkpoints

@Suite struct ConfigTextTests {
  private func edited(_ text: String, dtype: String? = "bfloat16") throws -> String {
    String(decoding: try ConfigText.edited(Array(text.utf8), dtype: dtype, source: "config.json"), as: UTF8.self)
  }

  @Test(
    arguments: [
      (#"{"vocab_size": 10}"#, #"{"vocab_size": 12}"#), (#"{"a": {"vocab_size": 10}}"#, #"{"a": {"vocab_size": 10}}"#),
      (
        #"{"text_config": {"vocab_size": 10}, "vision_config": {"vocab_size": 7}}"#,
        #"{"text_config": {"vocab_size": 12}, "vision_config": {"vocab_size": 7}}"#
      ),
      (
        #"{"vision_config": {"vocab_size": 7}, "vocab_size": 10, "text_config": {"vocab_size":10}}"#,
        #"{"vision_config": {"vocab_size": 7}, "vocab_size": 12, "text_config": {"vocab_size":12}}"#
      ),
      (#"{"llm_config": {"vocab_size": 10.0}}"#, #"{"llm_config": {"vocab_size": 10.0}}"#), ("{}", "{}"),
    ])
  func setsTheVocabulary(before: String, after: String) throws {
    let edited = try ConfigText.edited(Array(before.utf8), dtype: nil, vocabularySize: 12, source: "config.json")
    #expect(String(decoding: edited, as: UTF8.self) == after)
    #expect(try self.edited(before, dtype: nil) == before)
  }

  @Test(
    arguments: [
      (#"{"torch_dtype": "float32"}"#, #"{"torch_dtype": "bfloat16"}"#),
      (#"{"dtype":"float16"}"#, #"{"dtype":"bfloat16"}"#),
      (#"{"torch_dtype": "torch.float16", "dtype": "auto"}"#, #"{"torch_dtype": "bfloat16", "dtype": "bfloat16"}"#),
      (#"{"dtype":"float8_e4m3fn" }"#, #"{"dtype":"bfloat16" }"#),
      // As deep as configs go, and no deeper.
      (#"{"text_config": {"torch_dtype": "float32"}}"#, #"{"text_config": {"torch_dtype": "bfloat16"}}"#),
      (
        #"{"thinker_config": {"audio_config": {"dtype": "float32", "n": 1}}}"#,
        #"{"thinker_config": {"audio_config": {"dtype": "bfloat16", "n": 1}}}"#
      ),
      (#"{"text": {"dtype": "float32"}}"#, #"{"text": {"dtype": "float32"}}"#),
      (#"{"text": {"x_config": {"dtype": "float32"}}}"#, #"{"text": {"x_config": {"dtype": "float32"}}}"#),
      (#"{"x_config": [{"dtype": "float32"}]}"#, #"{"x_config": [{"dtype": "float32"}]}"#),
      // Values that name no element type stay.
      (#"{"dtype": "int4"}"#, #"{"dtype": "int4"}"#),
      (#"{"dtype": null, "torch_dtype": 16}"#, #"{"dtype": null, "torch_dtype": 16}"#),
      (#"{"dtype": {"": "float32"}}"#, #"{"dtype": {"": "float32"}}"#),
      (#"{"dtype": ["float32"]}"#, #"{"dtype": ["float32"]}"#),
      (#"{"my_dtype": "float32", "dtype_": "float32"}"#, #"{"my_dtype": "float32", "dtype_": "float32"}"#),
      // Absent stays absent.
      (#"{}"#, #"{}"#),
      ("{ \n }", "{ \n }"),
      (#"{"a": 1}"#, #"{"a": 1}"#),
      // Text that looks like members but is not.
      (#"{"a": "\"dtype\": \"float32\"", "b": "}{][,:"}"#, #"{"a": "\"dtype\": \"float32\"", "b": "}{][,:"}"#),
      (#"{"a\\": "x", "dtype": "float32"}"#, #"{"a\\": "x", "dtype": "bfloat16"}"#),
      (#"{"a": "\\\"", "dtype": "float32"}"#, #"{"a": "\\\"", "dtype": "bfloat16"}"#),
      (
        #"{"a": ["]", {"dtype": "float32"}, [[]], {}], "dtype": "float32"}"#,
        #"{"a": ["]", {"dtype": "float32"}, [[]], {}], "dtype": "bfloat16"}"#
      ),
      // Escapes in keys and values mean what they mean.
      (#"{"\u0064type": "flo\u0061t32"}"#, #"{"\u0064type": "bfloat16"}"#),
      (#"{"text\u005fconfig": {"dtype": "float32"}}"#, #"{"text\u005fconfig": {"dtype": "bfloat16"}}"#),
      // Every other byte stays.
      (
        "\r\n{\t\"dtype\"\n:\r\"float32\"\t,\"x\":1.50E+3 , \"é\":\"漢\\/\" }\n\n",
        "\r\n{\t\"dtype\"\n:\r\"bfloat16\"\t,\"x\":1.50E+3 , \"é\":\"漢\\/\" }\n\n"
      ),
    ])
  func setsTheElementType(before: String, after: String) throws {
    #expect(try edited(before) == after)
    #expect(try edited(before, dtype: nil) == before)
    #expect(try edited(after) == after)
  }

  @Test(
    arguments: [
      (#"{"_name_or_path": "x"}"#, #"{}"#),
      (#"{"_name_or_path": "x", "a": 1}"#, #"{"a": 1}"#),
      (#"{"a": 1, "_name_or_path": "x"}"#, #"{"a": 1}"#),
      (#"{"a": 1, "_name_or_path": "x", "b": 2}"#, #"{"a": 1, "b": 2}"#),
      (#"{"a":1,"_name_or_path":"x","b":2}"#, #"{"a":1,"b":2}"#),
      ("{\n  \"a\": 1,\n  \"_name_or_path\": \"x, y}\\\"\",\n  \"b\": 2\n}\n", "{\n  \"a\": 1,\n  \"b\": 2\n}\n"),
      ("{\n  \"_name_or_path\": null,\n  \"b\": 2\n}", "{\n  \"b\": 2\n}"),
      ("{\n  \"a\": 1 ,\n  \"_name_or_path\": [1, {\"dtype\": \"float32\"}]\n}", "{\n  \"a\": 1 \n}"),
      (
        #"{"text_config": {"_name_or_path": "x"}, "a": "_name_or_path"}"#,
        #"{"text_config": {"_name_or_path": "x"}, "a": "_name_or_path"}"#
      ),
      (#"{"_name\u005for_path": "x", "a": 1}"#, #"{"a": 1}"#),
      (#"{"dtype": "float32", "_name_or_path": "x"}"#, #"{"dtype": "bfloat16"}"#),
      (#"{"_name_or_path": "x", "dtype": "float32"}"#, #"{"dtype": "bfloat16"}"#),
    ])
  func removesTheFormerName(before: String, after: String) throws { #expect(try edited(before) == after) }

  @Test(
    arguments: [
      "", "{", "[]", "null", "\"dtype\"", "{\"dtype\": \"float32\"", "{\"dtype\": \"float32\",}", "{dtype: \"float32\"}",
      "{\"dtype\": \"float32\", \"dtype\": \"float16\"}", "{\"a\": \"unterminated}", "{\"a\": 1} {}", "{\"a\": NaN}",
    ])
  func refusesWhatIsNoConfig(text: String) {
    expectFailure(.format, "models/b/config.json") { () throws(Failure) in
      _ = try ConfigText.edited(Array(text.utf8), dtype: "bfloat16", source: "models/b/config.json")
    }
  }

  @Test func realConfigsChangeInOneWord() throws {
    for path in ["/goldens/models/inputs/a/config.json", "/digits-vit/base/config.json"] {
      let text = String(decoding: try FileSystem.read(fixtures + path), as: UTF8.self)
      let result = try edited(text, dtype: "float16")
      #expect(result != text)
      #expect(result == replacing(text, #""torch_dtype": ""#, with: "float16"))
    }
  }

  /// Put a word between the opening text and the next quotation mark.
  private func replacing(_ text: String, _ opening: String, with word: String) -> String {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> String in
      guard line.drop(while: { $0 == " " }).hasPrefix(opening) else { return String(line) }
      let comma = line.hasSuffix(",") ? "," : ""
      return String(line.prefix { $0 == " " }) + opening + word + "\"" + comma
    }
    return lines.joined(separator: "\n")
  }

  @Test func deepNestingIsWalked() throws {
    let deep = String(repeating: "[{\"a\":", count: 900) + "1" + String(repeating: "}]", count: 900)
    #expect(try edited("{\"x\": \(deep), \"dtype\": \"float32\"}") == "{\"x\": \(deep), \"dtype\": \"bfloat16\"}")
  }

  /// Nothing that Jansson accepts may lead the scanner astray, however it is cut or changed.
  @Test func survivesNoise() {
    let text = Array(
      #"{"a":[1,{"_name_or_path":"x\\"}],"_name_or_path":"\"y","t_config":{"dtype":"float32"},"dtype":"auto"}"#.utf8)
    var accepted = 0
    for position in text.indices {
      for replacement in Array("\"\\{}[],: 1x".utf8) {
        var broken = text
        broken[position] = replacement
        if (try? ConfigText.edited(broken, dtype: "float16", source: "x")) != nil { accepted += 1 }
      }
    }
    #expect(accepted > 100)
  }
}
