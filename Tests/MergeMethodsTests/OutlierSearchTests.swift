import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct OutlierSearchTests {
  @Test func countsFollowDensityAndGamma() {
    var settings = TaskVectorSettings(weights: [1])
    func counts(_ density: Double, _ gamma: Double, of elements: Int) -> [Int] {
      (settings.density, settings.gamma) = ([density], [gamma])
      let found = settings.outliers(0, elements: elements)
      return [found.outliers, found.kept]
    }
    #expect(
      counts(0.5, 0.1, of: 100) == [10, 50] && counts(0.95, 0.1, of: 100) == [5, 95] && counts(1, 0.5, of: 100) == [0, 100])
    #expect(
      counts(0.5, 0.01, of: 64) == [0, 32] && counts(0.001, 0.01, of: 64) == [0, 1] && counts(0, 0.5, of: 64) == [0, 0])
    settings.keepsOne = false
    #expect(counts(0.001, 0.01, of: 64) == [0, 0] && counts(0.5, 0.5, of: 0) == [0, 0])
  }

  /// Both cuts by sorting, with as many equal magnitudes as there are: exact in every type.
  @Test(arguments: [DType.f64, .f32, .bf16, .f16], [1, 3, 9]) func cutsThroughEqualMagnitudesAreExact(
    dtype: DType, models: Int
  ) throws {
    var random = SplitMix64(state: 77)
    for count in [50, 1500, longTensor] {
      let base = [Double](repeating: 0, count: count)
      let rows = (0..<models).map { _ in quarters(count, &random) }
      for (density, gamma) in [(0.5, 0.2), (0.03, 0.9)] {
        let merged = try Runner(dtype: dtype, block: 2048).merge(
          make("breadcrumbs", ["density": .double(density), "gamma": .double(gamma)]), rows, base: base)
        let kept = max(1, Int(density * Double(count)))
        let outliers = min(Int(gamma * Double(count)), count - kept)
        var expected = base
        for row in rows {
          let order = row.indices.sorted { (row[$0].magnitude, $1) > (row[$1].magnitude, $0) }
          for i in order[outliers..<outliers + kept] { expected[i] += row[i] }
        }
        #expect(merged.values.indices.first { merged.values[$0] != expected[$0] } == nil, "\(count) \(density)")
      }
      if !isOptimised { return }
    }
  }
}
