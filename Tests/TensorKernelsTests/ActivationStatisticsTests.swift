import Testing

@testable import TensorKernels

@Suite struct ActivationStatisticsTests {
  private struct Measured {
    var rows = 0
    var means: [Double]
    var deviations: [Double]

    init(channels: Int) {
      means = [Double](repeating: 0, count: channels)
      deviations = means
    }
  }

  /// Measure elements that lie as [outer, channels, inner].
  private func measure(_ values: [Double], _ dtype: DType, shape: [Int], axis: Int) -> Measured {
    let layout = ActivationStatistics.Layout(shape: shape, channelAxis: axis)
    let source = GuardedBytes(count: values.count * dtype.size, fill: 0xFF)
    source.store(values, as: dtype)
    let means = GuardedBytes(count: layout.channels * 8)
    let deviations = GuardedBytes(count: layout.channels * 8)
    let workspace = GuardedBytes(count: ActivationStatistics.workspaceBytes)
    ActivationStatistics.measure(
      UnsafeRawPointer(source.start), dtype, layout, means: means.start.assumingMemoryBound(to: Double.self),
      deviations: deviations.start.assumingMemoryBound(to: Double.self), workspace: workspace.start)
    #expect(means.isIntact && deviations.isIntact && workspace.isIntact)
    var result = Measured(channels: layout.channels)
    (result.rows, result.means, result.deviations) = (layout.rows, means.values(as: .f64), deviations.values(as: .f64))
    return result
  }

  private func merge(_ first: Measured, _ second: Measured) -> Measured {
    var result = first
    ActivationStatistics.merge(
      &result.means, &result.deviations, rows: first.rows, with: second.means, second.deviations, rows: second.rows,
      channels: second.means.count)
    result.rows += second.rows
    return result
  }

  /// Mean and squared deviations of a column, as if in twice the precision of binary64.
  private func accurate(_ column: [Double]) -> (mean: Double, deviations: Double) {
    let ones = [Double](repeating: 1, count: column.count)
    let mean = accurateDot(column, ones) / Double(column.count)
    let differences = column.map { $0 - mean }
    let rest = accurateDot(differences, ones)
    return (mean, accurateDot(differences, differences) - rest * rest / Double(column.count))
  }

  /// Does it agree with the columns of `values` within the bounds of the kernel's page?
  private func expectClose(_ found: Measured, _ columns: [[Double]], merges: Int, _ comment: String) {
    for (c, column) in columns.enumerated() {
      let expected = accurate(column)
      let count = Double(column.count)
      let largest = column.reduce(0) { max($0, $1.magnitude) }
      let unit = Double(66 + merges) * 0x1p-53
      #expect((found.means[c] - expected.mean).magnitude <= unit * largest, "mean \(c), \(comment)")
      let deviation = (expected.deviations / count).squareRoot()
      let condition = deviation > 0 ? expected.mean.magnitude / deviation : 0
      let bound = unit * (1 + condition) * expected.deviations
      #expect((found.deviations[c] - expected.deviations).magnitude <= bound, "deviations \(c), \(comment)")
      let moment = accurateDot(column, column) / count
      let foundMoment = found.deviations[c] / count + found.means[c] * found.means[c]
      #expect((foundMoment - moment).magnitude <= 3 * unit * moment, "second moment \(c), \(comment)")
    }
  }

  @Test(arguments: floatTypes, [(1, 1), (1, 300), (63, 5), (64, 128), (65, 129), (200, 17)])
  func columnsAgreeWithAnAccurateSum(dtype: DType, size: (rows: Int, channels: Int)) {
    var random = SplitMix64(state: 31)
    let format = GuardedBytes(count: size.rows * size.channels * dtype.size)
    // Rounded into the type first, so that the expectation sees what the kernel sees.
    format.store((0..<size.rows * size.channels).map { Double($0 % size.channels) * 0.1 + random.signed() }, as: dtype)
    let values = format.values(as: dtype)
    let found = measure(values, dtype, shape: [size.rows, size.channels], axis: 1)
    let columns = (0..<size.channels).map { c in (0..<size.rows).map { values[$0 * size.channels + c] } }
    expectClose(found, columns, merges: (size.rows + 63) / 64, "\(dtype) \(size)")
  }

