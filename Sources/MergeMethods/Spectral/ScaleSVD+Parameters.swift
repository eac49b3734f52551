import JSON
import LinearAlgebra
import Platform

// What of scale_svd's parameters concerns the decomposition.

/// The decomposition alone, for one matrix.
public enum MatrixCompression {
  /// No method of the registry: the schema checks the parameters and names them in messages.
  private static let schema = MethodSchema(
    name: "low_rank_plus_sparse", title: "Low rank plus sparse", summary: ScaleSVD.schema.summary, family: "spectral",
    citation: ScaleSVD.schema.citation, base: .donor, parameters: ScaleSVD.compression.filter { $0.name != "statistics" },
    reports: [])

  /// - Throws: `.parameter` for what scale_svd would refuse too.
  public static func options(_ given: [JSON.Member]) throws(Failure) -> LowRankPlusSparse.Options {
    try ScaleSVD.compression(Parameters(schema, given))
  }
}

extension ScaleSVD {
  static let compression: [ParameterSchema] = [
    ParameterSchema(
      "sparsity", .number, default: 0.1, minimum: 0, maximum: 1,
      summary: "Share of the numbers that is saved: 1 - sparsity remain.",
      source: "0.1: AwRank."),
    ParameterSchema(
      "rank_ratio", .number, default: 0.75, minimum: 0, maximum: 1,
      summary: "Share of the remaining numbers that goes to the low-rank part; its rank is at least 1.", source: "0.75: AwRank."
    ),
    ParameterSchema(
      "num_iters", .integer, default: 10, minimum: 1, maximum: 1000, summary: "Alternations.", source: "10: AwRank. 80: OATS."),
    ParameterSchema(
      "mask_strategy", .choice(["row", "global", "n:m"]), default: "row",
      summary:
        "Where the smallest elements of the sparse part are sought: in each row, in the whole matrix, or in groups of columns.",
      source: "row: AwRank, OATS. global: AwRank. n:m: OATS with prune_n and prune_m."),
    ParameterSchema(
      "prune_n", .integer, default: 0, minimum: 0, maximum: 1e6,
      summary: "Columns of every prune_m neighbours that are kept; 0: none given. Giving both means mask_strategy: n:m.",
      source: "OATS."),
    ParameterSchema("prune_m", .integer, default: 0, minimum: 0, maximum: 1e6, summary: "Length of a group.", source: "OATS."),
    ParameterSchema(
      "target_rank", .integer, default: nil, isOptional: true, minimum: 1, maximum: 1e6,
      summary: "The rank of the low-rank part, instead of what sparsity and rank_ratio give.", source: "OATS."),
    ParameterSchema(
      "unstruct_sparse", .number, default: nil, isOptional: true, minimum: 0, maximum: 1,
      summary: "The fraction of the sparse part that is dropped, instead of what sparsity and rank_ratio give.", source: "OATS."
    ),
    ParameterSchema(
      "refit", .boolean, default: false,
      summary:
        "Make the low-rank part once more from the final sparse part, of rank at most min(m, n) - 1, with 1e-8 added to the "
        + "statistics.", source: "true: AwRank's iso_iasad. false: its scale_svd_utils, OATS."),
    ParameterSchema(
      "statistics", .vectors, default: nil, isOptional: true,
      summary:
        "Activation statistics of the input channels (their second moments): one list for all models, or one list or null per "
        + "model."),
  ]

  static func compression(_ parameters: Parameters) throws(Failure) -> LowRankPlusSparse.Options {
    var options = LowRankPlusSparse.Options()
    options.sparsity = parameters.number("sparsity")
    options.rankRatio = parameters.number("rank_ratio")
    options.iterations = parameters.integer("num_iters")
    if parameters.has("target_rank") { options.targetRank = parameters.integer("target_rank") }
    if parameters.has("unstruct_sparse") { options.unstructuredSparsity = parameters.number("unstruct_sparse") }
    options.refit = parameters.boolean("refit")
    options.mask = try mask(
      parameters.choice("mask_strategy"), keep: parameters.integer("prune_n"), of: parameters.integer("prune_m"))
    return options
  }

  private static func mask(_ strategy: String, keep: Int, of group: Int) throws(Failure) -> LowRankPlusSparse.Mask {
    if keep == 0, group == 0 {
      guard strategy != "n:m" else {
        throw Failure(.parameter, "mask_strategy: n:m needs prune_n and prune_m: give both, 2 and 4 for example")
      }
      return strategy == "global" ? .global : .row
    }
    guard keep > 0, group > keep else {
      throw Failure(
        .parameter, "prune_n = \(keep) and prune_m = \(group) do not go together: give 0 < prune_n < prune_m, or neither")
    }
    guard strategy != "global" else {
      throw Failure(.parameter, "mask_strategy: global contradicts prune_n and prune_m: drop one")
    }
    return .nOfM(keep: keep, of: group)
  }

  /// One statistic or nil (ones) per model, and what to say about those that do not fit.
  func statistics(_ tensor: TensorContext, columns: Int) throws(Failure) -> ([[Double]?], [String]) {
    let given = try parameters.vectors("statistics", count: tensor.modelCount)
    let source = given.isEmpty ? tensor.statistics : given
    var warnings: [String] = []
    var result: [[Double]?] = []
    for (index, statistic) in source.prefix(tensor.modelCount).enumerated() {
      guard let statistic, statistic.count == columns else {
        if let statistic {
          warnings.append(
            "the activation statistic of model \(index + 1) has \(statistic.count) channels, but '\(tensor.name)' has \(columns) "
              + "columns: ones are used")
        }
        result.append(nil)
        continue
      }
      guard statistic.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
        throw Failure(
          .parameter,
          "the activation statistic of model \(index + 1) for '\(tensor.name)' has a negative number, or one that is not finite: give "
            + "second moments")
      }
      result.append(statistic)
    }
    return (source.isEmpty ? [] : result + [[Double]?](repeating: nil, count: tensor.modelCount - result.count), warnings)
  }
}
