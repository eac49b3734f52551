import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct GroupThresholdsTests {
  private func pattern(_ value: Double) -> UInt64 { UInt64(Float(value).bitPattern) }

  private func sample(_ values: [Double]) -> MagnitudeSample {
    let memory = [Memory([Double](repeating: 0, count: values.count), .f64), Memory(values, .f64)]
    let workspace = Memory([], .f64, room: KernelGeometry.workspaceBytes(rows: 2) / 8, fill: 0)
    let sample = MagnitudeSample(models: 1, elements: values.count)
    let table = memory.map { UnsafeRawPointer($0.start) }
    table.withUnsafeBufferPointer { table in
      let inputs = KernelInputs(table: table.baseAddress!, count: 2, dtype: .f64)
      for range in sample.ranges ?? [0..<values.count] {
        _ = TaskVectors(filters: [TaskVectorFilter()], narrow: true).addSample(
          TaskVectorBlock(
            inputs: inputs, from: range.lowerBound, count: range.count, start: range.lowerBound, workspace: workspace.start),
          to: sample)
      }
    }
    return sample
  }

  /// Count what the stage asks for, one by one.
  /// - Returns: the sweep's number; nil: nothing is asked for.
  private func count(_ values: [Double], for group: GroupThresholds) -> Int? {
    guard case .counting(let number, let brackets) = group.stage, let bracket = brackets[0] else { return nil }
    var counts = [UInt64](repeating: 0, count: bracket.counters)
    for pattern in values.map({ pattern($0.magnitude) }) where pattern >= bracket.low {
      let place = pattern - bracket.low
      let half = 2 * Int(place >> UInt64(bracket.shift)) + (place % (1 << UInt64(bracket.shift)) == 0 ? 0 : 1)
      counts[pattern > bracket.high ? 0 : 1 + half] += 1
    }
    counts.withUnsafeBufferPointer { group.add($0.baseAddress!) }
    return number
  }

  private func found(_ group: GroupThresholds) -> FoundThreshold? {
    if case .found(let found) = group.stage { found[0] } else { nil }
  }

  /// The search over tensors, of which only `left` are there after they have been sampled.
  private func search(_ tensors: [[Double]], left: [Int]? = nil, share: Double) -> (found: FoundThreshold?, sweeps: Int) {
    func targets(_ elements: Int) -> [ThresholdTarget?] {
      [ThresholdTarget(rank: max(1, Int(share * Double(elements))), ties: .fill)]
    }
    let group = GroupThresholds(density: [share])
    for tensor in tensors { group.add(sample(tensor), elements: tensor.count) }
    for _ in tensors { group.aim(targets) }
    let there = (left ?? Array(tensors.indices)).map { tensors[$0] }
    var sweeps = 0
    while let number = there.compactMap({ count($0, for: group) }).first, sweeps < 10 {
      // As many callers as tensors, of which the first concludes.
      for _ in there { group.conclude(number) { targets(there.reduce(0) { $0 + $1.count }) } }
      sweeps += 1
    }
    return (found(group), sweeps)
  }

  private func check(_ tensors: [[Double]], left: [Int]? = nil, _ note: Comment) {
    for share in [0.001, 0.2, 0.5, 0.999] {
      let sorted = (left ?? Array(tensors.indices)).flatMap { tensors[$0] }.map(\.magnitude).sorted(by: >)
      let rank = max(1, Int(share * Double(sorted.count)))
      let found = search(tensors, left: left, share: share).found
      #expect(found?.value == sorted[rank - 1], note)
      #expect(found?.above == sorted.count { $0 > sorted[rank - 1] }, note)
      #expect(found?.equal == sorted.count { $0 == sorted[rank - 1] } && found?.target.rank == rank, note)
    }
  }

  private func values(_ count: Int, _ scale: Double, seed: UInt64) -> [Double] {
    var random = SplitMix64(state: seed)
    return (0..<count).map { _ in Double(Float(random.signed() * scale)) }
  }

  @Test func theThresholdIsThatOfAllTensorsSortedTogether() {
    // Above what a sample covers, below it, and nothing.
    check(
      [values(isOptimised ? 40_000 : 3000, 1, seed: 1), values(1000, 8, seed: 2), [], values(7, 0.1, seed: 3)], "three sizes")
    check([[Double](repeating: 0.5, count: 300), [Double](repeating: -0.5, count: 5)], "all equal")
    check([[0, 0, 0], [0, 1]], "few")
  }

  @Test func whatLeavesTheGroupAfterItsSampleDoesNotCount() {
    // Ten times as many, all larger: the brackets are wrong, the result is not.
    check(
      [values(300, 1, seed: 4), values(3000, 1, seed: 5).map { $0 + 100 }, values(200, 2, seed: 6)], left: [0, 2], "one left")
  }

  @Test func magnitudesWithFewBitsTakeOneSweep() {
    // Eighths, as the differences of 16-bit models are multiples of a power of two.
    let tensors = (0..<4).map { values(2000, 16, seed: 10 + $0).map { ($0).rounded() / 8 } }
    for share in [0.2, 0.5, 0.8] { #expect(search(tensors, share: share).sweeps == 1) }
  }

  @Test func aGroupWithoutATargetIsDoneAtOnce() {
    let group = GroupThresholds(density: [1])
    group.add(sample([1, 2, 3]), elements: 3)
    group.aim { _ in [nil] }
    if case .found(let found) = group.stage { #expect(found.count == 1 && found[0] == nil) } else { Issue.record() }
    // Neither is one whose tensors have no elements.
    let empty = GroupThresholds(density: [0.5])
    empty.aim { _ in [ThresholdTarget(rank: 1, ties: .fill)] }
    if case .found(let found) = empty.stage { #expect(found[0] == nil) } else { Issue.record() }
  }

  @Test func tiesOfAGroupStandInTheOrderOfTheNames() {
    let group = GroupThresholds(density: [0.5, 0.5])
    // By bytes: capitals first, accents last, numbers digit by digit.
    for (name, count) in [("b", 1), ("a.10", 10), ("a.2", 100), ("B", 1000), ("é", 10_000)] {
      group.publish(name, ties: [count, 2 * count])
    }
    #expect(group.tiesBefore("B", model: 0) == 0 && group.tiesBefore("a.10", model: 0) == 1000)
    #expect(group.tiesBefore("a.2", model: 0) == 1010 && group.tiesBefore("b", model: 0) == 1110)
    #expect(group.tiesBefore("é", model: 1) == 2 * 1111 && group.tiesBefore("zzzz", model: 0) == 1111)
  }
}
