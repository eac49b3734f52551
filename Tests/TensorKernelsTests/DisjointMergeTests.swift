import Testing

@testable import TensorKernels

@Suite struct DisjointMergeTests {
  private func run(
    _ merge: DisjointMerge, _ inputs: Inputs, from: Int = 0, count: Int, lambda: Double = 1, addsBase: Bool = true,
    _ type: DType, sums: inout [Double]
  ) -> (values: [Double], poison: Double) {
    let output = GuardedBytes(count: count * type.size, misalignment: 2)
    let workspace = inputs.workspace
    let poison = merge.run(
      inputs.block(from: from, count: count, workspace: workspace), lambda: lambda, addsBase: addsBase, output: output.start,
      type, sums: &sums)
    #expect(output.isIntact && workspace.isIntact, "\(count) elements of \(inputs.dtype)")
    return (output.values(as: type), poison)
  }

  private static let rules: [SignElection.Rule] = [.none, .mass, .count, .normfrac, .normmass]
  private static let types: [(DType, DType)] = [(.bf16, .bf16), (.f16, .f16), (.f32, .f32), (.f32, .f64), (.f64, .f64)]

  @Test(arguments: rules) func everyRuleIsThatOfThePlainReference(rule: SignElection.Rule) {
    let seed: UInt64 = 81
    var random = SplitMix64(state: seed)
    for (dtype, outputType) in Self.types {
      for (models, count, lambda, addsBase) in [
        (4, 17, 1.0, true), (3, isOptimised ? 1041 : 33, 0.3, true), (2, 18, -0.7, false), (5, 20, 0.7, true), (1, 16, 1, true),
      ] {
        // Quarters, so that votes are often 0 and magnitudes often equal; the weights are exact too.
        let inputs = Inputs((0...models).map { _ in quarters(count, &random) }, dtype)
        for zeroSign in [1.0, -1, 0] {
          for all in [[1, 1, 1, 1, 1], [0.5, 2, -1, 0, 4]] as [[Double]] {
            let factors = Array(all.prefix(models))
            let election = SignElection(
              rule, zeroSign: zeroSign, factors: factors, inverseSquares: Array([0.5, 0.125, 1, 0.25, 2].prefix(models)))
            for aggregate in [DisjointMerge.Rule.mean, .sum, .max] {
              let merge = DisjointMerge(noFilters(models), election, aggregate, weights: factors)
              let plain = PlainDisjointMerge(inputs, merge)
              let expected = (0..<count).map { plain.result($0, lambda: lambda, addsBase: addsBase, outputType) }
              var sums = [Double](repeating: 0, count: merge.sums)
              let found = run(merge, inputs, count: count, lambda: lambda, addsBase: addsBase, outputType, sums: &sums)
              // Exact but for the weights' products, each rounded once as in the reference.
              let wrong = difference(found.values, expected)
              #expect(wrong == nil, "seed \(seed): \(dtype) to \(outputType), \(zeroSign), \(factors), \(aggregate)")
              let conflicts = (0..<count).filter { i in
                plain.scaled(i).contains { $0 > 0 } && plain.scaled(i).contains { $0 < 0 }
              }
              #expect(sums[models] == Double(conflicts.count), "seed \(seed): \(dtype), \(zeroSign), \(aggregate)")
              #expect(found.poison == 0)
            }
          }
        }
      }
    }
  }

  @Test(arguments: kernelTypes) func keptElementsAndConflictsAreCounted(dtype: DType) {
    var random = SplitMix64(state: 82)
    for count in lengths where count <= 4096 {
      let inputs = Inputs((0...3).map { _ in quarters(count, &random) }, dtype)
      var vectors = noFilters(3)
      vectors.filters[1].cut = .below(threshold: 1, tiesBefore: 0)
      let d = inputs.differences.enumerated().map { k, row in k == 1 ? row.map { $0.magnitude > 1 ? $0 : 0 } : row }
      let election = SignElection(.mass, zeroSign: 1, factors: [1, -1, 0])
      let merge = DisjointMerge(vectors, election, .mean, weights: election.factors)
      var sums = [0.5, 0, 0, 100]
      _ = run(merge, inputs, count: count, dtype, sums: &sums)
      let e = [d[0], d[1].map { -$0 }, d[2].map { _ in 0 }]
      let conflicts = (0..<count).filter { i in e.contains { $0[i] > 0 } && e.contains { $0[i] < 0 } }.count
      // Added to what is there.
      #expect(sums[..<3] == [0.5 + Double(e[0].filter { $0 != 0 }.count), Double(e[1].filter { $0 != 0 }.count), 0])
      #expect(sums[3] == 100 + Double(conflicts), "\(count)")
    }
  }

