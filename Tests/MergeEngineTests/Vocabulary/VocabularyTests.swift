import JSON
import Platform
import Testing

@testable import MergeEngine

@Suite struct VocabularyTests {
  private func vocabulary(_ text: String) throws -> Vocabulary { try Vocabulary(try JSON.parse(text, source: "vocabulary")) }

  @Test func readsAllOfItInTheOrderOfTheRows() throws {
    let read = try vocabulary(
      #"{"size": 10, "padding": 1, "rows": {"a": [[4, 0, 2], [0, 2, 3]]}, "tensors": ["x"], "files": "f", "notes": ["n"], "#
        + #""fill": [{"row": 8, "from": []}, {"row": 3, "count": 1, "from": [["a", 7], ["b", 0]], "force": true}]}"#)
    #expect(read.size == 10)
    #expect(read.padding == 1)
    #expect(read.rows[0].runs == [.init(output: 0, stored: 2, count: 3), .init(output: 4, stored: 0, count: 2)])
    #expect(read.fills.map(\.output) == [3, 8])
    #expect(read.fills[0] == .init(output: 3, count: 1, from: [("a", 7), ("b", 0)], isForced: true))
    #expect(read.tensors == ["x"])
    #expect(read.notes == ["n"])
    #expect(read.json["files"] == nil)
  }

  @Test(
    arguments: [
      "[]", "{}", #"{"size": -1}"#, #"{"size": 1.5}"#, #"{"size": 4, "padding": 4}"#, #"{"size": 4, "rows": []}"#,
      #"{"size": 4, "rows": {"a": [[0, 0, 0]]}}"#, #"{"size": 4, "rows": {"a": [[0, 0, 5]]}}"#,
      #"{"size": 4, "padding": 1, "rows": {"a": [[0, 0, 4]]}}"#, #"{"size": 4, "rows": {"a": [[0, 0, 2], [1, 0, 1]]}}"#,
      #"{"size": 4, "rows": {"a": [[9223372036854775807, 0, 1]]}}"#,
      #"{"size": 4, "rows": {"a": [[0, 9223372036854775807, 1]]}}"#, #"{"size": 4, "fill": {}}"#,
      #"{"size": 4, "fill": [{"from": []}]}"#, #"{"size": 4, "fill": [{"row": 4, "from": []}]}"#,
      #"{"size": 4, "fill": [{"row": 9223372036854775807, "count": 2, "from": []}]}"#,
      #"{"size": 4, "fill": [{"row": 0, "from": [["a"]]}]}"#, #"{"size": 4, "tensors": []}"#, #"{"size": 4, "files": ""}"#,
      #"{"size": 4, "unknown": 1}"#,
    ])
  func refusesWhatCannotBe(text: String) throws {
    let failure = #expect(throws: Failure.self) { try vocabulary(text) }
    #expect(failure?.status == .recipe)
    #expect(failure?.message.contains("vocabulary") == true)
  }

  @Test func aTokenizerSectionAloneSaysWhoReadsIt() throws {
    for key in ["tokenizer", "tokenizer_source"] {
      let failure = #expect(throws: Failure.self) { try Vocabulary.section(of: .object([.init(key: key, value: "union")])) }
      #expect(failure?.message.contains("stockpot.merge") == true)
      #expect(failure?.message.contains("'vocabulary'") == true)
    }
    #expect(try Vocabulary.section(of: ["tokenizer": nil]) == nil)
  }

  @Test func aVocabularyThatWasMadeIsNoPartOfTheRecipe() {
    let made: JSON = ["tokenizer_source": "union", "vocabulary": ["size": 3]]
    #expect(Vocabulary.withoutMade(made) == ["tokenizer_source": "union"])
    let given: JSON = ["vocabulary": ["size": 3]]
    #expect(Vocabulary.withoutMade(given) == given)
  }
}
