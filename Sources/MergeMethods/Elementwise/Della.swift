import JSON
import Platform
import TensorKernels

// DELLA: drop by rank within rows (DellaStages.swift) -> rescale -> weights -> sign election -> disjoint merge.
//
// A disjoint mean (normalize: true, mergekit's default) already divides by the models that are left, so a rescale would amplify: N
// equal task vectors of density 1/2 come out near twice as large. Unless `rescale` is given, or compat is mergekit, a mean is
// therefore not rescaled, and a sum is. Inputs: base and K >= 1 models, any shape.
// Source: Deep et al., "DELLA-Merging", arXiv:2406.11617; mergekit `della`.

/// Drop by rank within each row, then sign election and disjoint merge.
struct Della: MergeMethod {
  static let schema = MethodSchema(
    name: "della", title: "DELLA",
    summary: "Drops elements at random, small ones of each row more often, elects signs, and merges what agrees.",
    family: "elementwise", citation: "Deep et al., DELLA-Merging, arXiv:2406.11617; TIES: arXiv:2306.01708", base: .required,
    parameters: [
      .weight("Weight of the model's task vector, before the vote and in the mean."),
      .density("Mean probability with which an element is kept.", source: "1.0: mergekit."), .dellaEpsilon, .rescaleUnlessMean,
      ParameterSchema(
        "elect", .choice(["mass", "count", "none"]), default: "mass",
        summary: "How the sign of an element is elected: by the sum of the values, by the number of models; or not at all.",
        source: "mass: mergekit."),
      ParameterSchema(
        "zero_sign", .choice(["plus", "drop"]), default: "plus", summary: "The sign of a vote of 0: plus, or none.",
        source: "plus: mergekit."),
      .normalize(default: true, "Divide by the weights of the models that agree (mean), or take the sum."), .disjointMerge,
      .lambda("Factor of the merged task vector."), .randomSeed, .int8Mask, .dellaCompat,
    ],
    reports: ["kept", "conflicts", "rescale"], makesTaskVector: true)

  private let parameters: Parameters
  private let merge: DisjointMerge.Rule

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    merge = try parameters.disjointMerge()
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    DellaStages.scratchBytes(tensor, rescale: parameters.rescale(before: merge))
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = try DellaStages(parameters, tensor, rescale: parameters.rescale(before: merge))
    let zeroSign: Double = parameters.choice("zero_sign") == "plus" ? 1 : 0
    let (elect, lambda) = (parameters.election(), parameters.number("lambda"))
    return stages.begin { stages.write($0, elect: elect, zeroSign: zeroSign, merge: merge, lambda: lambda) }
  }
}
