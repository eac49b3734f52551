import JSON
import Platform
import TensorKernels

// Model Stock: w = t * mean_i(w_i) + (1 - t) * w_0, t from the angles between the task vectors w_i - w_0 (StockRatio.swift).
//
// Inputs: base and N >= 1 models, any shape; N = 1 gives the model. granularity: tensor, one t; row, one t for each slice
// along the last axis; out_filter, one t for each slice along the first axis. 1-D tensors are one vector in all; a 0-D tensor
// has no direction and takes the average. All task vectors zero: the base, bit for bit. t is not clamped unless asked; every t
// outside [0, 1] is counted in the report.
// ignore_keys: these tensors keep the plain average (FusionBench's rule).
// Sweeps: tensor, Gram and Combine, (2 (N + 1) + 1) * size bytes per element; row and out_filter, one sweep in which a row
// stays in cache, (N + 2) * size bytes.
// compat sd_mecha: where t is infinite, a task vector is 0 or the largest finite number, as torch.nan_to_num makes it.
// Source: Jang et al., "Model Stock: all we need is just a few fine-tuned models", arXiv:2403.19522; the tools disagree on the
// average and the granularity, see the schema.

/// Interpolation between the base and the average of the models, by the angle between the task vectors.
struct ModelStock: MergeMethod {
  private enum Granularity: String { case tensor, row, outFilter = "out_filter" }

  /// The tensors that FusionBench's configuration for CLIP leaves at the plain average.
  static let clipKeys = [
    "model.positional_embedding", "model.text_projection", "model.logit_scale", "model.token_embedding.weight",
    "model.ln_final.weight", "model.ln_final.bias",
  ]

  static let schema = MethodSchema(
    name: "model_stock", title: "Model Stock",
    summary: "Interpolation between the base and the average of the models, by the angle between their task vectors.",
    family: "gram", citation: "Jang et al., Model Stock: all we need is just a few fine-tuned models, arXiv:2403.19522",
    base: .required,
    parameters: [
      ParameterSchema(
        "aggregate", .choice(["cos", "angle", "adjacent"]), default: "cos",
        summary: "How the pairwise cosines are averaged: mean cosine, cosine of the mean angle, or mean over neighbours.",
        source: "cos: mergekit. angle: FusionBench. adjacent: sd-mecha."),
      ParameterSchema(
        "granularity", .choice(["tensor", "row", "out_filter"]), default: "tensor",
        summary: "One ratio per tensor, per slice along the last axis, or per slice along the first axis.",
        source: "tensor: mergekit, FusionBench. row: mergekit filter_wise, sd-mecha. out_filter: the filters of a convolution."),
      ParameterSchema(
        "filter_wise", .boolean, default: false, summary: "mergekit's name for granularity: row."),
      ParameterSchema(
        "clamp", .choice(["none", "unit"]), default: "none", summary: "unit: keep the ratio in [0, 1].",
        source: "none: all public tools."),
      ParameterSchema(
        "ignore_keys", .strings, default: [],
        summary: "Names or globs of tensors that keep the plain average; 'clip' stands for FusionBench's six CLIP keys.",
        source: "FusionBench."),
      .scope,
      ParameterSchema(
        "cos_eps", .number, default: 1e-6, minimum: 0, summary: "Floor of each norm under compat: sd_mecha.",
        source: "sd-mecha."),
      ParameterSchema(
        "compat", .choice(["none", "mergekit", "fusion_bench", "sd_mecha"]), default: "none",
        summary: "Reproduce a public tool, its absolute epsilons included.",
        source: "mergekit: products of norms floored at 1e-6. fusion_bench: aggregate angle, 1e-8 added to both denominators. "
          + "sd_mecha: granularity row, aggregate adjacent, norms floored at cos_eps, non-finite results replaced."),
    ],
    reports: ["cosine", "t", "outside_unit", "t_min", "t_mean", "t_max", "rows", "ignored"], makesTaskVector: true)

  private let ratio: StockRatio
  private let granularity: Granularity
  private let ignored: [Glob]
  private let output: OutputKind
  let scope: Scope

