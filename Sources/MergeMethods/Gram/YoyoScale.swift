import JSON
import LinearAlgebra
import Platform

// YOYO Scale: w = w_0 + sum_i lambda_i (w_i - w_0), with lambda from the Gram matrix G of the differences:
//
//   b_j = (sum_i G_ij - G_jj) / (N - 1),   H = G + eps I
//   clamp: solve H lambda = b, set negative lambda_i to 0, divide by the sum if that exceeds 1
//   qp:    minimise ½ lambdaᵀ H lambda - bᵀ lambda subject to lambda >= 0, sum(lambda) <= 1
//
// Inputs: base and N >= 1 models, any shape; N = 1 gives the model. At equal norms and equal pairwise cosines the result is
// Model Stock's. Equal differences share their part equally (least-norm solution; the authors' LU leaves that to rounding).
// eps is absolute, as published: where the differences are smaller than its square root the result tends to the base.
// Two sweeps: Gram, Combine. Traffic: (2 (N + 1) + 1) * size bytes per element.
// Source: andehury/YOYO-Scale, README at 3fdd556 (clamp) and HEAD 5104460 (qp).

/// Per-tensor coefficients from the consensus of the task vectors.
struct YoyoScale: MergeMethod {
  private enum Solver: String { case clamp, qp }
  private enum Compat: String { case none, yoyo }

  static let schema = MethodSchema(
    name: "yoyo_scale", title: "YOYO Scale",
    summary: "Base plus task vectors, each scaled by how well the other models support its direction; generalises Model Stock.",
    family: "gram", citation: "andehury, YOYO Scale: generalized task vector scaling for model merging, 2026", base: .required,
    parameters: [
      ParameterSchema(
        "solver", .choice(["clamp", "qp"]), default: "clamp",
        summary: "clamp: solve, then clamp and renormalise. qp: the exact solution under lambda >= 0, sum <= 1.",
        source: "clamp: YOYO-Scale at 3fdd556 (the seed). qp: YOYO-Scale HEAD."),
      ParameterSchema(
        "eps", .number, default: 1e-12, minimum: 0, summary: "Added to the diagonal of the Gram matrix.",
        source: "1e-12: YOYO-Scale."),
      .scope,
      ParameterSchema(
        "compat", .choice(["none", "yoyo"]), default: "none",
        summary: "yoyo: solver qp as its authors run it, which can give up and leave the base.",
        source: "yoyo: YOYO-Scale HEAD."),
    ],
    reports: ["lambdas", "residual"], makesTaskVector: true)

  private let solver: Solver
  private let compat: Compat
  private let eps: Double
  private let output: OutputKind
  let scope: Scope

  init(_ parameters: Parameters) throws(Failure) {
    solver = parameters.choice("solver", as: Solver.self)
    compat = parameters.choice("compat", as: Compat.self)
    eps = parameters.number("eps")
    output = parameters.choice("output", as: OutputKind.self)
    scope = parameters.choice("scope", as: Scope.self)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    if tensor.modelCount == 1 { return finish([1], residual: 0) }
    return .sweep(
      .gramOfDifferences(from: 0, inputs: tensor.inputCount) { gram in
        let (lambdas, residual) = solve(gram)
        return finish(lambdas, residual: residual)
      })
  }

  private func finish(_ lambdas: [Double], residual: Double) -> Step {
    AffineCombination(lambdas: lambdas, output: output).step(
      Decision([
        .init(key: "lambdas", value: .array(lambdas.map { .double($0) })), .init(key: "residual", value: .double(residual)),
      ]))
  }

  /// lambda, and |H lambda - b| / |b|.
  private func solve(_ gram: GramMatrix) -> ([Double], Double) {
    let n = gram.size
    if gram.isZero { return ([Double](repeating: 0, count: n), 0) }
    var h = gram.full
    var b = [Double](repeating: 0, count: n)
    for j in 0..<n {
      h[j * n + j] += eps
      for i in 0..<n where i != j { b[j] += gram[i, j] }
      b[j] /= Double(n - 1)
    }
    var lambdas: [Double]
    switch solver {
    case .clamp:
      lambdas = SymmetricSolve.leastNorm(h, b, size: n).map { max(0, $0) }
      let sum = lambdas.reduce(0, +)
      if sum > 1 { lambdas = lambdas.map { $0 / sum } }
    case .qp:
      lambdas = compat == .yoyo ? SimplexQP.solveDroppingAll(h, b, size: n) : SimplexQP.solve(h, b, size: n)
    }
    var (error, size) = (0.0, 0.0)
    for j in 0..<n {
      var value = -b[j]
      for i in 0..<n { value += h[j * n + i] * lambdas[i] }
      error += value * value
      size += b[j] * b[j]
    }
    return (lambdas, size > 0 ? (error / size).squareRoot() : 0)
  }
}
