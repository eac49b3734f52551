import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ColumnArcsTests {
  @Test(arguments: [DType.f64, .f32, .bf16]) func columnsAreMergedAsIfTheyWereAlone(dtype: DType) throws {
    var random = SplitMix64(state: 91)
    let shape = isOptimised ? [301, 37] : [41, 7]
    let (rows, columns) = (shape[0], shape[1])
    let base = random.values(rows * columns)
    let models = (0..<2).map { _ in base.map { $0 + random.signed() } }
    let parameters: JSON = ["nuslerp_flatten": false, "nuslerp_row_wise": true, "weight": [1, 2]]
    let merged = try Runner(dtype: dtype).merge(make("nuslerp", parameters), models, base: base, shape: shape)
    #expect(merged.sweeps == 2)
    for j in stride(from: 0, to: columns, by: 6) {
      func column(_ x: [Double]) -> [Double] { (0..<rows).map { x[$0 * columns + j] } }
      let alone = try Runner(dtype: dtype).merge(make("nuslerp", ["weight": [1, 2]]), models.map(column), base: column(base))
      // One rounding of numbers up to 3, and sums in another order.
      let tolerance = dtype == .f64 ? 1e-14 : dtype == .f32 ? 0x1p-22 : 0x1p-6
      #expect(distance(column(merged.values), alone.values) <= tolerance)
    }
  }

  @Test func stretchesAreWholeRowsAndFew() throws {
    for shape in [[1000, 70], [5, 70_000], [1, 9], [64, 3, 3, 3]] {
      let tensor = TensorContext(name: "w", shape: shape, modelCount: 2, hasBase: false)
      guard case .sweep(let sweep) = ColumnArcs(tensor, t: 0.5, floor: 0).begin() else {
        Issue.record("no sweep")
        return
      }
      let columns = tensor.count / shape[0]
      let ranges = sweep.ranges ?? []
      #expect(ranges.count <= 32 && sweep.sums == 3 * columns && ranges.first?.lowerBound == 0)
      #expect(ranges.allSatisfy { $0.count % columns == 0 } && ranges.last?.upperBound == tensor.count)
      #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
      #expect(ColumnArcs.scratchBytes(tensor) >= ranges.count * sweep.sums * 8)
    }
  }
}
