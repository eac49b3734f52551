import Testing

@testable import LinearAlgebra

@Suite struct OrderStatisticTests {
  @Test func itIsTheSortedPosition() {
    var random = SplitMix64(state: 150)
    for count in [1, 2, 3, 10, 257] {
      for spread in [1.0, 4.0, 1e9] {
        // Rounded: many equals.
        let values = random.values(count).map { ($0 * spread).rounded() }
        let sorted = values.sorted()
        for k in Set([0, count / 3, count / 2, count - 1]) {
          var copy = values
          #expect(OrderStatistic.smallest(k, of: &copy, count: count) == sorted[k])
          #expect(copy.sorted() == sorted)
        }
      }
    }
  }

  @Test func sortedAndEqualListsAreNotSlow() {
    let count = isOptimised ? 1_000_000 : 20_000
    for list in [[Double](repeating: 1, count: count), (0..<count).map(Double.init), (0..<count).map { -Double($0) }] {
      var copy = list
      #expect(OrderStatistic.smallest(count / 2, of: &copy, count: count) == list.sorted()[count / 2])
    }
  }

  private func dropped(_ drop: Int, _ values: [Double]) -> ([Double], Double) {
    var copy = values
    var scratch = [Double](repeating: 0, count: values.count)
    let lost = OrderStatistic.dropSmallest(drop, of: &copy, count: values.count, scratch: &scratch)
    return (copy, lost)
  }

  @Test func theSmallestGoAndOfEqualsTheFirst() {
    let values = [3.0, -1, 1, -2, 1, 5]
    #expect(dropped(0, values) == (values, 0))
    #expect(dropped(1, values) == ([3, 0, 1, -2, 1, 5], 1))
    #expect(dropped(2, values) == ([3, 0, 0, -2, 1, 5], 2))
    #expect(dropped(4, values) == ([3, 0, 0, 0, 0, 5], 7))
    #expect(dropped(6, values) == ([0, 0, 0, 0, 0, 0], 41))
    #expect(dropped(9, values) == ([0, 0, 0, 0, 0, 0], 41))
    #expect(dropped(-1, values) == (values, 0))
    #expect(dropped(2, [0, 0, 0]) == ([0, 0, 0], 0))
    #expect(dropped(1, []) == ([], 0))
  }

  @Test func theResultIsThatOfAStableSort() {
    var random = SplitMix64(state: 151)
    for _ in 0..<50 {
      let values = random.values(40).map { ($0 * 6).rounded() }
      let drop = Int((random.signed() + 1) * 20)
      let order = values.indices.sorted { (values[$0].magnitude, $0) < (values[$1].magnitude, $1) }
      var want = values
      for i in order[..<drop] { want[i] = 0 }
      #expect(dropped(drop, values).0 == want)
    }
  }
}
