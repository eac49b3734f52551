import JSON
import Platform
import TensorKernels

// TGMD (TSD v2.1, DGMLA): the geometric median of the filtered task vectors.
//
//   f_i = d_i where it was kept and its sign is the elected one, else 0
//   reading tensor:    tau = argmin_y sum_i |f_i - y|, the zeros being data: what disagrees pulls towards 0
//   reading coordwise: tau = the median of the values that agree, element by element
//
// Inputs: base and K >= 1 models, any shape; K = 1 gives f_1. With drop: della and epsilon: -0.1 it is DGMLA.
// Sweeps: the stages that are asked for; the Gram matrix of the f_i, from which Weiszfeld's iteration runs in the space of weights
// (Weiszfeld.swift); the combination. Traffic of each: (K + 1) * size bytes per element.
// Source: 6DammK9, ch01/fermat_pt.md and della.md; the drawing writes the median per coordinate, the code takes it per tensor.

/// The geometric median of randomly dropped task vectors that agree in sign.
struct Tgmd: MergeMethod {
  private enum Reading: String { case tensor, coordwise }

  static let schema = MethodSchema(
    name: "tgmd", title: "TGMD (TIES geometric median with drop)",
    summary: "The geometric median of the task vectors after a random drop and a vote on signs.", family: "elementwise",
    citation: "6DammK9, TGMD (nai-anime-pure-negative-prompt, ch01/fermat_pt.md); Pillutla et al., arXiv:1912.13445",
    base: .required,
    parameters: Tsd.dropParameters + [
      ParameterSchema(
        "reading", .choice(["tensor", "coordwise"]), default: "tensor",
        summary: "The geometric median of whole tensors, zeros included, or the median of what agrees, element by element.",
        source: "tensor: the author's code. coordwise: the author's drawing, read literally."),
      ParameterSchema(
        "eps", .number, default: 0.0, minimum: 0,
        summary: "Smallest distance; 0: no floor, and a step that does not stick at a model.", source: "1e-6: sd-mecha."),
      ParameterSchema(
        "maxiter", .integer, default: 100, minimum: 0, maximum: 1_000_000, summary: "Iterations at most; 0 gives the mean.",
        source: "100: sd-mecha."),
      ParameterSchema(
        "ftol", .number, default: 1e-20, minimum: 0, summary: "Stop when the objective changes by at most this times itself.",
        source: "1e-20: sd-mecha."),
      .lambda("Factor of the merged task vector."),
    ],
    reports: ["weights", "iterations", "objective", "rescale", "thresholds", "majority_sign"], makesTaskVector: true)

  private let parameters: Parameters
  private let reading: Reading
  private let weiszfeld: Weiszfeld

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    reading = parameters.choice("reading", as: Reading.self)
    weiszfeld = Weiszfeld(
      eps: parameters.number("eps"), maxiter: parameters.integer("maxiter"), ftol: parameters.number("ftol"))
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    try Tsd.settings(parameters, weights: [Double](repeating: 1, count: models))
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? settings(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = TaskVectorStages(try settings(tensor.modelCount), tensor)
    return try stages.begin { () throws(Failure) in
      switch reading {
      case .coordwise: return write(stages, .median)
      case .tensor: return median(stages)
      }
    }
  }

  private func median(_ stages: TaskVectorStages) -> Step {
    let models = stages.tensor.modelCount
    let points = stages.agreeing
    let pairs = RowPairs(rows: models)
    var sweep = stages.sweep(sums: pairs.count) { _, block, _, sums in
      points.addProducts(block, pairs, to: sums)
    } next: { sums in
      let gram = GramMatrix(triangle: sums, size: models)
      let result = weiszfeld.solve(gram: gram.full, count: models, pointWeights: [Double](repeating: 1, count: models))
      let weights = result.weights ?? [Double](repeating: 1 / Double(models), count: models)
      return write(
        stages, .combination(weights),
        [
          .init(key: "weights", value: .array(weights.map { .double($0) })),
          .init(key: "iterations", value: .int(result.iterations)), .init(key: "objective", value: .double(result.objective)),
        ])
    }
    // The poison stands before the squares.
    sweep.squares = RowPairs.diagonal(rows: models).map { $0 + 1 }
    return .sweep(sweep)
  }

  private func write(_ stages: TaskVectorStages, _ centre: AgreeingVectors.Centre, _ entries: [JSON.Member] = []) -> Step {
    let points = stages.agreeing
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    return .sweep(
      stages.sweep(sums: 0, writes: true) { _, small, block, _ in
        points.run(
          small, centre, lambda: lambda, addsBase: output == .weights, output: block.output!, block.outputType)
      } next: { _ in
        var decision = stages.decision()
        decision.entries = entries + decision.entries
        return .finish(decision)
      })
  }
}
