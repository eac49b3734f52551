import Testing

@testable import Checkpoints

@Suite struct NamesTests {
  @Test(arguments: [
    ["a", "b"], ["b", "a"], ["b", "", "a"], ["layer.10", "layer.2", "layer.1", "layer", "layer.1.x"],
    ["é", "z", "e", "\u{1F600}", "\u{FFFD}"], [],
  ]) func sortsByBytes(names: [String]) {
    let expected = names.map { Array($0.utf8) }.sorted { $0.lexicographicallyPrecedes($1) }
    #expect(sortedByName(names) { $0 }.map { Array($0.utf8) } == expected)
  }

  @Test func equalNamesStayInTheirOrder() {
    let items = (0..<100).map { (name: "n\($0 * 7 % 10)", number: $0) }
    let sorted = sortedByName(items) { $0.name }
    for (first, second) in zip(sorted, sorted.dropFirst()) {
      #expect(first.name < second.name || first.name == second.name && first.number < second.number)
    }
  }
}
