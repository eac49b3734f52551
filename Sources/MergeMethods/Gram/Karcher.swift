import Glibc
import JSON
import Platform

// Karcher mean: w = (mean of the n_i) * u, u the point of the unit sphere whose squared angles to all x_i / n_i have the least sum.
//
//   T = (1/K') sum_i theta_i / sin(theta_i) (u_i - cos(theta_i) u);   u <- cos|T| u + sin|T| T / |T|,   until |T| < tol
//
// Starts at the normalised mean of the unit vectors u_i = x_i / n_i, or at the first where that is shorter than tol. Equal weights.
// Inputs: K >= 1 models, any shape; K = 1 gives the model. A zero vector has no direction and counts in the mean length only.
// A vector opposite to u (theta = pi) gives no direction either. All zero: the first model.
// All iterates are combinations of the x_i, so two sweeps: the Gram matrix of [x_1, x_2 - x_1, ...], then Combine; an iteration
// costs K^2 multiplications. Traffic: (2 K + 1) * size bytes per element.
// compat mergekit: vectors no longer than tol count as zero, and angles below tol as 0; all zero: zeros.
// Source: Karcher, "Riemannian center of mass and mollifier smoothing", 1977; mergekit `karcher`.

/// The mean of the models' directions on the sphere, with their mean length.
struct Karcher: MergeMethod {
  static let schema = MethodSchema(
    name: "karcher", title: "Karcher mean",
    summary: "The mean of the models' directions on the sphere, with their mean length.",
    family: "gram",
    citation: "Karcher, Riemannian center of mass and mollifier smoothing, 1977; mergekit (arcee-ai/mergekit)", base: .donor,
    parameters: [
      ParameterSchema(
        "max_iter", .integer, default: 10, minimum: 0, maximum: 1_000_000, summary: "Iterations at most.",
        source: "10: mergekit."),
      ParameterSchema(
        "tol", .number, default: 1e-5, minimum: 0, summary: "Stop at a step shorter than this, in radians.",
        source: "1e-5: mergekit."),
      .compatMergekit(
        "mergekit: tol is also the norm up to which a vector counts as zero, and the angle up to which one is 0."),
    ],
    reports: ["iterations", "step", "coefficients"])

  private let maximum: Int
  private let tolerance: Double
  private let isMergekit: Bool

  init(_ parameters: Parameters) throws(Failure) {
    maximum = parameters.integer("max_iter")
    tolerance = parameters.number("tol")
    isMergekit = parameters.isMergekit
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    if tensor.modelCount == 1 { return .copy(input: 0, Decision([.init(key: "coefficients", value: [1])])) }
    return .sweep(
      .gramWithCrossTerms(about: 0, inputs: tensor.inputCount) { gram in
        mean(VectorSpan(crossTerms: gram))
      })
  }

  private func mean(_ span: VectorSpan) -> Step {
    let norms = (0..<span.count).map { span.norm(span.vector($0)) }
    let directed = norms.indices.filter { norms[$0] > (isMergekit ? tolerance : 0) }
    guard !directed.isEmpty else {
      let none = [Double](repeating: 0, count: span.count)
      return isMergekit ? AffineCombination(none, total: 0).step(Decision()) : .copy(input: 0, Decision())
    }
    if span.isOnePoint { return .copy(input: 0, decision(0, step: 0, [1] + norms.dropFirst().map { _ in 0 })) }
    let units = directed.map { i in span.vector(i).map { $0 / norms[i] } }
    var mean = sum(units.map { ($0, 1 / Double(units.count)) })
    let length = span.norm(mean)
    mean = length < max(tolerance, .leastNormalMagnitude) ? units[0] : mean.map { $0 / length }
    var (iterations, last) = (0, 0.0)
    while iterations < maximum {
      iterations += 1
      let tangent = self.tangent(span, units, at: mean)
      last = span.norm(tangent)
      if last < tolerance || last == 0 { break }
      mean = sum([(mean, cos(last)), (tangent, sin(last) / last)])
      // Rounding would lengthen it step by step.
      let length = span.norm(mean)
      if length > 0 { mean = mean.map { $0 / length } }
    }
    let scale = norms.reduce(0, +) / Double(norms.count)
    let (coefficients, total) = span.inputs(mean.map { $0 * scale })
    return AffineCombination(coefficients, total: total).step(decision(iterations, step: last, coefficients))
  }

  private func tangent(_ span: VectorSpan, _ units: [[Double]], at mean: [Double]) -> [Double] {
    var terms: [(vector: [Double], factor: Double)] = []
    var along = 0.0
    for unit in units {
      let cosine = min(max(span.product(mean, unit), -1), 1)
      let angle = acos(cosine)
      if isMergekit, angle < tolerance { continue }
      let sine = sin(angle)
      // Towards 1 at an angle of 0; at 180 degrees all directions are equally good.
      let stretch = angle < 1e-6 ? 1 : sine < 1e-12 ? 0 : angle / sine
      terms.append((unit, stretch / Double(units.count)))
      along += stretch / Double(units.count) * cosine
    }
    return sum(terms + [(mean, -along)])
  }

  private func sum(_ terms: [(vector: [Double], factor: Double)]) -> [Double] {
    var total = [Double](repeating: 0, count: terms[0].vector.count)
    for term in terms { for i in total.indices { total[i] += term.factor * term.vector[i] } }
    return total
  }

  private func decision(_ iterations: Int, step: Double, _ coefficients: [Double]) -> Decision {
    Decision([
      .init(key: "iterations", value: .int(iterations)), .init(key: "step", value: .double(step)),
      .init(key: "coefficients", value: .array(coefficients.map { .double($0) })),
    ])
  }
}
