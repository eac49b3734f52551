import Testing

@testable import TensorKernels

@Suite struct SignElectionTests {
  @Test(arguments: kernelTypes) func signsAreThoseThatTheMergeElects(dtype: DType) {
    var random = SplitMix64(state: 83)
    for count in [0, 1, 15, 17, 1024, 1041] {
      let inputs = Inputs((0...3).map { _ in quarters(count, &random) }, dtype)
      for rule in [SignElection.Rule.mass, .count, .normfrac, .normmass] {
        for zeroSign in [1.0, -1, 0] {
          let election = SignElection(
            rule, zeroSign: zeroSign, factors: [1, 0.5, 2], inverseSquares: [0.5, 0.125, 1])
          let agreeing = AgreeingVectors(noFilters(3), election)
          let plain = PlainDisjointMerge(
            inputs, DisjointMerge(noFilters(3), election, .sum, weights: election.factors))
          let expected = (0..<count).map { plain.elected(plain.scaled($0)) }
          let signs = GuardedBytes(count: count)
          let workspace = inputs.workspace
          let block = inputs.block(count: count, workspace: workspace)
          #expect(agreeing.writeSigns(block, to: signs.start.assumingMemoryBound(to: Int8.self)) == 0)
          #expect(signs.isIntact && workspace.isIntact)
          #expect(difference(signs.load(as: Int8.self).map { Double($0) }, expected) == nil, "\(rule) \(count)")
          if zeroSign != 0 { continue }
          // Padding votes 0, which counts only where a vote of 0 does; the majority is asked for with zeroSign 0.
          var sum = 2.5
          #expect(agreeing.addSigns(block, to: &sum) == 0 && sum == 2.5 + expected.reduce(0, +))
        }
      }
    }
  }

  @Test(arguments: kernelTypes) func signsReportWhatIsNotFinite(dtype: DType) {
    let inputs = Inputs([[0, 0], [1, .infinity]], dtype)
    let election = SignElection(.mass, zeroSign: 0, factors: [1])
    let agreeing = AgreeingVectors(noFilters(1), election)
    let workspace = inputs.workspace
    let block = inputs.block(count: 2, workspace: workspace)
    var (sum, signs) = (0.0, [Int8](repeating: 7, count: 2))
    #expect(agreeing.addSigns(block, to: &sum).isNaN && agreeing.writeSigns(block, to: &signs).isNaN)
    #expect(signs[0] == 1)
  }
}
