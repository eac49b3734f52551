import JSON
import Platform
import TensorKernels

// Model Breadcrumbs with the sign election of TIES: trim both ends -> rescale -> weights -> elect signs -> disjoint merge.
//
// The trim: Breadcrumbs.swift; election and merge: DisjointMerge.swift. mergekit adds up what agrees (normalize: false).
// Inputs: base and K >= 1 models, any shape. Sweeps: those of Breadcrumbs.
// Source: Davari and Belilovsky, arXiv:2312.06795; Yadav et al., arXiv:2306.01708; mergekit `breadcrumbs_ties`.

/// The task vectors without outliers and small changes, merged where signs agree.
struct BreadcrumbsTies: MergeMethod {
  static let schema = MethodSchema(
    name: "breadcrumbs_ties", title: "Model Breadcrumbs with TIES",
    summary: "Takes the largest and the smallest changes out of each task vector, elects signs, and adds up what agrees.",
    family: "elementwise", citation: "Davari and Belilovsky, Model Breadcrumbs, arXiv:2312.06795; TIES: arXiv:2306.01708",
    base: .required,
    parameters: [
      .weight("Weight of the model's task vector, before the vote and in the mean."),
      .density("Share of the elements that is kept.", source: "1.0: mergekit."), .gamma, .rescale(default: "none"), .elect(),
      .zeroSign(), .normalize(default: false, "Divide by the weights of the models that agree (mean), or take the sum."),
      .disjointMerge, .lambda("Factor of the merged task vector."), .int8Mask, .breadcrumbsCompat,
    ],
    reports: ["kept", "conflicts", "rescale", "thresholds", "outlier_thresholds", "majority_sign"], makesTaskVector: true)

  private let parameters: Parameters
  private let merge: DisjointMerge.Rule

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    merge = try parameters.disjointMerge()
  }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = try parameters.breadcrumbs(models)
    settings.zeroSign = parameters.choice("zero_sign", as: TaskVectorSettings.ZeroSign.self)
    settings.elect = parameters.election()
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
