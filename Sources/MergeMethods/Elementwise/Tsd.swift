import Platform
import TensorKernels

// TSD (TIES-SOUP with drop): drop -> rescale -> trim -> sign by count -> mean of what agrees.
//
// Inputs: base and K >= 1 models, any shape. A vote of 0 gives 0. Sweeps: one, and those of the stages that are asked for.
// Source: 6DammK9, ch01/dare.md; recipes x101a (density 0.9; rescale with lambda 0.9, which cancels).

/// TIES-SOUP on randomly dropped task vectors.
struct Tsd: MergeMethod {
  static let schema = MethodSchema(
    name: "tsd", title: "TSD (TIES-SOUP with drop)",
    summary: "The mean of the task vectors in the majority, after a random drop.", family: "elementwise",
    citation: "6DammK9, TSD (nai-anime-pure-negative-prompt, ch01/dare.md); DARE: arXiv:2311.03099", base: .required,
    parameters: [.weight("Weight of the model's task vector in the mean.")] + dropParameters + [
      .normalize(default: true, "Divide by the weights of the models that agree (mean), or take the sum."), .disjointMerge,
      .lambda("Factor of the merged task vector."),
    ],
    reports: ["kept", "conflicts", "rescale", "thresholds", "majority_sign"], makesTaskVector: true)

  /// What TSD, TSD v2 and TGMD have in common.
  static let dropParameters: [ParameterSchema] = [
    .density("Probability with which an element is kept.", default: 0.9, source: "0.9: 6DammK9's recipes."),
    .rescale(default: "none"),
    .density(
      "Share of the elements that the trim after the drop keeps.", name: "trim_density", source: "1.0: 6DammK9's recipes."),
    .trim(), .elect(default: "count"), .zeroSign(default: "drop"), .drop, .epsilon, .randomSeed,
  ]

  private let parameters: Parameters
  private let merge: DisjointMerge.Rule

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    merge = try parameters.disjointMerge()
  }

  /// The settings that TSD, TSD v2 and TGMD share.
  static func settings(_ parameters: Parameters, weights: [Double]) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: weights)
    try parameters.setDrop(&settings)
    settings.density = try parameters.perModel("trim_density", count: weights.count)
    settings.trim = parameters.choice("trim", as: TaskVectorSettings.Trim.self)
    settings.zeroSign = parameters.choice("zero_sign", as: TaskVectorSettings.ZeroSign.self)
    settings.elect = parameters.election()
    settings.merge = .mean
    return settings
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = try Self.settings(parameters, weights: try parameters.perModel("weight", count: models))
    settings.merge = merge
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
