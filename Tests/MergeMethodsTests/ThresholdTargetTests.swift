import Testing

@testable import MergeMethods

@Suite struct ThresholdTargetTests {
  @Test func ofTheTiesAllNoneOrAFewStay() {
    for (ties, kept) in [(ThresholdTarget.Ties.all, 3), (.none, 0), (.fill, 2)] {
      let found = FoundThreshold(value: 3, above: 1, equal: 3, target: ThresholdTarget(rank: 3, ties: ties))
      #expect(found.keptTies == kept)
    }
  }
}
