import Platform
import TensorKernels

// TIES-SOUP: w = w_0 + lambda * tau; tau is the mean of the task vectors that have the sign most models have.
//
//   gamma = sign(sum_i sign(b_i d_i));   tau = sum_A b_i d_i / sum_A b_i over A = {i: sign(b_i d_i) = gamma};   0 where the vote is 0
//
// TIES without a trim, by count. Inputs: base and K >= 1 models, any shape. One sweep; traffic: (K + 2) * size bytes per element.
// Source: 6DammK9, ch01/ties.md.

/// The mean of the task vectors in the majority, element by element.
struct TiesSoup: MergeMethod {
  static let schema = MethodSchema(
    name: "ties_soup", title: "TIES-SOUP",
    summary: "The mean of the task vectors whose sign most models share; no trim.", family: "elementwise",
    citation: "6DammK9, TIES-SOUP (nai-anime-pure-negative-prompt, ch01/ties.md); TIES: arXiv:2306.01708", base: .required,
    parameters: [
      .weight("Weight of the model's task vector in the mean."), .lambda("Factor of the merged task vector."),
    ],
    reports: ["kept", "conflicts"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    var settings = TaskVectorSettings(weights: try parameters.perModel("weight", count: tensor.modelCount))
    (settings.elect, settings.zeroSign, settings.merge) = (.count, .drop, .mean)
    let stages = TaskVectorStages(settings, tensor)
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    return try stages.begin { () throws(Failure) in stages.write(lambda: lambda, output: output) }
  }
}
