import JSON
import Platform
import TensorKernels

// SCE (select, calculate, erase): w = w_0 + lambda * tau, tau the weighted mean of chosen elements that have the sign of their sum.
//
//   select: the floor(select_topk * m) elements whose variance across the models is largest, m: how many are not 0 in variance
//   calculate: w_i = |d_i|² of what is chosen, divided by their sum; all equal if that is 0
//   erase: only what has the sign of sum_i d_i (0: plus) counts; tau = sum_A w_i d_i / sum_A w_i
//
// select_topk 1 chooses everything; below that, elements in which all models agree are never chosen, so equal models, and a lone
// one, give the base. Variances are ranked by their root, in binary32 (binary64 if an input is F64), equal ones by the lowest index.
// Inputs: base and K >= 1 models, any shape. Sweeps: two for the threshold (four for F64), one or two where it goes through equal
// variances, one for the weights, one to write. Traffic of each: (K + 1) * size bytes per element.
// compat mergekit: the mean squares count as equal if their sum is below 1e-6, and sum_A w_i is at least 1e-6.
// Source: Wan et al., "FuseChat: Knowledge Fusion of Chat Models", arXiv:2408.07990; mergekit `sce`.

/// Chosen by variance, weighted by squares, minority signs erased.
struct Sce: MergeMethod {
  static let schema = MethodSchema(
    name: "sce", title: "SCE (select, calculate, erase)",
    summary: "The elements on which models disagree most, weighted by the squares of the changes, without minority signs.",
    family: "elementwise", citation: "Wan et al., FuseChat: Knowledge Fusion of Chat Models, arXiv:2408.07990",
    base: .required,
    parameters: [
      ParameterSchema(
        "select_topk", .number, default: 1.0, minimum: 0, maximum: 1,
        summary: "Share of the elements with a variance across models that is chosen; 1: all elements.",
        source: "1.0: mergekit."),
      .lambda("Factor of the merged task vector."), .int8Mask,
      .compatMergekit("mergekit: mean squares that sum to less than 1e-6 count as equal, and divisors are at least 1e-6."),
    ],
    reports: ["weights", "kept", "threshold"], makesTaskVector: true)

  private let parameters: Parameters
  private let share: Double

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    share = parameters.number("select_topk")
  }

  func scratchBytes(_ tensor: TensorContext) -> Int { share < 1 ? ScoreSearch.scratchBytes(ranks: 1, tensor) : 0 }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let scores = ElementScores(.deviation, models: tensor.modelCount, narrow: !tensor.isDouble)
    if share >= 1 { return weigh(SelectiveMerge(scores, .all), tensor, nil) }
    let (search, share) = (ScoreSearch(scores, tensor, ranks: 1), self.share)
    return search.begin { nonZero in
      let chosen = Int(share * Double(nonZero))
      return [chosen > 0 ? ThresholdTarget(rank: chosen, ties: .fill) : nil]
    } _: { (found) throws(Failure) in
      try search.choice(found[0]) { choice in weigh(SelectiveMerge(scores, choice), tensor, found[0]?.value) }
    }
  }

  // MARK: - Calculate

  private func weigh(_ merge: SelectiveMerge, _ tensor: TensorContext, _ threshold: Double?) -> Step {
    let models = tensor.modelCount
    var sweep = Sweep(sums: 1 + models, writes: false) { block in
      block.sums[0] += merge.addSquares(ScoreSearch.block(block), to: block.sums + 1)
    } next: { sums in
      let squares = sums.dropFirst()
      let total = squares.reduce(0, +)
      let isLevel = parameters.isMergekit ? total / Double(max(1, tensor.count)) < 1e-6 : total == 0
      let weights = squares.map { isLevel ? 1 / Double(models) : $0 / total }
      return write(merge, weights, tensor, threshold)
    }
    sweep.wide = share < 1
    // Squares that leave the range of binary32 make the tensor start again in binary64.
    sweep.squares = Array(1...models)
    return .sweep(sweep)
  }

  // MARK: - Erase, and write

  private func write(
    _ merge: SelectiveMerge, _ weights: [Double], _ tensor: TensorContext, _ threshold: Double?
  ) -> Step {
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    let floor = parameters.isMergekit ? 1e-6 : 0
    var sweep = Sweep(sums: 1 + tensor.modelCount, writes: true) { block in
      block.sums[0] += merge.run(
        ScoreSearch.block(block), weights: weights, floor: floor, lambda: lambda, addsBase: output == .weights,
        output: block.output!, block.outputType, sums: block.sums + 1)
    } next: { sums in
      let all = Double(max(1, tensor.count))
      return .finish(
        Decision([
          .init(key: "weights", value: .array(weights.map { .double($0) })),
          .init(key: "kept", value: .array(sums.dropFirst().map { .double($0 / all) })),
          .init(key: "threshold", value: threshold.map { .double($0) } ?? .null),
        ]))
    }
    sweep.wide = share < 1
    return .sweep(sweep)
  }
}
