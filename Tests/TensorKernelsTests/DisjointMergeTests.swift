import Testing

@testable import TensorKernels

@Suite struct DisjointMergeTests {
  /// The page, element by element.
  private struct Plain {
    let inputs: Inputs
    let merge: DisjointMerge
    let base: [Double]
    /// Task vectors, of which no filter takes anything away.
    let vectors: [[Double]]

    init(_ inputs: Inputs, _ merge: DisjointMerge) {
      (self.inputs, self.merge) = (inputs, merge)
      (base, vectors) = (inputs.values[0], inputs.differences)
    }

    private func r(_ value: Double) -> Double { inputs.rounded(value) }
    private func sign(_ value: Double) -> Double { value > 0 ? 1 : value < 0 ? -1 : 0 }

    func scaled(_ i: Int) -> [Double] {
      zip(vectors, merge.election.factors).map { $1 == 1 ? $0[i] : r($0[i] * r($1)) }
    }

    func elected(_ e: [Double]) -> Double {
      let inverse = merge.election.inverseSquares.map(r)
      var vote = 0.0
      switch merge.election.rule {
      case .none: return 0
      case .mass: for value in e { vote = r(vote + value) }
      case .count: for value in e { vote += sign(value) }
      case .normfrac:
        var best = -1.0
        for (value, share) in zip(e, inverse) where r(r(value * value) * share) > best {
          (vote, best) = (value, r(r(value * value) * share))
        }
      case .normmass: for (value, share) in zip(e, inverse) { vote = r(vote + sign(value) * r(r(value * value) * share)) }
      }
      return sign(vote) == 0 ? merge.election.zeroSign : sign(vote)
    }

    func tau(_ i: Int) -> Double {
      let e = scaled(i)
      let gamma = elected(e)
      var agreeing: [(value: Double, weight: Double)] = []
      for (value, weight) in zip(e, merge.weights) {
        let agrees = if case .none = merge.election.rule { value != 0 } else { value != 0 && sign(value) == gamma }
        if agrees { agreeing.append((value, r(weight))) }
      }
      var sum = 0.0
      for (value, _) in agreeing { sum = r(sum + value) }
      switch merge.rule {
      case .sum: return sum
      case .mean:
        var divisor = 0.0
        for (_, weight) in agreeing { divisor = r(divisor + weight) }
        return r(sum / (divisor == 0 ? 1 : divisor))
      case .max:
        var best = 0.0
        for (value, _) in agreeing where value.magnitude >= best.magnitude { best = value }
        return best
      }
    }

    func result(_ i: Int, lambda: Double, addsBase: Bool, _ type: DType) -> Double {
      let step = r(tau(i) * r(lambda))
      guard addsBase else { return stored(step == 0 ? 0 : step, type) }
      return stored(step == 0 ? base[i] : r(base[i] + step), type)
    }
  }

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
    let models = 4
    for (dtype, outputType) in Self.types {
      for (count, lambda, addsBase) in [(17, 1.0, true), (isOptimised ? 1041 : 33, 0.3, true), (18, -0.7, false)] {
        // Quarters, so that votes are often 0 and magnitudes often equal; the weights are exact too.
        let inputs = Inputs((0...models).map { _ in quarters(count, &random) }, dtype)
        for zeroSign in [1.0, -1, 0] {
          for factors in [[1, 1, 1, 1], [0.5, 2, -1, 0]] as [[Double]] {
            let election = SignElection(
              rule, zeroSign: zeroSign, factors: factors, inverseSquares: [0.5, 0.125, 1, 0.25])
            for aggregate in [DisjointMerge.Rule.mean, .sum, .max] {
              let merge = DisjointMerge(noFilters(models), election, aggregate, weights: factors)
              let plain = Plain(inputs, merge)
              let expected = (0..<count).map { plain.result($0, lambda: lambda, addsBase: addsBase, outputType) }
              var sums = [Double](repeating: 0, count: merge.sums)
              let found = run(merge, inputs, count: count, lambda: lambda, addsBase: addsBase, outputType, sums: &sums)
              // Exact but for the weights' products, each rounded once as in the reference.
              let wrong = difference(found.values, expected)
              #expect(wrong == nil, "seed \(seed): \(dtype) to \(outputType), \(zeroSign), \(factors), \(aggregate)")
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

  // MARK: - Signs alone

  @Test(arguments: kernelTypes) func signsAreThoseThatTheMergeElects(dtype: DType) {
    var random = SplitMix64(state: 83)
    for count in [0, 1, 15, 17, 1024, 1041] {
      let inputs = Inputs((0...3).map { _ in quarters(count, &random) }, dtype)
      for rule in Self.rules[1...] {
        for zeroSign in [1.0, -1, 0] {
          let election = SignElection(
            rule, zeroSign: zeroSign, factors: [1, 0.5, 2], inverseSquares: [0.5, 0.125, 1])
          let merge = DisjointMerge(noFilters(3), election, .sum, weights: election.factors)
          let plain = Plain(inputs, merge)
          let expected = (0..<count).map { plain.elected(plain.scaled($0)) }
          let signs = GuardedBytes(count: count)
          let workspace = inputs.workspace
          let block = inputs.block(count: count, workspace: workspace)
          #expect(merge.writeSigns(block, to: signs.start.assumingMemoryBound(to: Int8.self)) == 0)
          #expect(signs.isIntact && workspace.isIntact)
          #expect(difference(signs.load(as: Int8.self).map { Double($0) }, expected) == nil, "\(rule) \(count)")
          if zeroSign != 0 { continue }
          // Padding votes 0, which counts only where a vote of 0 does; the majority is asked for with zeroSign 0.
          var sum = 2.5
          #expect(merge.addSigns(block, to: &sum) == 0 && sum == 2.5 + expected.reduce(0, +))
        }
      }
    }
  }

  @Test(arguments: kernelTypes) func signsReportWhatIsNotFinite(dtype: DType) {
    let inputs = Inputs([[0, 0], [1, .infinity]], dtype)
    let election = SignElection(.mass, zeroSign: 0, factors: [1])
    let merge = DisjointMerge(noFilters(1), election, .sum, weights: [1])
    let workspace = inputs.workspace
    let block = inputs.block(count: 2, workspace: workspace)
    var (sum, signs) = (0.0, [Int8](repeating: 7, count: 2))
    #expect(merge.addSigns(block, to: &sum).isNaN && merge.writeSigns(block, to: &signs).isNaN)
    #expect(signs[0] == 1)
  }
}
