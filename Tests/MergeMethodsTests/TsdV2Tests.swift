import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TsdV2Tests {
  private func tau(
    _ parameters: JSON, _ d: [[Double]], shape: [Int], _ runner: Runner = Runner(), base: [Double]? = nil
  ) throws -> Merged {
    try runner.merge(make("tsd_v2", parameters), d, base: base ?? d[0].map { _ in 0 }, shape: shape)
  }

  /// TSD, each row times Model Stock's ratio of the vectors that agree.
  private func expected(_ e: [[Double]], rows: Int, _ aggregate: String) -> (tau: [Double], t: [Double]) {
    let length = e[0].count / rows
    let signs = Plain.signs(e, byCount: true, zero: 0)
    let f = e.map { row in row.indices.map { Plain.sign(row[$0]) == signs[$0] ? row[$0] : 0 } }
    let mean = Plain.merged(e, signs, "mean")
    var t: [Double] = []
    for row in 0..<rows {
      let part = f.map { Array($0[row * length..<(row + 1) * length]) }
      var cosines: [Double] = []
      for i in part.indices {
        for j in (i + 1)..<max(part.count, i + 1) where aggregate != "adjacent" || j == i + 1 {
          let scale = norm(part[i]) * norm(part[j])
          cosines.append(scale == 0 ? 0 : zip(part[i], part[j]).reduce(0) { $0 + $1.0 * $1.1 } / scale)
        }
      }
      let n = Double(part.count)
      let c = cosines.reduce(0, +) / Double(cosines.count)
      t.append(n * c / (1 + (n - 1) * c))
    }
    return (mean.indices.map { mean[$0] * t[$0 / length] }, t)
  }

  @Test(arguments: [[7, 29], [40, 3], [1, 1500], [3, 2, 65], [203]] as [[Int]]) func everyRowHasItsRatio(shape: [Int]) throws {
    let count = shape.reduce(1, *)
    var random = SplitMix64(state: 181)
    let d = (0..<3).map { _ in (0..<count).map { _ in 0.5 + random.signed() } }
    let rows = count / shape.last!
    for (aggregate, density) in [("adjacent", 0.9), ("cos", 0.5), ("cos", 1)] {
      let e = d.indices.map { Philox.dropped(d[$0], model: $0, density) }
      let (tau, t) = expected(e, rows: rows, aggregate)
      for block in [1024, 4096] {
        let merged = try self.tau(
          ["aggregate": .string(aggregate), "density": .double(density)], d, shape: shape, Runner(block: block))
        // Sums of at most 1500 products.
        #expect(distance(merged.values, tau) <= 1e-12, "\(aggregate) \(density) in blocks of \(block)")
        #expect((merged.decision["t_min"]!.double! - t.min()!).magnitude <= 1e-12)
        #expect((merged.decision["t_max"]!.double! - t.max()!).magnitude <= 1e-12)
        #expect((merged.decision["t_mean"]!.double! - t.reduce(0, +) / Double(rows)).magnitude <= 1e-12)
        #expect(merged.decision["rows"]?.int == rows)
        #expect(merged.decision["outside_unit"]?.int == t.filter { $0 < 0 || $0 > 1 }.count)
      }
    }
  }

  @Test func theTrimIsThatOfTheTensorNotOfTheRow() throws {
    // The second row is small throughout: all of it goes, ties of the first row by the lowest index.
    let d: [[Double]] = [[2, 4, 2, 2, 1, 1, 1, 1], [2, 4, 2, 2, 1, 1, 1, 1]]
    let merged = try tau(["density": 1, "trim_density": 0.375], d, shape: [2, 4])
    #expect(merged.values == [2, 4, 2, 0, 0, 0, 0, 0])
    #expect(merged.decision["t_min"]?.double == 0 && merged.decision["t_max"]?.double == 1)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func equalTaskVectorsHaveARatioOfOne(dtype: DType) throws {
    var random = SplitMix64(state: 182)
    let row = quarters(290, &random).map { $0 + 4.25 }
    let merged = try tau(["density": 1], [row, row, row], shape: [10, 29], Runner(dtype: dtype))
    #expect(merged.values == row && merged.decision["outside_unit"]?.int == 0)
  }

  @Test(arguments: [DType.f64, .bf16]) func oneModelOrAScalarIsTsd(dtype: DType) throws {
    let d: [[Double]] = [[1, -2, 3, 4, 5, -6]]
    let runner = Runner(dtype: dtype)
    let one = try tau(["density": 0.5], d, shape: [2, 3], runner)
    #expect(one.values == Philox.dropped(d[0], model: 0, 0.5) && one.decision["t_mean"]?.double == 1)
    let scalar = try tau(["density": 1], [[1], [3], [-1]], shape: [], runner)
    #expect(scalar.values == [2] && scalar.decision["t_mean"]?.double == 1 && scalar.decision["rows"]?.int == 1)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    let merged = try tau(["density": 0.5], [base, base], shape: [2, 3], Runner(dtype: dtype), base: base)
    #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern) && merged.decision["t_max"]?.double == 0)
  }

  @Test func theTaskVectorIsTheResultWithoutTheBase() throws {
    var random = SplitMix64(state: 183)
    let base = random.values(60)
    let models = (0..<3).map { _ in random.values(60) }
    let weights = try tau(["lambda": 0.5], models, shape: [4, 15], base: base)
    let vector = try tau(["lambda": 0.5, "output": "task_vector"], models, shape: [4, 15], base: base)
    #expect(distance(weights.values, zip(base, vector.values).map { $0 + $1 }) <= 1e-15)
  }

  @Test func everythingItReportsIsInTheSchema() throws {
    let merged = try tau(["zero_sign": "majority", "trim_density": 0.5, "rescale": true], Example.deltas, shape: [4, 3])
    let strange = merged.decision.entries.map(\.key).filter { !TsdV2.schema.reports.contains($0) }
    #expect(strange == [])
  }
}
