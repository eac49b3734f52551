import Platform
import TensorKernels

// Magnitude pruning: w = w_0 + lambda * sum_i b_i r_i (the largest elements of d_i).
//
// Inputs: base and K >= 1 models, any shape. Thresholds are exact (BracketSearch.swift). normalize divides by sum b_i (a sum below
// 1e-8 counts as 1). Sweeps: the threshold's, one for an L1 rescale, one to write.
// Source: Yu et al., "Language Models are Super Mario", arXiv:2311.03099, the magnitude baseline; MergeLM.

/// The largest changes of each model, added up.
struct MagnitudePrune: MergeMethod {
  static let schema = MethodSchema(
    name: "magnitude_prune", title: "Magnitude pruning",
    summary: "Keeps the largest changes of each model and adds them up.", family: "elementwise",
    citation: "Yu et al., Language Models are Super Mario, arXiv:2311.03099", base: .required,
    parameters: [
      .weight("Weight of the model's task vector."),
      .density("Share of the elements that is kept.", default: 0.9, source: "0.9: MergeLM's default mask rate of 0.1."),
      .trim(),
      .trimScope(), .rescale(default: "none"),
      .normalize(default: false, "Divide by the sum of the weights (a sum below 1e-8 counts as 1)."),
      .lambda("Factor of the merged task vector."),
      ParameterSchema(
        "compat", .choice(["none", "merge_lm"]), default: "none",
        summary: "merge_lm: drop the floor(n * (1 - density)) smallest, and what is equal to the largest of them.",
        source: "MergeLM."),
    ],
    reports: ["kept", "conflicts", "rescale", "thresholds"], makesTaskVector: true)

  private let parameters: Parameters
  let scope: Scope

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    scope = parameters.choice("scope", as: Scope.self)
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: try parameters.perModel("weight", count: models))
    settings.density = try parameters.perModel("density", count: models)
    settings.trim = parameters.choice("trim", as: TaskVectorSettings.Trim.self)
    settings.scope = scope
    settings.rescale = parameters.choice("rescale", as: TaskVectorSettings.Rescale.self)
    settings.rescalesAfterTrim = true
    if parameters.choice("compat") == "merge_lm" { settings.counting = .mergeLMPrune }
    return settings
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? settings(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let settings = try settings(tensor.modelCount)
    var lambda = parameters.number("lambda")
    if parameters.boolean("normalize") {
      let sum = settings.weights.reduce(0, +)
      if sum.magnitude >= 1e-8 { lambda /= sum }
    }
    let stages = TaskVectorStages(settings, tensor)
    let output = parameters.choice("output", as: OutputKind.self)
    let scale = lambda
    return try stages.begin { () throws(Failure) in stages.write(lambda: scale, output: output) }
  }
}