  @Test(arguments: types) func whereTauIsZeroTheBaseStaysBitForBit(dtype: DType, outputType: DType) {
    let base = [0.0, -0.0, 1, -1, 0x1p-20, -0.0]
    // No change; and opposite changes that cancel: the vote is 0.
    let inputs = Inputs([base, [0, 0, 1, -1, 0x1p-20, 1], [-0.0, -0.0, 1, -1, 0x1p-20, -1]], dtype)
    for rule in Self.rules {
      for (aggregate, lambda) in [(DisjointMerge.Rule.mean, 1.0), (.sum, -0.5), (.max, 0)] {
        if case .none = rule, aggregate == .max { continue }
        let election = SignElection(rule, zeroSign: 0, factors: [1, 1], inverseSquares: [1, 1])
        let merge = DisjointMerge(noFilters(2), election, aggregate, weights: [1, 1])
        var sums = [Double](repeating: 0, count: 3)
        let isCancelled: Bool = if case .normfrac = rule { false } else { true }
        let kept = isCancelled ? 6 : 5
        let weights = run(merge, inputs, count: 6, lambda: lambda, outputType, sums: &sums).values
        #expect(sameBits(Array(weights[..<kept]), Array(inputs.values[0][..<kept])) == nil, "\(rule) \(aggregate)")
        let vector = run(merge, inputs, count: 6, lambda: lambda, addsBase: false, outputType, sums: &sums).values
        #expect(sameBits(Array(vector[..<kept]), [Double](repeating: 0, count: kept)) == nil, "\(rule) \(aggregate)")
      }
    }
  }

  @Test(arguments: types) func onlyThePoisonedElementIsNaN(dtype: DType, outputType: DType) {
    for value in isOptimised ? [Double.nan, .infinity, -.infinity] : [.nan] {
      for (input, element) in [(0, 3), (1, 1029), (2, 16)] {
        var values = [[Double]](repeating: [Double](repeating: 1, count: 1030), count: 3)
        values[1] = [Double](repeating: 2, count: 1030)
        values[input][element] = value
        let inputs = Inputs(values, dtype)
        for rule in isOptimised ? Self.rules : [.mass, .normfrac] {
          let election = SignElection(rule, zeroSign: 1, factors: [1, 1], inverseSquares: [1, 1])
          for aggregate in [DisjointMerge.Rule.mean, .sum, .max] {
            var vectors = noFilters(2)
            // What is trimmed away poisons as well.
            vectors.filters[1].cut = .everything
            let merge = DisjointMerge(vectors, election, aggregate, weights: [1, 1])
            var sums = [Double](repeating: 0, count: 3)
            let found = run(merge, inputs, count: 1030, outputType, sums: &sums)
            let bad = found.values.indices.filter { !found.values[$0].isFinite }
            #expect(bad == [element] && found.values[element].isNaN && found.poison.isNaN, "\(rule) \(aggregate)")
          }
        }
      }
    }
  }

  @Test func equalMagnitudesGoToTheLaterModel() {
    // Without a vote, 1 and -1 are both left.
    let inputs = Inputs([[0, 0], [1, -2], [-1, 2]], .f32)
    let election = SignElection(.none, zeroSign: 0, factors: [1, 1])
    var sums = [0.0, 0, 0]
    let found = run(DisjointMerge(noFilters(2), election, .max, weights: [1, 1]), inputs, count: 2, .f64, sums: &sums)
    #expect(found.values == [-1, 2])
  }

  @Test func equalSharesOfTheNormGoToTheFirstModel() {
    let inputs = Inputs([[0, 0, 0], [1, -1, 0], [-1, 1, 1]], .f32)
    let election = SignElection(.normfrac, zeroSign: 0, factors: [1, 1], inverseSquares: [0.5, 0.5])
    var sums = [0.0, 0, 0]
    let found = run(DisjointMerge(noFilters(2), election, .sum, weights: [1, 1]), inputs, count: 3, .f64, sums: &sums)
    #expect(found.values == [1, -1, 1])
  }

  @Test func aDivisorOfZeroCountsAsOne() {
    // Weights that cancel: the sum itself.
    let inputs = Inputs([[0], [1], [-3]], .f32)
    let election = SignElection(.mass, zeroSign: 0, factors: [2, -2])
    var sums = [0.0, 0, 0]
    let found = run(DisjointMerge(noFilters(2), election, .mean, weights: [2, -2]), inputs, count: 1, .f64, sums: &sums)
    #expect(found.values == [8])
  }
}
