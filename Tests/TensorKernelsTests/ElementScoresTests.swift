import Testing

@testable import TensorKernels

@Suite struct ElementScoresTests {
  /// What every element scores, from a histogram of whole patterns: one bin per element that is asked for.
  private func isScore(_ value: Double, _ scores: ElementScores, _ inputs: Inputs, count: Int) -> Int {
    let workspace = inputs.workspace
    let cells = GuardedBytes(count: 8)
    cells.store([0])
    scores.addTies(
      inputs.block(count: count, workspace: workspace), value, into: cells.start.assumingMemoryBound(to: Int.self))
    #expect(workspace.isIntact && cells.isIntact)
    return cells.load(as: Int.self)[0]
  }

  private func plain(_ column: [Double], narrow: Bool) -> Double {
    let mean = column.reduce(0) { $0 + ($1 - column[0]) } / Double(column.count)
    let sum = column.reduce(0.0) { $0 + ($1 - column[0] - mean) * ($1 - column[0] - mean) }
    let deviation = (sum / Double(column.count)).squareRoot()
    return narrow ? Double(Float(deviation)) : deviation
  }

  @Test(arguments: [DType.f32, .f64], [true, false]) func deviationsAreCountedAndFound(dtype: DType, narrow: Bool) {
    var random = SplitMix64(state: 12)
    // Four models on a grid of quarters: few values, exact sums.
    let count = 2500
    let inputs = Inputs((0..<5).map { _ in quarters(count, &random) }, dtype)
    let scores = ElementScores(.deviation, models: 4, narrow: narrow)
    let d = inputs.differences
    let expected = (0..<count).map { i in plain(d.map { $0[i] }, narrow: narrow) }
    for value in Set(expected).sorted().prefix(20) {
      #expect(isScore(value, scores, inputs, count: count) == expected.filter { $0 == value }.count, "\(value)")
    }
    let workspace = inputs.workspace
    let level = HistogramLevel(prefix: 0, shift: narrow ? 15 : 47, binBits: 16)
    var bins = [UInt64](repeating: 0, count: 1 << 16)
    var nonZero = 0.0
    let block = inputs.block(count: count, workspace: workspace)
    #expect(scores.addHistograms(block, [level], into: &bins, nonZero: &nonZero) == 0)
    #expect(nonZero == Double(expected.filter { $0 > 0 }.count) && bins.reduce(0, +) == UInt64(count))
    // The third of the elements with the commonest score.
    let common = expected[0]
    var (remaining, found) = (3, 0)
    scores.findTie(block, common, remaining: &remaining, found: &found)
    #expect(found == expected.indices.filter { expected[$0] == common }[2] + 1)
  }

  @Test func equalValuesHaveNoDeviationWhateverTheirSum() {
    // Three times 0.1 is not 0.3.
    let row = [0.1, 0.7, -1.3]
    let inputs = Inputs([[0, 0, 0], row, row, row], .f64)
    #expect(isScore(0, ElementScores(.deviation, models: 3, narrow: false), inputs, count: 3) == 3)
  }

  @Test(arguments: [DType.f32, .f64]) func changesAreWeighedByTheirRow(dtype: DType) {
    let inputs = Inputs([[0, 0, 0, 0, 0, 0], [1, -2, 4, 1, 2, -4]], dtype)
    let numbers = RowNumbers(count: 2)
    (numbers.values[0], numbers.values[1]) = (1, 0.5)
    let scores = ElementScores(.change(numbers, rowLength: 3), models: 1, narrow: true)
    for (value, times) in [(0.5, 1), (1, 2), (2, 2), (4, 1), (3, 0)] {
      #expect(isScore(value, scores, inputs, count: 6) == times, "\(value)")
    }
  }
}
