import Testing

@testable import MergeMethods

@Suite struct CounterPoolTests {
  @Test func everyUserHasAPageOfItsOwnAndAllAreSummed() {
    let pool = CounterPool(count: 4)
    pool.use { first in
      #expect((0..<4).allSatisfy { first[$0] == 0 })
      first[1] += 5
      pool.use { second in
        #expect(first != second && second[1] == 0)
        second[1] += 7
        second[3] += 1
      }
    }
    // A page that was given back is lent again, with what it holds.
    pool.use { $0[0] += 1 }
    func drained() -> [UInt64] {
      var sum = [UInt64](repeating: 0, count: 4)
      pool.drain { page in for i in 0..<4 { sum[i] += page[i] } }
      return sum
    }
    #expect(drained() == [1, 12, 0, 1])
    #expect(drained() == [0, 0, 0, 0])
  }
}