  init(_ parameters: Parameters) throws(Failure) {
    let compat = parameters.choice("compat", as: StockRatio.Compat.self)
    var aggregate = parameters.choice("aggregate", as: StockRatio.Aggregate.self)
    var granularity = parameters.choice("granularity", as: Granularity.self)
    if parameters.boolean("filter_wise") {
      guard granularity != .outFilter else {
        throw Failure(
          .parameter, "filter_wise: true means granularity: row, which contradicts granularity: out_filter: drop one")
      }
      granularity = .row
    }
    if compat == .fusionBench { aggregate = .angle }
    if compat == .sdMecha { (aggregate, granularity) = (.adjacent, .row) }
    scope = parameters.choice("scope", as: Scope.self)
    guard scope == .tensor || granularity == .tensor else {
      throw Failure(
        .parameter, "scope \(scope.rawValue) pools whole tensors, which contradicts a granularity below the tensor: drop one")
    }
    self.granularity = granularity
    ratio = StockRatio(
      aggregate: aggregate, clamp: parameters.choice("clamp", as: StockRatio.Clamp.self), compat: compat,
      cosEps: parameters.number("cos_eps"))
    ignored = parameters.strings("ignore_keys").flatMap { $0 == "clip" ? Self.clipKeys : [$0] }.map { Glob($0) }
    output = parameters.choice("output", as: OutputKind.self)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let n = tensor.modelCount
    let ignoredHere = ignored.contains { $0.matches(tensor.name) }
    if ignoredHere || tensor.shape.isEmpty || n == 1 {
      let decision = Decision([.init(key: "t", value: .double(1)), .init(key: "ignored", value: .bool(ignoredHere))])
      return average(n, t: 1).step(decision)
    }
    if let length = rowLength(tensor.shape) { return rows(length, tensor) }
    return .sweep(
      .gramOfDifferences(from: 0, inputs: tensor.inputCount) { gram in
        if gram.isZero { return average(n, t: 0).step(Decision([.init(key: "t", value: .double(0))])) }
        let result = ratio.of(gram)
        let decision = Decision([
          .init(key: "cosine", value: .double(result.cosine)), .init(key: "t", value: .double(result.t)),
          .init(key: "outside_unit", value: .bool(result.outside)),
        ])
        return average(n, t: result.t).step(decision)
      })
  }

  private func average(_ n: Int, t: Double) -> AffineCombination {
    AffineCombination(lambdas: [Double](repeating: t / Double(n), count: n), output: output, sum: t)
  }

  /// Elements of a slice with its own ratio; nil: the whole tensor is one vector.
  private func rowLength(_ shape: [Int]) -> Int? {
    if ratio.compat == .sdMecha { return max(1, shape[shape.count - 1]) }
    guard shape.count > 1 else { return nil }
    switch granularity {
    case .tensor: return nil
    case .row: return max(1, shape[shape.count - 1])
    case .outFilter: return max(1, shape.dropFirst().reduce(1, *))
    }
  }

  // MARK: - Rows

  /// A row whose t is infinite, as torch.nan_to_num(t * mean(d_i)) leaves it: the base where the mean is 0, else the base plus
  /// the largest binary32 number.
  private func saturate(_ block: Block, from: Int, count: Int, output: UnsafeMutableRawPointer, t: Double, _ n: Int) {
    AffineCombination(lambdas: [Double](repeating: 1 / Double(n), count: n), output: .taskVector)
      .run(block.inputs, from: from, count: count, output: output, block.outputType)
    withUnsafeTemporaryAllocation(of: Double.self, capacity: 2) { pair in
      let values = pair.baseAddress!
      let size = block.inputs.dtype.size
      for i in 0..<count {
        let place = output + i * block.outputType.size
        Cast.convert(block.inputs.table[0] + (from + i) * size, block.inputs.dtype, count: 1, into: values, .f64)
        Cast.convert(place, block.outputType, count: 1, into: values + 1, .f64)
        let push = values[1] * t
        if push.isInfinite { values[0] += (push > 0 ? 1 : -1) * Double(Float.greatestFiniteMagnitude) }
        Cast.narrow(values, count: 1, into: place, block.outputType)
      }
    }
  }

  /// One sweep: a row's Gram matrix, its ratio, and its result while it is in cache.
  private func rows(_ length: Int, _ tensor: TensorContext) -> Step {
    let n = tensor.modelCount
    let pairs = RowPairs(rows: n)
    // sums: rows outside [0, 1], sum of t; maxima: t and -t.
    var sweep = Sweep(sums: 4, writes: true) { block in
      withUnsafeTemporaryAllocation(of: Double.self, capacity: pairs.count) { triangle in
        for start in stride(from: 0, to: block.count, by: length) {
          triangle.initialize(repeating: 0)
          Gram.accumulate(
            block.inputs, from: start, count: length, reference: 0, crossTerms: false, pairs: pairs,
            sums: triangle.baseAddress!, workspace: block.workspace)
          let result = ratio.of(GramMatrix(triangle: triangle, size: n))
          let output = block.output! + start * block.outputType.size
          if result.t.isFinite {
            average(n, t: result.t).run(block.inputs, from: start, count: length, output: output, block.outputType)
          } else {
            saturate(block, from: start, count: length, output: output, t: result.t, n)
          }
          block.sums[0] += result.outside ? 1 : 0
          block.sums[1] += result.t
          block.sums[2] = max(block.sums[2], result.t)
          block.sums[3] = max(block.sums[3], -result.t)
        }
      }
    } next: { sums in
      let rows = tensor.count / length
      return .finish(
        Decision([
          .init(key: "t_min", value: .double(-sums[3])), .init(key: "t_mean", value: .double(sums[1] / Double(max(rows, 1)))),
          .init(key: "t_max", value: .double(sums[2])), .init(key: "outside_unit", value: .int(Int(sums[0]))),
          .init(key: "rows", value: .int(rows)),
        ]))
    }
    sweep.maxima = 2
    sweep.granule = length
    return .sweep(sweep)
  }
}
