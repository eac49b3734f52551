import Checkpoints
import JSON
import MergeEngine
import Platform
import TensorKernels
import Testing

@Suite struct LayerStatisticsTests {
  private func add(
    _ name: String, _ values: [Double], shape: [Int], axis: Int = -1, to statistics: LayerStatistics
  ) throws(Failure) {
    let result = values.withUnsafeBytes { raw in
      Result { () throws(Failure) in
        try statistics.update(
          name, raw.baseAddress ?? UnsafeRawPointer(bitPattern: 64)!, .f64, shape: shape, channelAxis: axis)
      }
    }
    try result.get()
  }

  private func values(_ name: String, _ statistics: LayerStatistics) -> [Double] {
    statistics.layer(name).map { statistics.values($0) } ?? []
  }

  @Test func bothStatistics() throws {
    let moment = LayerStatistics(.secondMoment)
    let variance = LayerStatistics(.variance)
    for statistics in [moment, variance] {
      try add("w", [1, 10, 3, 10], shape: [2, 2], to: statistics)
      try add("w", [5, 10], shape: [2], to: statistics)
    }
    // Columns 1, 3, 5 and 10, 10, 10: every step is exact.
    #expect(values("w", moment).map { Float($0) } == [Float(35.0 / 3), 100])
    #expect(values("w", variance) == [4, 0])
    #expect(moment.layer("w")?.rows == 3)
  }

  @Test func oneRowHasNoVariance() throws {
    let variance = LayerStatistics(.variance)
    try add("w", [7, -2], shape: [2], to: variance)
    #expect(values("w", variance) == [0, 0])
  }

  @Test func theChannelAxisCountsFromBothEnds() throws {
    let statistics = LayerStatistics(.secondMoment)
    for (i, axis) in [1, -2].enumerated() {
      try add("w\(i)", [1, 2, 3, 4, 5, 6], shape: [1, 3, 2], axis: axis, to: statistics)
      #expect(values("w\(i)", statistics) == [2.5, 12.5, 30.5])
    }
  }

  @Test func namesAreOrderedByTheirBytes() throws {
    let statistics = LayerStatistics(.secondMoment)
    for name in ["b", "a.2", "a.10", "é", "B"] { try add(name, [1], shape: [1], to: statistics) }
    #expect(statistics.names == ["B", "a.10", "a.2", "b", "é"])
  }

  @Test(arguments: [([1, 2, .nan], Status.nonFinite), ([1, .infinity, 3], .nonFinite), ([1e200, 1, 1], .nonFinite)])
  func whatCannotBeAddedChangesNothing(row: [Double], status: Status) throws {
    let statistics = LayerStatistics(.variance)
    try add("known", [1, 2, 3, 4, 5, 6], shape: [2, 3], to: statistics)
    let before = statistics.layer("known")
    for name in ["known", "new"] {
      let failure = #expect(throws: Failure.self) { try add(name, row, shape: [1, 3], to: statistics) }
      #expect(failure?.status == status && failure?.message.contains("'\(name)'") == true)
    }
    #expect(statistics.layer("known") == before && statistics.names == ["known"])
  }

