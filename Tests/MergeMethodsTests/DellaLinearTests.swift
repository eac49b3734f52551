import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct DellaLinearTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func elementsStayByTheirRankInTheRow(dtype: DType) throws {
    var random = SplitMix64(state: 61)
    let (rows, length) = (40, 25)
    let zero = [Double](repeating: 0, count: rows * length)
    let model = quarters(rows * length, &random)
    let merged = try Runner(dtype: dtype).merge(
      make("della_linear", ["density": 0.5, "epsilon": 0.4, "rescale": "none", "random_seed": 3]), [model], base: zero,
      shape: [rows, length], name: "w")
    for row in 0..<rows {
      let order = (0..<length).sorted {
        (model[row * length + $0].magnitude, $0) < (model[row * length + $1].magnitude, $1)
      }
      for (rank, i) in order.enumerated() {
        let e = row * length + i
        let chance = 0.5 + 0.4 * (2 * Double(rank) / Double(length - 1) - 1)
        let expected = Philox.isKept("w", seed: 3, model: 0, e, chance) ? model[e] : 0
        #expect(merged.values[e] == expected, "row \(row) element \(i)")
      }
    }
  }

  @Test func rescaleKeepsTheSumOfMagnitudes() throws {
    var random = SplitMix64(state: 62)
    let model = random.values(600)
    let zero = [Double](repeating: 0, count: 600)
    let merged = try Runner().merge(make("della_linear", ["density": 0.5]), [model], base: zero, shape: [20, 30])
    func sum(_ x: [Double]) -> Double { x.reduce(0) { $0 + $1.magnitude } }
    #expect((sum(merged.values) / sum(model) - 1).magnitude <= 1e-13 && merged.sweeps == 2)
    let bare = try Runner().merge(
      make("della_linear", ["density": 0.5, "rescale": false]), [model], base: zero, shape: [20, 30])
    #expect(bare.sweeps == 1 && bare.decision["rescale"] == nil)
  }

  @Test func theRangeOfChancesIsChecked() {
    for (density, epsilon) in [(0.1, 0.15), (0.9, 0.1), (0.5, 0.5)] {
      expectFailure(.parameter, "epsilon") {
        _ = try Runner().merge(
          make("della_linear", ["density": .double(density), "epsilon": .double(epsilon)]), [[1, 2]], base: [0, 0])
      }
    }
  }
}
