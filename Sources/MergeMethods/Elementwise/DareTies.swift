import JSON
import Platform
import TensorKernels

// DARE, then TIES: drop -> rescale -> trim -> weights -> sign election -> disjoint merge.
//
// Inputs: base and K >= 1 models, any shape. mergekit's form has no trim (trim_density 1) and adds up what agrees; FusionBench and
// MergeLM trim to the largest 20 % of the model. A disjoint mean already divides by the survivors, and a rescale would amplify: unless
// `rescale` is given, or compat is mergekit, normalize: true is not rescaled.
// Sweeps: as in DareLinear.swift and Ties.swift together.
// Source: Yu et al., arXiv:2311.03099; Yadav et al., arXiv:2306.01708.

/// Random drop, then trim, sign election and disjoint merge.
struct DareTies: MergeMethod {
  static let schema = MethodSchema(
    name: "dare_ties", title: "DARE-TIES",
    summary: "Drops elements of each task vector at random, elects signs, and adds up what agrees.", family: "elementwise",
    citation: "Yu et al., Language Models are Super Mario, arXiv:2311.03099; TIES: arXiv:2306.01708", base: .required,
    parameters: [
      .weight("Weight of the model's task vector."),
      .density("Probability with which an element is kept.", source: "1.0: mergekit's default."), .rescaleUnlessMean,
      .density(
        "Share of the elements that the trim after the drop keeps.", name: "trim_density",
        source: "1.0: mergekit. 0.2: FusionBench, MergeLM."),
      .trim(), .trimScope(), .elect(), .zeroSign(),
      .normalize(default: false, "Divide by the weights of the models that agree (mean), or take the sum."), .disjointMerge,
      .lambda("Factor of the merged task vector. FusionBench's default is 0.5."), .drop, .epsilon, .randomSeed, .int8Mask,
      ParameterSchema(
        "compat", .choice(["none", "mergekit", "fusion_bench"]), default: "none",
        summary: "The settings of a public tool, for the parameters that are not given.",
        source:
          "mergekit: no L1 rescale where a sum is below 1e-7, and a mean is rescaled like a sum. fusion_bench: rescale inverse, trim inclusive, zero_sign "
          + "majority, scope model."),
    ],
    reports: ["kept", "conflicts", "rescale", "thresholds", "majority_sign"], makesTaskVector: true)

  private let parameters: Parameters
  private let merge: DisjointMerge.Rule
  private let isFusionBench: Bool
  let scope: Scope

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    merge = try parameters.disjointMerge()
    isFusionBench = parameters.choice("compat") == "fusion_bench"
    scope = isFusionBench && !parameters.isGiven("scope") ? .model : parameters.choice("scope", as: Scope.self)
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: try parameters.perModel("weight", count: models))
    try parameters.setDrop(&settings)
    settings.rescale = parameters.rescale(before: merge)
    settings.density = try parameters.perModel("trim_density", count: models)
    settings.trim = parameters.choice("trim", as: TaskVectorSettings.Trim.self)
    settings.zeroSign = parameters.choice("zero_sign", as: TaskVectorSettings.ZeroSign.self)
    if isFusionBench {
      if !parameters.isGiven("rescale") { settings.rescale = .inverse }
      if !parameters.isGiven("trim") { settings.trim = .inclusive }
      if !parameters.isGiven("zero_sign") { settings.zeroSign = .majority }
      settings.tiedMajority = -1
    }
    settings.scope = scope
    settings.elect = parameters.election()
    settings.merge = merge
    if parameters.choice("compat") == "mergekit" { settings.smallestSum = 1e-7 }
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
