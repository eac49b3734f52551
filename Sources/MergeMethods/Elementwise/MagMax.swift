import Platform
import TensorKernels

// MagMax: w = w_0 + lambda * d_m, m = the model whose |d_i| is largest, element by element; of equals the later model.
//
// Inputs: base and K >= 1 models, any shape. One sweep; traffic: (K + 2) * size bytes per element.
// Source: Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning", arXiv:2407.06322; FusionBench.

/// The largest change of each element.
struct MagMax: MergeMethod {
  static let schema = MethodSchema(
    name: "magmax", title: "MagMax", summary: "The largest change of each element, whichever model made it.",
    family: "elementwise", citation: "Marczak et al., MagMax, arXiv:2407.06322", base: .required,
    parameters: [.lambda("Factor of the merged task vector. FusionBench's default is 0.5.")], reports: ["kept", "conflicts"],
    makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    var settings = TaskVectorSettings(weights: [Double](repeating: 1, count: tensor.modelCount))
    settings.merge = .max
    let stages = TaskVectorStages(settings, tensor)
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    return try stages.begin { () throws(Failure) in stages.write(lambda: lambda, output: output) }
  }
}
