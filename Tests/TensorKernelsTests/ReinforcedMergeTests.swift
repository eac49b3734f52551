import Testing

@testable import TensorKernels

@Suite struct ReinforcedMergeTests {
  private func merge(_ models: Int, epsilon: Double, factors: [Double]? = nil) -> ReinforcedMerge {
    var vectors = noFilters(models, narrow: false)
    for k in 0..<models { vectors.filters[k].cut = .below(threshold: epsilon, tiesBefore: 0) }
    return ReinforcedMerge(vectors, factors: factors ?? [Double](repeating: 1, count: models))
  }

  @Test(arguments: kernelTypes, [1, 2, 5]) func ownAndSharedChangesAreMergedAndCounted(dtype: DType, models: Int) {
    var random = SplitMix64(state: 52)
    for count in lengths {
      let inputs = Inputs((0...models).map { _ in quarters(count, &random) }, dtype)
      let factors = (0..<models).map { 1 + Double($0) / 4 }
      let merge = merge(models, epsilon: 1.75, factors: factors)
      let (workspace, output) = (inputs.workspace, GuardedBytes(count: count * dtype.size))
      var sums = [Double](repeating: 0, count: merge.sums)
      let poison = merge.run(
        inputs.block(count: count, workspace: workspace), lambda: 1, addsBase: true, output: output.start, dtype, sums: &sums)
      var expected = inputs.values[0]
      var counts = [Double](repeating: 0, count: 2 * models)
      let d = inputs.differences
      for i in 0..<count {
        let active = (0..<models).filter { d[$0][i].magnitude > 1.75 }
        for k in active { counts[active.count > 1 ? models + k : k] += 1 }
        let sum = inputs.rounded(active.reduce(0.0) { $0 + d[$1][i] })
        let tau = active.count == 1 ? d[active[0]][i] * factors[active[0]] : inputs.rounded(sum / Double(max(1, active.count)))
        expected[i] = stored(inputs.rounded(expected[i] + tau), dtype)
      }
      #expect(poison == 0 && output.isIntact && workspace.isIntact && sums == counts)
      #expect(difference(output.values(as: dtype), expected) == nil, "\(count)")
      var again = [Double](repeating: 0, count: merge.sums)
      #expect(merge.addCounts(inputs.block(count: count, workspace: workspace), to: &again) == 0 && again == counts)
    }
  }

  @Test(arguments: kernelTypes) func nonFiniteInputsSpoilTheirElement(dtype: DType) {
    let inputs = Inputs([[0, 0, 0], [.nan, 1, .infinity], [1, 1, 1]], dtype)
    let (workspace, output) = (inputs.workspace, GuardedBytes(count: 3 * dtype.size))
    var sums = [Double](repeating: 0, count: 4)
    let poison = merge(2, epsilon: 0).run(
      inputs.block(count: 3, workspace: workspace), lambda: 1, addsBase: true, output: output.start, dtype, sums: &sums)
    let values = output.values(as: dtype)
    #expect(poison.isNaN && values[0].isNaN && values[1] == 1 && values[2].isNaN)
  }
}
