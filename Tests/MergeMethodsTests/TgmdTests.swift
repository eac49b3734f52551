import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TgmdTests {
  private static let expected = [
    0.065964383, -0.035044861, 0.028998084, 0.065150811, 0.081791931, -0.051702210, -0.011784603, 0.046739743, 0.057334086,
    0.024849189, -0.062371619, 0.113064585,
  ]

  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, base: [Double] = Example.base, _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("tgmd", parameters), models, base: base)
  }

  // The iteration ends when the objective does not change any more, which leaves 1e-8 in the weights (WeiszfeldTests); the task
  // vectors are about 0.1.
  private let tolerance = 2e-9

  @Test(arguments: [["density": 1], ["density": 1, "eps": 1e-6]] as [JSON]) func theExampleIsMet(parameters: JSON) throws {
    let merged = try merge(parameters)
    #expect(distance(merged.values, zip(Example.base, Self.expected).map { $0 + $1 }) <= tolerance)
    #expect(merged.sweeps == 2 && merged.decision.numbers("weights").count == 3)
    #expect((merged.decision.numbers("weights").reduce(0, +) - 1).magnitude <= 1e-15)
  }

  /// What agrees with the vote by number, after the drop.
  private func points(_ d: [[Double]], _ density: Double) -> [[Double]] {
    let e = d.indices.map { Philox.dropped(d[$0], model: $0, density) }
    let signs = Plain.signs(e, byCount: true, zero: 0)
    return e.map { row in row.indices.map { Plain.sign(row[$0]) == signs[$0] ? row[$0] : 0 } }
  }

  @Test func itIsTheMedianOfWhatAgreesZerosIncluded() throws {
    var random = SplitMix64(state: 191)
    let d = (0..<5).map { _ in random.values(600) }
    let f = points(d, 0.8)
    let merged = try merge(["density": 0.8], d, base: d[0].map { _ in 0 })
    // At the minimum the unit vectors to the points add up to nothing.
    var pull = [Double](repeating: 0, count: 600)
    for row in f {
      let away = zip(row, merged.values).map { $0 - $1 }
      for i in pull.indices { pull[i] += away[i] / norm(away) }
    }
    // The objective is flat at its minimum: 1e-8 in the weights.
    #expect(norm(pull) <= 1e-7)
    let objective = f.reduce(0) { $0 + norm(zip($1, merged.values).map { $0 - $1 }) } / 5
    #expect((merged.decision["objective"]!.double! - objective).magnitude <= 1e-12)
    // As the method of that name says, of these points.
    let median = try Runner().merge(make("geometric_median"), f)
    #expect(distance(merged.values, median.values) <= 1e-7)
  }

  @Test func coordwiseIsTheMedianOfEachElement() throws {
    var random = SplitMix64(state: 192)
    for models in 1...5 {
      let d = (0..<models).map { _ in quarters(500, &random) }
      let f = points(d, 0.7)
      let merged = try merge(["density": 0.7, "reading": "coordwise"], d, base: d[0].map { _ in 0 })
      let expected = (0..<500).map { i -> Double in
        let some = f.map { $0[i] }.filter { $0 != 0 }.sorted()
        return some.isEmpty ? 0 : (some[(some.count - 1) / 2] + some[some.count / 2]) / 2
      }
      #expect(merged.values == expected && merged.sweeps == 1)
    }
  }

  @Test func oneModelIsItsDroppedTaskVector() throws {
    var random = SplitMix64(state: 193)
    let d = quarters(300, &random)
    for reading in ["tensor", "coordwise"] {
      let merged = try merge(["density": 0.5, "reading": .string(reading)], [d], base: d.map { _ in 0 })
      #expect(merged.values == Philox.dropped(d, model: 0, 0.5))
    }
  }

  @Test func withoutIterationsItIsTheMeanOfWhatAgrees() throws {
    let d: [[Double]] = [[4, -4, 4], [4, 4, 0]]
    let merged = try merge(["density": 1, "maxiter": 0], d, base: [0, 0, 0])
    #expect(merged.values == [4, 0, 2] && merged.decision["iterations"] == 0)
    #expect(merged.decision.numbers("weights") == [0.5, 0.5])
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func noChangeGivesTheBaseBitForBit(dtype: DType) throws {
    let base: [Double] = [0, -0.0, 1, -1, 0.5, -0.0]
    for parameters in [[:], ["reading": "coordwise"], ["drop": "della", "epsilon": -0.1], ["trim_density": 0.5]] as [JSON] {
      let merged = try merge(parameters, [base, base], base: base, Runner(dtype: dtype))
      #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern), "\(parameters)")
    }
  }

  @Test func theSquaresOfTheGramMatrixAreNamed() throws {
    let tensor = TensorContext(name: "w", shape: [12], modelCount: 3, hasBase: true)
    guard case .sweep(let sweep) = try make("tgmd").begin(tensor) else {
      Issue.record("no sweep")
      return
    }
    // The poison, then (0,0) (0,1) (0,2) (1,1) (1,2) (2,2).
    #expect(sweep.sums == 7 && sweep.squares == [1, 4, 6] && !sweep.writes)
  }
}
