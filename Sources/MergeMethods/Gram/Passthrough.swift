import JSON
import Platform

// Passthrough: w = scale * w_1, or w_1 as it is.
//
// Input: one model, any shape. One sweep: Combine; without a scale, a copy. Traffic: 2 * size bytes per element.
// Source: mergekit `passthrough`, which stacks layers of several models (slices).

/// A copy of one model, scaled if asked.
struct Passthrough: MergeMethod {
  static let schema = MethodSchema(
    name: "passthrough", title: "Passthrough", summary: "A copy of one model, its tensors times a factor if one is given.",
    family: "gram", citation: "mergekit, passthrough (arcee-ai/mergekit)", base: .donor, minModels: 1, maxModels: 1,
    parameters: [
      ParameterSchema(
        "scale", .number, default: nil, isOptional: true, perModel: true, summary: "Factor of the tensor; none: a copy.",
        source: "none: mergekit.")
    ],
    reports: ["scale"])

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  static func scalesEqualInputs(_ parameters: Parameters) -> Bool { parameters.has("scale") }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    guard parameters.has("scale") else { return .copy(input: 0, Decision()) }
    let scale = try parameters.perModel("scale", count: tensor.modelCount)
    return AffineCombination(scale, total: scale[0]).step(Decision([.init(key: "scale", value: .double(scale[0]))]))
  }
}
