import JSON
import Platform
import TensorKernels

// Model Breadcrumbs: w = w_0 + lambda * sum_i b_i r_i (d_i without its largest and its smallest elements).
//
// Of n elements the largest floor(gamma n) go, and the smallest until floor(density n), at least one, are left (OutlierSearch.swift).
// r_i: the rescale, none by default. normalize divides by sum b_i (a sum below 1e-8 counts as 1). Density 1 is task arithmetic.
// Inputs: base and K >= 1 models, any shape. Sweeps: two for both thresholds, one or two where they go through equal magnitudes, one
// for an L1 rescale, one to write. Traffic of each: (K + 1) * size bytes per element.
// Source: Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", arXiv:2312.06795;
// mergekit `breadcrumbs`.

/// The task vectors without outliers and small changes, added up.
struct Breadcrumbs: MergeMethod {
  static let schema = MethodSchema(
    name: "breadcrumbs", title: "Model Breadcrumbs",
    summary: "Takes the largest and the smallest changes out of each task vector, and adds up.", family: "elementwise",
    citation: "Davari and Belilovsky, Model Breadcrumbs, arXiv:2312.06795", base: .required,
    parameters: [
      .weight("Weight of the model's task vector."),
      .density("Share of the elements that is kept.", source: "1.0: mergekit."), .gamma, .rescale(default: "none"),
      .normalize(default: false, "Divide by the sum of the weights (a sum below 1e-8 counts as 1)."),
      .lambda("Factor of the merged task vector."), .int8Mask, .breadcrumbsCompat,
    ],
    reports: ["kept", "conflicts", "rescale", "thresholds", "outlier_thresholds"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? parameters.breadcrumbs(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let settings = try parameters.breadcrumbs(tensor.modelCount)
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
