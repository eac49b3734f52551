import Testing

@testable import TensorKernels

@Suite struct TaskVectorSumsTests {
  private func magnitudes(_ vectors: TaskVectors, _ inputs: Inputs, count: Int, into start: [Double]) -> [Double] {
    let sums = GuardedBytes(count: start.count * 8)
    sums.store(start)
    let workspace = inputs.workspace
    let poison = vectors.addMagnitudes(
      inputs.block(count: count, workspace: workspace), to: sums.start.assumingMemoryBound(to: Double.self))
    #expect(poison == 0 && sums.isIntact && workspace.isIntact)
    return sums.load(as: Double.self)
  }

  /// Reduction: 64 additions a lane in the arithmetic type, then one per chunk and five of lanes in binary64.
  private func bound(_ values: [Double], _ dtype: DType) -> Double {
    let sum = values.reduce(0) { $0 + $1.magnitude }
    return (64 * (dtype.isWide ? 0x1p-53 : 0x1p-24) + Double(values.count / 1024 + 6) * 0x1p-53) * sum
  }

  @Test(arguments: kernelTypes) func magnitudesAreSummedBeforeAndAfterTheFilters(dtype: DType) {
    let seed: UInt64 = 91
    var random = SplitMix64(state: seed)
    for count in lengths {
      let inputs = Inputs((0...2).map { _ in random.values(count) }, dtype)
      var vectors = noFilters(2)
      vectors.filters[0].drop = .bernoulli(RandomStream(seed: 3, name: "t", model: 0), limit: 1 << 31)
      vectors.filters[1].cut = .below(threshold: 0.5, tiesBefore: 0)
      let before = inputs.differences
      let after = rows(vectors, inputs, count: count).rows
      let sums = magnitudes(vectors, inputs, count: count, into: [1, 2, 3, 4])
      for (i, row) in (before + after).enumerated() {
        let exact = accurateDot(row.map { $0.magnitude }, [Double](repeating: 1, count: count))
        // Each chunk is added to what is there.
        let added = Double(count / 1024 + 2) * 0x1p-53 * (Double(i + 1) + exact)
        #expect((sums[i] - Double(i + 1) - exact).magnitude <= bound(row, dtype) + added, "seed \(seed): \(count)")
      }
    }
  }

  @Test(arguments: kernelTypes) func wholeNumbersAreSummedExactly(dtype: DType) {
    let values = (0..<1041).map { Double($0 % 9 - 4) }
    let inputs = Inputs([[Double](repeating: 0, count: 1041), values], dtype)
    let sum = values.reduce(0) { $0 + $1.magnitude }
    #expect(magnitudes(noFilters(1), inputs, count: 1041, into: [0, 0]) == [sum, sum])
  }

  @Test(arguments: kernelTypes) func whatIsNotFiniteIsReported(dtype: DType) {
    let inputs = Inputs([[0, 0, 0], [1, .nan, 1]], dtype)
    let workspace = inputs.workspace
    let block = inputs.block(count: 3, workspace: workspace)
    var sums = [0.0, 0]
    #expect(noFilters(1).addMagnitudes(block, to: &sums).isNaN)
  }
}
