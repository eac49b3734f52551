import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct YoyoScaleTests {
  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, base: [Double] = Example.base, _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("yoyo_scale", parameters), models, base: base)
  }

  /// Models about a zero base whose task vectors have this Gram matrix: the rows of its Cholesky factor.
  private func models(_ gram: [[Double]]) -> [[Double]] {
    let n = gram.count
    var l = [[Double]](repeating: [Double](repeating: 0, count: n), count: n)
    for j in 0..<n {
      for i in j..<n {
        let rest = (0..<j).reduce(gram[i][j]) { $0 - l[i][$1] * l[j][$1] }
        l[i][j] = i == j ? rest.squareRoot() : rest / l[j][j]
      }
    }
    return l
  }

  private func lambdas(_ parameters: JSON, _ gram: [[Double]]) throws -> [Double] {
    try merge(parameters, models(gram), base: [Double](repeating: 0, count: gram.count)).decision.numbers("lambdas")
  }

  @Test(arguments: ["clamp", "qp"]) func theExampleIsMet(solver: String) throws {
    let merged = try merge(["solver": .string(solver)])
    let lambdas = merged.decision.numbers("lambdas")
    #expect(distance(lambdas, [0.263458282, 0.254725869, 0.260461599]) <= Example.tolerance)
    // base + sum lambda d, with the lambdas as they are.
    let expected = (0..<12).map { i in zip(lambdas, Example.deltas).reduce(Example.base[i]) { $0 + $1.0 * $1.1[i] } }
    #expect(distance(merged.values, expected) <= 1e-15)
    // Inside the simplex both solve G lambda = b (0.035550, 0.021350, 0.026800).
    #expect(merged.decision["residual"]!.double! <= 1e-10 && merged.sweeps == 2)
  }

  @Test func theSolversPartWhereAClampIsNotOptimal() throws {
    let gram = [[4, 2.5, 1.5], [2.5, 2, 1.4], [1.5, 1.4, 1.2]]
    #expect(distance(try lambdas(["solver": "clamp"], gram), [0, 1, 0]) <= 1e-10)
    #expect(distance(try lambdas(["solver": "qp"], gram), [0, 0.75, 0.25]) <= 1e-10)
    #expect(distance(try lambdas(["solver": "qp", "compat": "yoyo"], gram), [0, 0.75, 0.25]) <= 1e-10)
  }

  @Test(arguments: ["clamp", "qp"]) func twoModelsHaveTheClosedForm(solver: String) throws {
    // lambda_1 = g (B - g) / (A B - g²), lambda_2 = g (A - g) / (A B - g²).
    let found = try lambdas(["solver": .string(solver)], [[2, 0.5], [0.5, 1]])
    #expect(distance(found, [0.25 / 1.75, 0.75 / 1.75]) <= 1e-11)
    // A sum above 1: the shorter model, whole.
    #expect(distance(try lambdas(["solver": .string(solver)], [[4, 1.5], [1.5, 1]]), [0, 1]) <= 1e-11)
    // A negative product: the base.
    #expect(try lambdas(["solver": .string(solver)], [[1, -0.25], [-0.25, 1]]) == [0, 0])
  }

  @Test(arguments: ["clamp", "qp"]) func equalNormsAndCosinesGiveModelStock(solver: String) throws {
    let models = models([[1, 0.3, 0.3], [0.3, 1, 0.3], [0.3, 0.3, 1]])
    let base = [0.0, 0, 0]
    let scale = try merge(["solver": .string(solver)], models, base: base)
    let stock = try Runner().merge(make("model_stock"), models, base: base)
    #expect(distance(scale.values, stock.values) <= 1e-11)
    #expect(distance(scale.decision.numbers("lambdas"), [0.1875, 0.1875, 0.1875]) <= 1e-11)
  }

  @Test func zeroTaskVectorsGiveTheBaseBitForBit() throws {
    for solver in ["clamp", "qp"] as [JSON] {
      let merged = try merge(["solver": solver], [Example.base, Example.base])
      #expect(merged.copied == 0 && merged.decision.numbers("lambdas") == [0, 0])
    }
  }

  @Test func aModelEqualToTheBaseGetsNothing() throws {
    for solver in ["clamp", "qp"] as [JSON] {
      let merged = try merge(["solver": solver], [Example.models[0], Example.base, Example.models[1]])
      let found = merged.decision.numbers("lambdas")
      #expect(found[1] == 0 && found[0] > 0.01 && found[2] > 0.01, "\(found)")
    }
  }

  @Test func oneModelIsTheResult() throws {
    let merged = try merge([:], [Example.models[0]])
    #expect(merged.copied == 1 && merged.decision.numbers("lambdas") == [1])
  }

  @Test(arguments: 2...8) func equalTaskVectorsShareTheirPartEqually(n: Int) throws {
    // One vector n times, of lengths around 1. eps alone would divide by 1 + eps / |d|², about 1e-12.
    var bad: [Double] = []
    for length in [0.2, 0.5, 1, 2] {
      let vector = Example.deltas[0].map { $0 / norm(Example.deltas[0]) * length }
      let merged = try merge([:], [[Double]](repeating: vector, count: n), base: [Double](repeating: 0, count: 12))
      let equal = [Double](repeating: 1 / Double(n), count: n)
      if distance(merged.decision.numbers("lambdas"), equal) > 1e-9 { bad.append(length) }
      #expect(distance(merged.values, vector) <= 1e-9)
    }
    #expect(bad.isEmpty, "lengths of the vector")
  }

  @Test(arguments: [1.0, 10]) func collinearTaskVectorsAreSolved(length: Double) throws {
    // d_2 = d_1 / 2: the shorter, whole (see twoModelsHaveTheClosedForm).
    let models = [[length], [length / 2]]
    let merged = try merge(["solver": "qp"], models, base: [0])
    #expect(distance(merged.decision.numbers("lambdas"), [0, 1]) <= 1e-9)
  }

  @Test func epsShrinksTowardsTheBase() throws {
    // Unit vectors with product 1/2 and eps = 1: H = 2 on the diagonal: lambda = 0.5 / 2.5 each.
    let found = try lambdas(["eps": 1], [[1, 0.5], [0.5, 1]])
    #expect(distance(found, [0.2, 0.2]) <= 1e-14)
    expectFailure(.parameter, "'eps'", "at least 0") { _ = try make("yoyo_scale", ["eps": -1]) }
  }

  @Test func theTaskVectorIsTheResultWithoutTheBase() throws {
    let (weights, vector) = (try merge([:]), try merge(["output": "task_vector"]))
    #expect(distance(vector.values, zip(weights.values, Example.base).map { $0 - $1 }) <= 1e-15)
  }

  @Test func theResidualSaysHowFarTheSolutionWasMoved() throws {
    let gram = [[4, 2.5, 1.5], [2.5, 2, 1.4], [1.5, 1.4, 1.2]]
    let merged = try merge([:], models(gram), base: [0, 0, 0])
    // lambda = (0, 1, 0): H lambda - b = (0.5, 0.05, -0.05) beside b = (2, 1.95, 1.45).
    let expected = ((0.25 + 2 * 0.0025) / (4 + 1.95 * 1.95 + 1.45 * 1.45)).squareRoot()
    #expect((merged.decision["residual"]!.double! - expected).magnitude <= 1e-9)
  }

  @Test func scopeIsHandedOn() throws {
    #expect(try make("yoyo_scale", ["scope": "model"]).scope == .model && make("yoyo_scale").scope == .tensor)
  }
}
