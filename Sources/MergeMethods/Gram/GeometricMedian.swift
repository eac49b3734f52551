import JSON
import Platform
import TensorKernels

// Geometric median: w = argmin_y sum_i b_i |x_i - y|, over the models (and the base with include_base).
//
// Inputs: K >= 1 models, and the base if it is included; any shape. K = 1 gives the model.
// Two sweeps: the Gram matrix of the differences from the first point (start: mean), or from the coordinate-wise median
// (start: median), and the combination. Between them Weiszfeld's iteration runs in the space of weights (Weiszfeld.swift).
// With eps = 0 the result scales with the data; public tools use eps = 1e-6, which turns the median of values much smaller than
// that into the mean. maxiter = 0 gives the start itself.
// Traffic: (2 K + 1) * size bytes per element.
// Source: krishnap25/geom_median; sd-mecha `geometric_median` ("Model Stonk"); Pillutla et al., arXiv:1912.13445.

/// The point with the least sum of distances to the models.
struct GeometricMedian: MergeMethod {
  private enum StartPoint: String { case mean, median }

  static let schema = MethodSchema(
    name: "geometric_median", title: "Geometric median",
    summary: "The point with the least weighted sum of distances to the models; outliers lose their pull.", family: "gram",
    citation: "Pillutla et al., Robust aggregation for federated learning, arXiv:1912.13445; Weiszfeld 1937", base: .donor,
    parameters: [
      ParameterSchema(
        "weight", .number, default: 1.0, minimum: 1e-300, perModel: true, summary: "Weight of the model's distance."),
      ParameterSchema(
        "start", .choice(["mean", "median"]), default: "mean",
        summary: "Where the iteration starts: weighted mean, or coordinate-wise median.",
        source: "mean: geom_median, sd-mecha. median: YOYO-Fusion."),
      ParameterSchema(
        "eps", .number, default: 0.0, minimum: 0,
        summary: "Smallest distance; 0: no floor, and a step that does not stick at a model.",
        source: "1e-6: geom_median, sd-mecha."),
      ParameterSchema(
        "maxiter", .integer, default: 100, minimum: 0, maximum: 1_000_000, summary: "Iterations at most; 0 gives the start.",
        source: "100: geom_median, sd-mecha."),
      ParameterSchema(
        "ftol", .number, default: 1e-20, minimum: 0, summary: "Stop when the objective changes by at most this times itself.",
        source: "1e-20: geom_median, sd-mecha."),
      ParameterSchema(
        "include_base", .boolean, default: false, summary: "Count the base as one more point, of weight 1."),
      .scope,
    ],
    reports: ["weights", "iterations", "objective"])

  private let parameters: Parameters
  private let start: StartPoint
  private let weiszfeld: Weiszfeld
  let scope: Scope

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    start = parameters.choice("start", as: StartPoint.self)
    weiszfeld = Weiszfeld(
      eps: parameters.number("eps"), maxiter: parameters.integer("maxiter"), ftol: parameters.number("ftol"))
    scope = parameters.choice("scope", as: Scope.self)
  }

  func usesBase(given: Bool) -> Bool { parameters.boolean("include_base") }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let count = tensor.inputCount
    var pointWeights = try parameters.perModel("weight", count: tensor.modelCount)
    if tensor.hasBase { pointWeights.insert(1, at: 0) }
    if count == 1 { return finish([1], iterations: 0, objective: 0) }
    switch start {
    case .mean:
      return .sweep(
        .gramOfDifferences(from: 0, inputs: count) { differences in
          // The first point is the reference: its row and column are zero.
          var gram = [Double](repeating: 0, count: count * count)
          for i in 1..<count { for j in 1..<count { gram[i * count + j] = differences[i - 1, j - 1] } }
          let result = weiszfeld.solve(gram: gram, count: count, pointWeights: pointWeights)
          return finish(result.weights!, iterations: result.iterations, objective: result.objective)
        })
    case .median:
      let rows = CentredRows(
        scales: [Double](repeating: 1, count: count), centre: .median(.standard, SortingNetwork(count: count)))
      return .sweep(
        .centredGram(rows, inputs: count) { centred in
          var gram = [Double](repeating: 0, count: count * count)
          for i in 0..<count { for j in 0..<count { gram[i * count + j] = centred[i + 1, j + 1] } }
          let result = weiszfeld.solve(gram: gram, count: count, pointWeights: pointWeights, start: .reference)
          if let weights = result.weights {
            return finish(weights, iterations: result.iterations, objective: result.objective)
          }
          let decision = self.decision([], iterations: 0, objective: result.objective)
          return .centredCombination(
            rows, centreCoefficient: 1, coefficients: [Double](repeating: 0, count: count), decision)
        })
    }
  }

  private func finish(_ weights: [Double], iterations: Int, objective: Double) -> Step {
    AffineCombination(weights, total: 1).step(decision(weights, iterations: iterations, objective: objective))
  }

  private func decision(_ weights: [Double], iterations: Int, objective: Double) -> Decision {
    Decision([
      .init(key: "weights", value: .array(weights.map { .double($0) })), .init(key: "iterations", value: .int(iterations)),
      .init(key: "objective", value: .double(objective)),
    ])
  }
}
