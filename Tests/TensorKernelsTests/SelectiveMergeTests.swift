import Testing

@testable import TensorKernels

@Suite struct SelectiveMergeTests {
  private func run(
    _ merge: SelectiveMerge, _ inputs: Inputs, _ count: Int, weights: [Double], floor: Double = 0, start: Int = 0
  ) -> (values: [Double], counts: [Double], poison: Double) {
    let (workspace, output) = (inputs.workspace, GuardedBytes(count: count * inputs.dtype.size))
    var sums = [Double](repeating: 0, count: weights.count)
    let poison = merge.run(
      inputs.block(count: count, start: start, workspace: workspace), weights: weights, floor: floor, lambda: 1, addsBase: true,
      output: output.start, inputs.dtype, sums: &sums)
    #expect(workspace.isIntact && output.isIntact)
    return (output.values(as: inputs.dtype), sums, poison)
  }

  @Test(arguments: kernelTypes) func whatAgreesWithTheSumIsAveraged(dtype: DType) {
    var random = SplitMix64(state: 13)
    let weights = [0.5, 0.25, 0.25]
    let merge = SelectiveMerge(ElementScores(.deviation, models: 3, narrow: true), .all)
    for count in lengths {
      let inputs = Inputs((0..<4).map { _ in quarters(count, &random) }, dtype)
      let d = inputs.differences
      let found = run(merge, inputs, count, weights: weights)
      var expected = inputs.values[0]
      for i in 0..<count {
        let sign: Double = d.reduce(0) { $0 + $1[i] } >= 0 ? 1 : -1
        let agree = (0..<3).filter { d[$0][i] * sign > 0 }
        let divisor = agree.reduce(0.0) { $0 + weights[$1] }
        let tau = agree.reduce(0.0) { $0 + weights[$1] * d[$1][i] } / (divisor == 0 ? 1 : divisor)
        expected[i] = stored(inputs.rounded(expected[i] + inputs.rounded(tau)), dtype)
      }
      #expect(difference(found.values, expected) == nil && found.poison == 0, "\(count)")
      #expect(found.counts == d.map { Double($0.filter { $0 != 0 }.count) })
    }
  }

  @Test(arguments: [DType.f32, .f64]) func onlyChosenElementsCount(dtype: DType) {
    // Deviations 0.5, 1, 1, 0 and 1; of those equal to the threshold the first two.
    let inputs = Inputs([[0, 0, 0, 0, 0], [1, 2, 0, 3, 4], [2, 4, 2, 3, 6]], dtype)
    let scores = ElementScores(.deviation, models: 2, narrow: true)
    let merge = SelectiveMerge(scores, .from(threshold: 1, tiesBefore: 103))
    let found = run(merge, inputs, 5, weights: [0.5, 0.5], start: 100)
    #expect(found.values == [0, 3, 2, 0, 0] && found.counts == [1, 2])
    var squares = [0.0, 0]
    let workspace = inputs.workspace
    #expect(merge.addSquares(inputs.block(count: 5, start: 100, workspace: workspace), to: &squares) == 0)
    #expect(squares == [4, 20])
    #expect(run(SelectiveMerge(scores, .none), inputs, 5, weights: [0.5, 0.5]).values == [0, 0, 0, 0, 0])
  }

  @Test func aFloorHoldsTheDivisor() {
    let inputs = Inputs([[0], [8], [-1]], .f64)
    let merge = SelectiveMerge(ElementScores(.deviation, models: 2, narrow: true), .all)
    #expect(run(merge, inputs, 1, weights: [0.125, 0.875]).values == [8])
    #expect(run(merge, inputs, 1, weights: [0.125, 0.875], floor: 0.5).values == [2])
  }

  @Test(arguments: kernelTypes) func nonFiniteInputsSpoilTheirElement(dtype: DType) {
    let inputs = Inputs([[0, 0, 0], [.nan, 1, .infinity], [1, 1, 1]], dtype)
    let merge = SelectiveMerge(ElementScores(.deviation, models: 2, narrow: true), .all)
    let found = run(merge, inputs, 3, weights: [0.5, 0.5])
    #expect(found.poison.isNaN && found.values[0].isNaN && found.values[1] == 1 && found.values[2].isNaN)
  }
}
