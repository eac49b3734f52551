import Testing

@testable import TensorKernels

@Suite struct AgreeingVectorsTests {
  private let factors = [1, 0.5, -2, 1]

  private func agreeing(_ inputs: Inputs, _ rule: SignElection.Rule) -> [[Double]] {
    let e = zip(inputs.differences, factors).map { row, f in row.map { inputs.rounded($0 * f) } }
    if case .none = rule { return e }
    var result = e
    for i in e[0].indices {
      var vote = 0.0
      for row in e { vote += row[i] > 0 ? 1 : row[i] < 0 ? -1 : 0 }
      for k in e.indices where e[k][i] * vote <= 0 { result[k][i] = 0 }
    }
    return result
  }

  @Test(arguments: kernelTypes) func productsAreThoseOfTheElementsThatAgree(dtype: DType) {
    var random = SplitMix64(state: 92)
    for count in [0, 1, 17, 1041] {
      // Quarters and few of them: every product and sum is exact.
      let inputs = Inputs((0...4).map { _ in quarters(count, &random) }, dtype)
      for rule in [SignElection.Rule.none, .count] {
        let e = agreeing(inputs, rule)
        let points = AgreeingVectors(noFilters(4), SignElection(rule, zeroSign: 0, factors: factors))
        for pairs in [RowPairs(rows: 4), RowPairs(diagonal: 4)] {
          let sums = GuardedBytes(count: pairs.count * 8)
          sums.store([Double](repeating: 1, count: pairs.count))
          let workspace = inputs.workspace
          let block = inputs.block(count: count, workspace: workspace)
          #expect(points.addProducts(block, pairs, to: sums.start.assumingMemoryBound(to: Double.self)) == 0)
          let expected = pairs.pairs.map { 1 + accurateDot(e[Int($0.0)], e[Int($0.1)]) }
          #expect(sums.load(as: Double.self) == expected, "\(count) of \(dtype)")
          #expect(sums.isIntact && workspace.isIntact)
        }
      }
    }
  }

  private static let types: [(DType, DType)] = [(.bf16, .bf16), (.f16, .f16), (.f32, .f32), (.f32, .f64), (.f64, .f64)]

  private func run(
    _ points: AgreeingVectors, _ inputs: Inputs, _ centre: AgreeingVectors.Centre, count: Int, lambda: Double, addsBase: Bool,
    _ type: DType
  ) -> [Double] {
    let output = GuardedBytes(count: count * type.size, misalignment: 1)
    let workspace = inputs.workspace
    let poison = points.run(
      inputs.block(count: count, workspace: workspace), centre, lambda: lambda, addsBase: addsBase, output: output.start, type)
    #expect(poison == 0 && output.isIntact && workspace.isIntact)
    return output.values(as: type)
  }

  @Test(arguments: types) func aCombinationIsTheWeightedSum(dtype: DType, outputType: DType) {
    var random = SplitMix64(state: 93)
    let c = [0.5, -1, 0.25, 2]
    for count in [1, 15, 1041] {
      let inputs = Inputs((0...4).map { _ in quarters(count, &random) }, dtype)
      let base = inputs.values[0]
      for rule in [SignElection.Rule.none, .count] {
        let e = agreeing(inputs, rule)
        let points = AgreeingVectors(noFilters(4), SignElection(rule, zeroSign: 0, factors: factors))
        for addsBase in [true, false] {
          let values = run(points, inputs, .combination(c), count: count, lambda: 0.5, addsBase: addsBase, outputType)
          let expected = (0..<count).map { i -> Double in
            let tau = (0..<4).reduce(0.0) { $0 + c[$1] * e[$1][i] }
            return stored((addsBase ? base[i] : 0) + 0.5 * tau, outputType)
          }
          #expect(difference(values, expected) == nil, "\(count) of \(dtype)")
        }
      }
    }
  }

  @Test(arguments: types) func aMedianIsTheMiddleOfWhatAgrees(dtype: DType, outputType: DType) {
    var random = SplitMix64(state: 94)
    for count in [1, 17, 1041] {
      let inputs = Inputs((0...4).map { _ in quarters(count, &random) }, dtype)
      for rule in [SignElection.Rule.none, .count] {
        let e = agreeing(inputs, rule)
        let points = AgreeingVectors(noFilters(4), SignElection(rule, zeroSign: 0, factors: factors))
        let values = run(points, inputs, .median, count: count, lambda: 1, addsBase: false, outputType)
        let expected = (0..<count).map { i -> Double in
          let some = e.map { $0[i] }.filter { $0 != 0 }.sorted()
          return some.isEmpty ? 0 : stored((some[(some.count - 1) / 2] + some[some.count / 2]) / 2, outputType)
        }
        #expect(difference(values, expected) == nil, "\(count) of \(dtype)")
      }
    }
  }

  @Test(arguments: types) func withoutAnyAgreementTheBaseStaysBitForBit(dtype: DType, outputType: DType) {
    let base = [0.0, -0.0, 1, -1]
    let inputs = Inputs([base, [1, 1, 2, -2], [-1, -1, 0, 0]], dtype)
    let points = AgreeingVectors(noFilters(2), SignElection(.count, zeroSign: 0, factors: [1, 1]))
    for centre in [AgreeingVectors.Centre.median, .combination([0.5, 0.5])] {
      #expect(sameBits(run(points, inputs, centre, count: 4, lambda: 1, addsBase: true, outputType), base) == nil)
      let vector = run(points, inputs, centre, count: 4, lambda: -1, addsBase: false, outputType)
      #expect(sameBits(vector, [0, 0, 0, 0]) == nil)
    }
  }

  @Test(arguments: kernelTypes) func whatIsNotFiniteIsReportedAndPropagates(dtype: DType) {
    let inputs = Inputs([[0, 0, 0], [1, .nan, 1]], dtype)
    let workspace = inputs.workspace
    let block = inputs.block(count: 3, workspace: workspace)
    var sums = [0.0]
    let points = AgreeingVectors(noFilters(1), SignElection(.count, zeroSign: 0, factors: [1]))
    #expect(points.addProducts(block, RowPairs(rows: 1), to: &sums).isNaN)
    for centre in [AgreeingVectors.Centre.median, .combination([1])] {
      let output = GuardedBytes(count: 3 * dtype.size)
      #expect(points.run(block, centre, lambda: 1, addsBase: true, output: output.start, dtype).isNaN)
      let values = output.values(as: dtype)
      #expect(values[0] == 1 && values[1].isNaN && values[2] == 1)
    }
  }
}
