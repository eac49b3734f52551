import Platform
import Testing

@testable import Checkpoints

@Suite struct ChatTemplateTests {
  private let literal = "{{ messages | length }} messages"

  private func files(_ current: [String: String]) throws -> [String: String] {
    let files = try ChatTemplate.files(setting: literal) { (name) throws(Failure) in current[name].map { Array($0.utf8) } }
    return Dictionary(uniqueKeysWithValues: files.map { ($0.name, String(decoding: $0.bytes, as: UTF8.self)) })
  }

  @Test func namesAndTextsAreTold() throws {
    #expect(ChatTemplate.named.keys.sorted() == ["alpaca", "chatml", "exaone", "llama3", "mistral"])
    #expect(try ChatTemplate.text("chatml") == ChatTemplate.named["chatml"])
    #expect(try ChatTemplate.text(literal) == literal)
    for value in ["", "vicuna", "{{ short }}", "a text without any brace at all"] {
      let failure = #expect(throws: Failure.self) { try ChatTemplate.text(value) }
      #expect(failure?.status == .recipe)
    }
  }

  @Test func itIsSetWhereOneIs() throws {
    #expect(try files([:]) == ["chat_template.jinja": literal])
    #expect(try files(["tokenizer_config.json": "{}"]) == ["chat_template.jinja": literal])
    #expect(try files(["chat_template.jinja": "old"]) == ["chat_template.jinja": literal])
    #expect(
      try files(["tokenizer_config.json": #"{"chat_template": "old", "n": 1}"#])
        == ["tokenizer_config.json": #"{"chat_template": "{{ messages | length }} messages", "n": 1}"#])
    #expect(try files(["chat_template.jinja": "old", "tokenizer_config.json": #"{"chat_template": 1}"#]).count == 2)
    #expect(try files(["chat_template.json": #"{"chat_template": 1}"#]).keys.sorted() == ["chat_template.json"])
  }

  @Test func theCommonestIsFoundWithoutItsSpaces() throws {
    let folder = try TemporaryFolder()
    for (name, file, text) in [
      ("a", "chat_template.jinja", "one"), ("b", "chat_template.jinja", " two\n"),
      (
        "c", "tokenizer_config.json",
        #"{"chat_template": [{"name": "x", "template": "y"}, {"name": "default", "template": "two"}]}"#
      ),
      ("d", "tokenizer_config.json", "{}"),
    ] {
      try FileSystem.makeFolder(folder.path + "/" + name)
      try FileSystem.write(text, to: folder.path + "/" + name + "/" + file)
    }
    let paths = ["a", "b", "c", "d"].map { folder.path + "/" + $0 }
    #expect(try ChatTemplate.commonest(in: paths) == "two")
    #expect(try ChatTemplate.commonest(in: Array(paths[..<2])) == "one")
    #expect(try ChatTemplate.commonest(in: [paths[3]]) == nil)
  }
}
