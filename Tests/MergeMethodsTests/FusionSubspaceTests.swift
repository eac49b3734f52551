import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct FusionSubspaceTests {
  private func subspace(
    _ rank: FusionSubspace.Rank = .allButOne, median: MedianKind = .lower, aboutMedian: Bool = false
  ) -> FusionSubspace {
    FusionSubspace(rank: rank, median: median, aboutMedian: aboutMedian, eps: 1e-8)
  }

  private func diagonal(_ values: [Double]) -> GramMatrix {
    let n = values.count
    return GramMatrix(full: (0..<n * n).map { $0 % (n + 1) == 0 ? values[$0 / n] : 0 }, size: n)
  }

  private func gram(_ rows: [[Double]]) -> GramMatrix {
    GramMatrix(full: rows.flatMap { x in rows.map { y in zip(x, y).reduce(0.0) { $0 + $1.0 * $1.1 } } }, size: rows.count)
  }

  /// Orthogonal residuals with these singular values, mixed by an orthogonal matrix of halves, so that all rows take part.
  private func mixed(_ sigma: [Double]) -> GramMatrix {
    let signs: [[Double]] = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    return gram(signs.map { row in zip(row, sigma).map { $0 / 2 * $1 } })
  }

  @Test func ranksFollowTheirRule() {
    let gram = mixed([4, 3, 2, 1])
    #expect(subspace(.allButOne).solve(gram, elements: 100).rank == 3)
    #expect(subspace(.all).solve(gram, elements: 100).rank == 4)
    // (16 + 9 + 4 + 1)² / (256 + 81 + 16 + 1) = 2.54.
    #expect(subspace(.participation).solve(gram, elements: 100).rank == 3)
    // No more components than elements.
    #expect(subspace(.allButOne).solve(gram, elements: 2).rank == 2)
    #expect(subspace(.all).solve(gram, elements: 1).rank == 1)
    #expect(subspace(.participation).solve(gram, elements: 2).rank == 2)
  }

  @Test func participationRoundsHalfToEvenAndStaysInRange() {
    #expect(subspace(.participation).solve(mixed([1, 0, 0, 0]), elements: 100).rank == 1)
    #expect(subspace(.participation).solve(mixed([1, 1, 1, 1]), elements: 100).rank == 4)
    // sigma² = 4, 2: 36 / 20 = 1.8.
    #expect(subspace(.participation).solve(mixed([2, 2.0.squareRoot(), 0, 0]), elements: 100).rank == 2)
    // sigma² = 4, 1: 25 / 17 = 1.47.
    #expect(subspace(.participation).solve(mixed([2, 1, 0, 0]), elements: 100).rank == 1)
  }

  @Test func theScaleMakesUpForTheLostEnergy() {
    let gram = mixed([4, 3, 2, 1])
    let truncated = subspace(.allButOne).solve(gram, elements: 100)
    #expect((truncated.energy - 29.0 / 30).magnitude <= 1e-14 && (truncated.scale - 30.0 / 29).magnitude <= 1e-14)
    let all = subspace(.all).solve(gram, elements: 100)
    #expect((all.energy - 1).magnitude <= 1e-14 && all.scale == 1)
    let newest = subspace(.participation).solve(gram, elements: 100)
    #expect((newest.scale - (30.0 / 29).squareRoot()).magnitude <= 1e-14)
  }

  @Test func theScaleIsAtMostTen() {
    // One of four equal components kept: energy 1/4; with 0.05 of the energy the factor would be 20.
    #expect((subspace(.allButOne).solve(mixed([1, 1, 1, 1]), elements: 1).scale - 4).magnitude <= 1e-13)
    let many = diagonal([Double](repeating: 1, count: 20))
    #expect(subspace(.allButOne).solve(many, elements: 1).scale == 10)
    #expect((subspace(.participation).solve(many, elements: 1).scale - 20.0.squareRoot()).magnitude <= 1e-13)
  }

  @Test func tinyResidualsAreDegenerate() {
    for rank in [FusionSubspace.Rank.allButOne, .all, .participation] {
      for gram in [diagonal([0, 0, 0]), diagonal([1e-16, 1e-16, 1e-15]), diagonal([9e-15, 0, 0])] {
        let result = subspace(rank).solve(gram, elements: 10)
        #expect(result.degenerate && result.rank == 0 && result.coefficients == [0, 0, 0] && result.weights == [1, 1, 1])
        #expect(result.energy == 1 && result.scale == 1)
      }
      #expect(!subspace(rank).solve(diagonal([2e-14, 2e-14, 2e-14]), elements: 10).degenerate)
    }
    #expect(subspace(.allButOne).solve(diagonal([1]), elements: 10).degenerate, "one model leaves no component")
    #expect(subspace(.all).solve(diagonal([1, 1]), elements: 0).degenerate)
  }

  @Test func aFarRowIsRejected() {
    // Four rows of about the same length and one a hundred times longer: beyond 4.685 times 1.4826 times the median.
    let rows: [[Double]] = [[1, 0, 0, 0], [0, 1.1, 0, 0], [0, 0, 0.9, 0], [0, 0, 0, 1.05], [100, 0, 0, 0]]
    let result = subspace(.all).solve(gram(rows), elements: 100)
    #expect(result.weights[4] == 0)
    for i in 0..<4 { #expect(result.weights[i] > 0.9) }
  }

  @Test func globalWeightsAreTukeysOfTheRowLengths() {
    // All components kept: the projections of a row have its length. Lower median of 1, 2, 3, 8 is 2.
    let lengths = [1.0, 2, 3, 8]
    for (median, middle) in [(MedianKind.lower, 2.0), (.standard, 2.5)] {
      let result = subspace(.all, median: median).solve(diagonal(lengths.map { $0 * $0 }), elements: 100)
      for (weight, length) in zip(result.weights, lengths) {
        let ratio = length / (4.685 * 1.4826 * middle + 1e-8)
        let expected = ratio < 1 ? (1 - ratio * ratio) * (1 - ratio * ratio) : 0
        #expect((weight - expected).magnitude <= 1e-14, "median \(middle)")
      }
    }
  }

  @Test func coefficientsAreThoseOfTheProjections() {
    // Without outliers: the weighted mean of the projections, back in the rows. Here written with explicit residuals: the
    // example's about its mean, all components kept.
    let mean = (0..<12).map { i in (Example.deltas[0][i] + Example.deltas[1][i] + Example.deltas[2][i]) / 3 }
    let rows = Example.deltas.map { zip($0, mean).map { $0 - $1 } }
    let result = subspace(.all).solve(gram(rows), elements: 12)
    // The rows add up to 0: one singular value is 0, and r* stays in their span and small.
    let residual = (0..<12).map { i in zip(result.coefficients, rows).reduce(0.0) { $0 + $1.0 * $1.1[i] } }
    #expect(norm(residual) < rows.map { norm($0) }.min()!)
    #expect(result.coefficients.allSatisfy(\.isFinite) && !result.degenerate)
  }

  @Test func aboutTheMedianACommonShiftHasFullWeight() {
    // Three equal rows: every deviation from the median is 0, every weight 1, and r* is that row.
    let rows = [[Double]](repeating: [3, 4], count: 3)
    let result = subspace(.participation, aboutMedian: true).solve(gram(rows), elements: 2)
    // eps = 1e-8 in the denominators, and deviations that are rounding.
    #expect(result.rank == 1 && distance(result.weights, [1, 1, 1]) <= 1e-12)
    #expect((result.coefficients.reduce(0, +) - 1).magnitude <= 1e-8)
  }

  @Test func aboutTheMedianMeansTheStandardOneForAnEvenNumber() {
    // Lengths 1, 2, 4, 9 along one direction: deviations from the median 3 are 2, 1, 1, 6, their lower median is 1.
    let lengths = [1.0, 2, 4, 9]
    let rows = lengths.map { [$0 * 0.6, $0 * 0.8] }
    let result = subspace(.participation, aboutMedian: true).solve(gram(rows), elements: 2)
    for (weight, deviation) in zip(result.weights, [2.0, 1, 1, 6]) {
      let ratio = deviation / (4.685 * 1.4826 + 1e-8)
      let expected = (1 - ratio * ratio) * (1 - ratio * ratio)
      #expect((weight - expected).magnitude <= 1e-12)
    }
  }

  @Test func mediansAreLowerOrStandard() {
    #expect(FusionSubspace.median([3, 1, 2], .lower) == 2 && FusionSubspace.median([3, 1, 2], .standard) == 2)
    #expect(FusionSubspace.median([4, 1, 3, 2], .lower) == 2 && FusionSubspace.median([4, 1, 3, 2], .standard) == 2.5)
    #expect(FusionSubspace.median([7], .standard) == 7)
  }
}