  @Test func theFirstBadElementIsNamed() throws {
    let statistics = LayerStatistics(.variance)
    let failure = #expect(throws: Failure.self) {
      try add("w", [1, 2, 3, .nan, .nan, 6], shape: [2, 3], to: statistics)
    }
    #expect(failure?.message.contains("2 NaN") == true && failure?.message.contains("element 3") == true)
  }

  @Test func wrongArgumentsAreRefused() throws {
    let statistics = LayerStatistics(.secondMoment)
    try add("w", [1, 2], shape: [2], to: statistics)
    func status(_ body: () throws(Failure) -> Void) -> Status? {
      do throws(Failure) { try body() } catch { return error.status }
      return nil
    }
    #expect(status { () throws(Failure) in try add("w", [1], shape: [], to: statistics) } == .shape)
    #expect(status { () throws(Failure) in try add("w", [1], shape: [1], to: statistics) } == .shape)
    #expect(status { () throws(Failure) in try add("v", [], shape: [3, 0], to: statistics) } == .shape)
    #expect(status { () throws(Failure) in try add("w", [1, 2], shape: [2], axis: 1, to: statistics) } == .argument)
    #expect(status { () throws(Failure) in try add("w", [1, 2], shape: [2], axis: -2, to: statistics) } == .argument)
    #expect(status { () throws(Failure) in try add("", [1], shape: [1], to: statistics) } == .argument)
    #expect(status { () throws(Failure) in try add("__metadata__", [1], shape: [1], to: statistics) } == .argument)
    #expect(status { () throws(Failure) in try statistics.merge(statistics) } == .argument)
    let number: [Int64] = [1]
    #expect(
      status { () throws(Failure) in try statistics.update("v", number, .i64, shape: [1], channelAxis: 0) } == .dtype)
    for (rows, means, deviations, expected) in [
      (0, [1.0], [1.0], Status.argument), (1 << 53 + 1, [1], [1], .argument), (1, [.nan], [1], .nonFinite),
      (1, [1], [-1], .nonFinite), (1, [], [], .shape),
    ] {
      #expect(
        status { () throws(Failure) in try statistics.add("v", rows: rows, means: means, deviations: deviations) } == expected)
    }
    try statistics.add("v", rows: 1 << 53, means: [1], deviations: [0])
    #expect(status { () throws(Failure) in try add("v", [1], shape: [1], to: statistics) } == .argument)
    #expect(values("w", statistics) == [1, 4])
  }

  @Test func namesThatOnlyLookAlikeAreRefused() throws {
    let statistics = LayerStatistics(.secondMoment)
    try add("caf\u{E9}", [1], shape: [1], to: statistics)
    let failure = #expect(throws: Failure.self) { try add("cafe\u{301}", [1], shape: [1], to: statistics) }
    #expect(failure?.status == .argument)
  }

  @Test func anArrayWithoutRowsAddsNothing() throws {
    let statistics = LayerStatistics(.secondMoment)
    try add("w", [], shape: [0, 3], to: statistics)
    #expect(statistics.names.isEmpty)
    try add("w", [1, 2, 3], shape: [3], to: statistics)
    try add("w", [], shape: [5, 0, 3], to: statistics)
    #expect(statistics.layer("w")?.rows == 1)
    let failure = #expect(throws: Failure.self) { try add("w", [], shape: [0, 4], to: statistics) }
    #expect(failure?.status == .shape)
  }

  @Test func mergingAddsAllLayersOrNone() throws {
    let (first, second) = (LayerStatistics(.secondMoment), LayerStatistics(.variance))
    try add("a", [1, 2], shape: [2, 1], to: first)
    try add("b", [1, 2], shape: [2, 1], to: first)
    try add("a", [3], shape: [1], to: second)
    try add("c", [4], shape: [1], to: second)
    try first.merge(second)
    #expect(first.names == ["a", "b", "c"] && first.layer("a")?.rows == 3 && second.layer("a")?.rows == 1)
    #expect(first.layer("c") == second.layer("c") && first.layer("a")?.means == [2])
    let third = LayerStatistics(.secondMoment)
    try add("a", [9], shape: [1], to: third)
    try add("b", [9, 9], shape: [2], to: third)
    let failure = #expect(throws: Failure.self) { try first.merge(third) }
    #expect(failure?.status == .shape && first.layer("a")?.rows == 3)
  }

  @Test func stateCarriesEveryBit() throws {
    var random = Generator(41)
    let (first, copy) = (LayerStatistics(.secondMoment), LayerStatistics(.secondMoment))
    try add("w", (0..<700).map { _ in random.next() }, shape: [100, 7], to: first)
    let layer = first.layer("w")!
    try copy.add("w", rows: layer.rows, means: layer.means, deviations: layer.deviations)
    #expect(copy.layer("w") == layer)
  }

  @Test func theFileHoldsTheStatisticAndWhatItIs() throws {
    let folder = TemporaryFolder()
    let statistics = LayerStatistics(.variance)
    try add("b", [1, 10, 3, 10, 5, 10], shape: [3, 2], to: statistics)
    try add("a", [1, 2], shape: [2, 1], to: statistics)
    try statistics.save(folder("s.safetensors"), overwrite: false)
    let file = try Checkpoint(path: folder("s.safetensors"))
    #expect(file.tensors.map(\.name) == ["a", "b"] && file.tensors.allSatisfy { $0.dtype == .f32 })
    #expect(file.tensors.map(\.shape) == [[1], [2]])
    let metadata = Dictionary(uniqueKeysWithValues: file.metadata.map { ($0.key, $0.value) })
    #expect(metadata["format"] == "stockpot.layer_statistics" && metadata["version"] == "1")
    #expect(metadata["statistic"] == "variance" && metadata["counts"] == #"{"a":2,"b":3}"#)
    var read = [Float](repeating: -1, count: 2)
    try read.withUnsafeMutableBytes { raw in try file.read(file.tensors[1], bytes: 0..<8, into: raw.baseAddress!) }
    #expect(read == [4, 0])

    #expect(#expect(throws: Failure.self) { try statistics.save(folder("s.safetensors"), overwrite: false) }?.status == .exists)
    try statistics.save(folder("s.safetensors"), overwrite: true)
    #expect(#expect(throws: Failure.self) { try statistics.save(folder("s"), overwrite: false) }?.status == .argument)
    let empty = LayerStatistics(.variance)
    #expect(#expect(throws: Failure.self) { try empty.save(folder("e.safetensors"), overwrite: false) }?.status == .argument)
  }

  @Test func aStatisticBeyondF32IsNotSaved() throws {
    let folder = TemporaryFolder()
    let statistics = LayerStatistics(.secondMoment)
    try add("w", [1, 1e30], shape: [2], to: statistics)
    let failure = #expect(throws: Failure.self) { try statistics.save(folder("s.safetensors"), overwrite: false) }
    #expect(failure?.status == .nonFinite && failure?.message.contains("channel 1") == true)
    #expect(!FileSystem.exists(folder("s.safetensors")))
  }
}
