import JSON
import Platform
import Testing

@testable import MergeEngine

@Suite struct RowMapTests {
  private func map(_ text: String, input: Int = 0, heights: [Int?] = [4, 6]) throws -> RowMap {
    let vocabulary = try Vocabulary(try JSON.parse(text, source: "vocabulary"))
    let paths = ["a", "b"]
    return try RowMap(
      vocabulary, runs: vocabulary.rows.first { $0.model == paths[input] }?.runs, input: input, tensor: "embed",
      heights: heights,
      paths: paths, find: { paths.firstIndex(of: $0) })
  }

  private func rows(_ input: Int, _ first: Int) -> RowMap.Source { .rows(.init(input: input, first: first)) }

  @Test func rowsInTheirPlacesAreTheIdentity() throws {
    let identity = try map(#"{"size": 4}"#)
    #expect(identity.segments == [.init(first: 0, count: 4, source: rows(0, 0))])
    #expect(identity.isIdentity(input: 0, height: 4))
    #expect(!identity.isIdentity(input: 0, height: 5))
    #expect(!identity.isIdentity(input: 1, height: 4))
    #expect(!identity.hasMeans)
  }

  @Test func aForcedFillCutsARunAndAnotherFillsTheGap() throws {
    let made = try map(
      #"{"size": 8, "padding": 1, "rows": {"a": [[0, 0, 4]]}, "fill": [{"row": 1, "count": 2, "from": [["b", 3]], "force": true}, "#
        + #"{"row": 3, "count": 3, "from": [["b", 0]]}, {"row": 6, "from": []}]}"#)
    #expect(
      made.segments == [
        .init(first: 0, count: 1, source: rows(0, 0)), .init(first: 1, count: 2, source: rows(1, 3)),
        .init(first: 3, count: 1, source: rows(0, 3)), .init(first: 4, count: 2, source: rows(1, 1)),
        .init(first: 6, count: 1, source: .zero), .init(first: 7, count: 1, source: .padding),
      ])
    #expect(made.inputs == [0, 1])
    #expect(made.hasMeans)
    let counts = made.counts(input: 0)
    #expect([counts.own, counts.filled, counts.zero, counts.padding] == [2, 4, 1, 1])
    #expect((0..<8).map { made.segment(of: $0) } == [0, 1, 1, 2, 3, 3, 4, 5])
  }

  @Test func neighboursAreJoinedOnlyWhereRowsGoOn() throws {
    let made = try map(#"{"size": 4, "rows": {"a": [[0, 0, 1], [1, 1, 1], [2, 3, 1], [3, 2, 1]]}}"#)
    #expect(made.segments.map(\.count) == [2, 1, 1])
  }

  @Test func aMeanNamesItsRows() throws {
    let made = try map(#"{"size": 5, "fill": [{"row": 4, "from": [["a", 0], ["b", 5]]}]}"#)
    #expect(made.segments.last?.source == .mean([.init(input: 0, first: 0), .init(input: 1, first: 5)]))
  }

  @Test(
    arguments: [
      (#"{"size": 5}"#, "comes from nowhere"), (#"{"size": 4, "rows": {"a": [[0, 1, 4]]}}"#, "takes row 4"),
      (#"{"size": 5, "fill": [{"row": 4, "from": [["c", 0]]}]}"#, "c, which is not one"),
      (#"{"size": 5, "fill": [{"row": 4, "from": [["b", 6]]}]}"#, "takes row 6"),
    ])
  func refusesRowsThatDoNotExist(text: String, words: String) throws {
    let failure = #expect(throws: Failure.self) { try map(text) }
    #expect(failure?.message.contains(words) == true)
  }

  @Test func refusesRowsOfAnInputWithoutTheTensor() throws {
    let text = #"{"size": 5, "fill": [{"row": 4, "from": [["b", 0]]}]}"#
    let failure = #expect(throws: Failure.self) { try map(text, heights: [4, nil]) }
    #expect(failure?.message.contains("no such tensor") == true)
  }
}
