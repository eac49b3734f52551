import JSON
import Platform
import TensorKernels

// TIES: w = w_0 + lambda * tau; tau from the trimmed task vectors of each model, by sign election and disjoint merge.
//
//   trim: keep the largest |d_i|;  e_i = b_i d_i;  gamma = elected sign;  tau = mean, sum or max of the e_i whose sign is gamma
//
// Inputs: base and K >= 1 models, any shape. Thresholds are exact (BracketSearch.swift); with scope: model they, and the majority
// sign, are taken over all tensors. K = 1 is a trimmed task vector. Nothing is trimmed at density 1, everything at 0.
// Sweeps: a sample and one or two to count (two per pair of histogram levels with scope: model), a cell where only some ties stay,
// one for an L1 rescale, one for the majority sign, one to write. Traffic of each: (K + 1) * size bytes per element.
// Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", arXiv:2306.01708. The tools disagree about
// scope, ties, zero votes and weights; see the schema.

/// Trim, elect signs, merge what agrees.
struct Ties: MergeMethod {
  static let schema = MethodSchema(
    name: "ties", title: "TIES",
    summary: "Trims small changes, elects a sign for every element and merges the task vectors that agree with it.",
    family: "elementwise", citation: "Yadav et al., TIES-Merging, arXiv:2306.01708", base: .required,
    parameters: [
      .weight("Weight of the model's task vector, before the vote and in the mean."),
      .density("Share of the elements that the trim keeps.", source: "1.0: mergekit. 0.2: the paper."),
      .trim(), .trimScope(), .rescale(default: "none"), .elect(), .zeroSign(),
      .normalize(default: true, "Divide by the weights of the models that agree (mean), or take the sum."), .disjointMerge,
      .lambda("Factor of the merged task vector. FusionBench's default is 0.3."), .int8Mask,
      ParameterSchema(
        "compat", .choice(["none", "mergekit", "ties_merging", "fusion_bench", "sd_mecha", "merge_lm"]), default: "none",
        summary: "The settings of a public tool, for the parameters that are not given.",
        source:
          "mergekit: the defaults, and no L1 rescale where a sum is below 1e-7. ties_merging, fusion_bench, merge_lm: trim inclusive, zero_sign majority, scope model. "
          + "sd_mecha: trim inclusive, zero_sign drop."),
    ],
    reports: ["kept", "conflicts", "rescale", "thresholds", "majority_sign"], makesTaskVector: true)

  private let parameters: Parameters
  private let merge: DisjointMerge.Rule
  let scope: Scope

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    merge = try parameters.disjointMerge()
    scope = Self.preset(parameters, "scope").flatMap { Scope(rawValue: $0) } ?? .tensor
  }

  /// What `compat` sets, where the caller has not.
  private static func preset(_ parameters: Parameters, _ name: String) -> String? {
    let values: [String: String]
    switch parameters.choice("compat") {
    case "ties_merging", "fusion_bench", "merge_lm":
      values = ["trim": "inclusive", "zero_sign": "majority", "scope": "model"]
    case "sd_mecha": values = ["trim": "inclusive", "zero_sign": "drop"]
    default: values = [:]
    }
    if !parameters.isGiven(name), let value = values[name] { return value }
    return parameters.choice(name)
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: try parameters.perModel("weight", count: models))
    settings.density = try parameters.perModel("density", count: models)
    settings.trim = Self.preset(parameters, "trim").flatMap { .init(rawValue: $0) } ?? .exact
    settings.zeroSign = Self.preset(parameters, "zero_sign").flatMap { .init(rawValue: $0) } ?? .plus
    settings.scope = scope
    settings.elect = parameters.election()
    settings.merge = merge
    settings.rescale = parameters.choice("rescale", as: TaskVectorSettings.Rescale.self)
    settings.rescalesAfterTrim = true
    switch parameters.choice("compat") {
    case "mergekit": settings.smallestSum = 1e-7
    case "sd_mecha": settings.counting = .sdMecha
    case "merge_lm": (settings.counting, settings.tiedMajority) = (.mergeLM, -1)
    case "ties_merging", "fusion_bench": settings.tiedMajority = -1
    default: break
    }
    return settings
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? settings(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = TaskVectorStages(try settings(tensor.modelCount), tensor)
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    return try stages.begin { () throws(Failure) in stages.write(lambda: lambda, output: output) }
  }
}
