import JSON
import Platform
import TensorKernels

// TSD v2: TSD, each row times Model Stock's ratio of the filtered task vectors.
//
//   f_i = b_i d_i where it was kept and its sign is the elected one, else 0;   tau = t * (mean of what agrees),  t = ratio of the f_i
//
// t is taken per slice along the last axis, over all pairs or over neighbours, zeros included (StockRatio.swift); a 1-D tensor is
// one slice, a 0-D tensor has t = 1. Inputs: base and K >= 1 models; K = 1 has t = 1.
// Sweeps: one, in which a slice stays in cache, and those of the stages that are asked for.
// Source: 6DammK9, ch01/modelstock.md; the author found t near 1 for about 100 models.

/// TSD with Model Stock's interpolation ratio.
struct TsdV2: MergeMethod {
  static let schema = MethodSchema(
    name: "tsd_v2", title: "TSD v2",
    summary: "TSD, scaled row by row with Model Stock's ratio of the filtered task vectors.", family: "elementwise",
    citation: "6DammK9, TSD v2 (nai-anime-pure-negative-prompt, ch01/modelstock.md); Model Stock: arXiv:2403.19522",
    base: .required,
    parameters: [.weight("Weight of the model's task vector in the mean.")] + Tsd.dropParameters + [
      ParameterSchema(
        "aggregate", .choice(["adjacent", "cos", "angle"]), default: "adjacent",
        summary: "How the pairwise cosines are averaged: mean over neighbours, mean cosine, or cosine of the mean angle.",
        source: "adjacent: sd-mecha, 6DammK9. cos: mergekit. angle: FusionBench."),
      .lambda("Factor of the merged task vector."),
    ],
    reports: [
      "kept", "conflicts", "rescale", "thresholds", "majority_sign", "t_min", "t_mean", "t_max", "outside_unit", "rows",
    ],
    makesTaskVector: true)

  private let parameters: Parameters
  private let ratio: StockRatio

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    ratio = StockRatio(
      aggregate: parameters.choice("aggregate", as: StockRatio.Aggregate.self), clamp: .none, compat: .none, cosEps: 0)
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    try Tsd.settings(parameters, weights: try parameters.perModel("weight", count: models))
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? settings(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = TaskVectorStages(try settings(tensor.modelCount), tensor)
    return try stages.begin { () throws(Failure) in rows(stages) }
  }

  private func rows(_ stages: TaskVectorStages) -> Step {
    let tensor = stages.tensor
    let models = tensor.modelCount
    let length = max(1, tensor.shape.last ?? 1)
    let merge = stages.disjointMerge
    let agreeing = stages.agreeing
    let pairs = RowPairs(rows: models)
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    let alone = models == 1 || tensor.shape.isEmpty
    // After the merge's sums: rows outside [0, 1], sum of t; maxima: t and -t.
    var sweep = stages.sweep(sums: merge.sums + 4, writes: true) { _, whole, block, sums in
      var poison = 0.0
      withUnsafeTemporaryAllocation(of: Double.self, capacity: pairs.count) { triangle in
        for start in stride(from: 0, to: whole.count, by: length) {
          let row = TaskVectorBlock(
            inputs: whole.inputs, from: start, count: length, start: whole.start + start, workspace: whole.workspace)
          triangle.initialize(repeating: 0)
          if !alone { poison += agreeing.addProducts(row, pairs, to: triangle.baseAddress!) }
          let result = ratio.of(GramMatrix(triangle: triangle, size: models))
          let t = alone ? 1 : result.t
          poison += merge.run(
            row, lambda: lambda * t, addsBase: output == .weights, output: block.output! + start * block.outputType.size,
            block.outputType, sums: sums)
          let own = sums + merge.sums
          own[0] += alone || !result.outside ? 0 : 1
          own[1] += t
          own[2] = max(own[2], t)
          own[3] = max(own[3], -t)
        }
      }
      return poison
    } next: { sums in
      let own = Array(sums.dropFirst(merge.sums))
      let rows = tensor.count / length
      var decision = stages.decision(counts: sums.prefix(merge.sums))
      decision.entries += [
        .init(key: "t_min", value: .double(-own[3])), .init(key: "t_mean", value: .double(own[1] / Double(max(rows, 1)))),
        .init(key: "t_max", value: .double(own[2])), .init(key: "outside_unit", value: .int(Int(own[0]))),
        .init(key: "rows", value: .int(rows)),
      ]
      return .finish(decision)
    }
    sweep.maxima = 2
    sweep.granule = length
    sweep.needsFiniteSums = true
    return .sweep(sweep)
  }
}