  @Test(arguments: [[3, 5, 7, 2], [1, 130, 9], [4, 3, 64], [2, 1, 65], [5, 2, 1]])
  func theAxisDoesNotMatter(shape: [Int]) {
    var random = SplitMix64(state: 32)
    let (outer, channels) = (shape[0], shape[1])
    let inner = shape[2...].reduce(1, *)
    let values = random.values(outer * channels * inner)
    var moved = values
    for o in 0..<outer {
      for c in 0..<channels {
        for i in 0..<inner { moved[(o * inner + i) * channels + c] = values[(o * channels + c) * inner + i] }
      }
    }
    let first = measure(values, .f64, shape: shape, axis: 1)
    let last = measure(moved, .f64, shape: [outer, inner, channels], axis: 2)
    #expect(first.means == last.means && first.deviations == last.deviations && first.rows == last.rows)
    let front = measure(Array(moved), .f64, shape: [outer * inner, channels], axis: 1)
    #expect(front.means == last.means)
  }

  @Test func aChannelDoesNotSeeTheOthers() {
    var random = SplitMix64(state: 33)
    let values = random.values(150 * 200)
    let all = measure(values, .f64, shape: [150, 200], axis: 1)
    for c in [0, 127, 128, 199] {
      let alone = measure((0..<150).map { values[$0 * 200 + c] }, .f64, shape: [150, 1], axis: 1)
      #expect(alone.means[0] == all.means[c] && alone.deviations[0] == all.deviations[c])
    }
  }

  @Test func aConstantChannelIsExact() {
    for value in [0.1, -1e300, 3e-320, 0] {
      let found = measure([Double](repeating: value, count: 1000), .f64, shape: [1000, 1], axis: 1)
      #expect(found.means[0] == value && found.deviations[0] == 0)
      #expect(merge(found, found).means[0] == value && merge(found, found).deviations[0] == 0)
    }
  }

  @Test func aLargeMeanLeavesTheVariance() {
    // Condition 1e9: an uncentred sum of squares would have no correct digit of the variance.
    var random = SplitMix64(state: 34)
    let values = (0..<1280).map { _ in 1e6 + 1e-3 * random.signed() }
    expectClose(measure(values, .f64, shape: [1280, 1], axis: 1), [values], merges: 20, "mean 1e6, deviation 6e-4")
  }

  @Test func cutsAndOrderChangeRoundingOnly() {
    var random = SplitMix64(state: 35)
    let values = random.values(900 * 3)
    let columns = (0..<3).map { c in (0..<900).map { values[$0 * 3 + c] } }
    for cuts in [[0, 900], [0, 1, 900], [0, 64, 128, 900], [0, 100, 377, 500, 900]] {
      let parts = zip(cuts, cuts.dropFirst()).map {
        measure(Array(values[$0 * 3..<$1 * 3]), .f64, shape: [$1 - $0, 3], axis: 1)
      }
      let merges = 15 + 2 * parts.count
      expectClose(parts.reduce(Measured(channels: 3), merge), columns, merges: merges, "cut at \(cuts)")
      expectClose(parts.reversed().reduce(Measured(channels: 3), merge), columns, merges: merges, "reversed \(cuts)")
    }
  }

  @Test func mergingWithNothingChangesNoBit() {
    var random = SplitMix64(state: 36)
    let found = measure(random.values(70 * 4), .f64, shape: [70, 4], axis: 1)
    let nothing = measure([], .f64, shape: [0, 4], axis: 1)
    #expect(nothing.rows == 0 && nothing.means == [0, 0, 0, 0] && nothing.deviations == [0, 0, 0, 0])
    for merged in [merge(found, nothing), merge(nothing, found)] {
      #expect(merged.means == found.means && merged.deviations == found.deviations && merged.rows == 70)
    }
  }

  @Test(arguments: [Double.nan, .infinity, -.infinity], [0, 1, 63, 64, 99])
  func whatIsNotFiniteShowsInItsChannelOnly(value: Double, row: Int) {
    var values = [Double](repeating: 1, count: 200)
    values[row * 2 + 1] = value
    let found = measure(values, .f32, shape: [100, 2], axis: 1)
    #expect(found.means[0] == 1 && found.deviations[0] == 0)
    #expect(!found.means[1].isFinite)
  }

  @Test func layouts() {
    let layout = ActivationStatistics.Layout(shape: [2, 3, 4, 5], channelAxis: 1)
    #expect((layout.outer, layout.channels, layout.inner, layout.rows) == (2, 3, 20, 40))
    #expect(ActivationStatistics.Layout(shape: [7], channelAxis: 0).rows == 1)
    #expect(ActivationStatistics.Layout(shape: [0, 7], channelAxis: 1).rows == 0)
  }
}
