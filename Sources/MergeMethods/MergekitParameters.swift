import TensorKernels

/// Parameters that recipes for mergekit carry.
extension ParameterSchema {
  /// mergekit's masks hold 0 and 1, in whatever type.
  static let int8Mask = ParameterSchema(
    "int8_mask", .boolean, default: false,
    summary: "Accepted, and changes nothing: the type of a temporary mask in mergekit, of which there is none here.",
    source: "mergekit.")

  /// The rescale of a drop that a disjoint merge follows. A mean already divides by the models that are left.
  static let rescaleUnlessMean = ParameterSchema(
    "rescale", .choice(["l1", "inverse", "none"]), default: nil, isOptional: true, aliases: ["true": "l1", "false": "none"],
    summary: "What makes up for the elements dropped: the ratio of the sums of magnitudes before and after, 1 / density, or "
      + "nothing. true means l1, false none. Not given: l1 before a sum, none before a mean, which divides by what is left already.",
    source: "l1, whatever the merge: mergekit's default, and compat: mergekit.")

  static func compatMergekit(_ summary: String) -> ParameterSchema {
    ParameterSchema(
      "compat", .choice(["none", "mergekit"]), default: "none", summary: summary, source: "mergekit; see docs/mergekit.md.")
  }
}

extension Parameters {
  /// Are mergekit's numbers to be reproduced, where they differ?
  var isMergekit: Bool { choice("compat") == "mergekit" }

  /// The rescale, where a disjoint merge follows the drop.
  func rescale(before merge: DisjointMerge.Rule) -> TaskVectorSettings.Rescale {
    if isGiven("rescale") { return choice("rescale", as: TaskVectorSettings.Rescale.self) }
    return merge == .mean && !isMergekit ? .none : .l1
  }
}
