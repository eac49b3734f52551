import Testing

@testable import MergeMethods

@Suite struct TieCellsTests {
  @Test func aTieIsFoundInItsCell() {
    let cells = TieCells(models: 2, elements: 4 * 65536 + 1)
    #expect(cells.cells == 5 && cells.models == 2)
    for (i, count) in [0, 3, 0, 2, 1, 9, 0, 0, 0, 0].enumerated() { cells.counts[i] = count }
    #expect(cells.total(0) == 6 && cells.total(1) == 9)
    let places = (1...6).map { cells.cell(0, rank: $0) }
    #expect(places.map(\.cell) == [1, 1, 1, 3, 3, 4] && places.map(\.rank) == [1, 2, 3, 1, 2, 1])
    #expect(cells.cell(1, rank: 9) == (0, 9))
    #expect(TieCells(models: 1, elements: 0).cells == 1 && TieCells(models: 1, elements: 65536).cells == 1)
  }
}
