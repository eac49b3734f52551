import JSON
import Platform
import TensorKernels

/// What an elementwise method does with each task vector before they are put together; the numbers are per model.
struct TaskVectorSettings {
  enum Rescale: String { case none, l1, inverse }
  enum Drop: String { case bernoulli, della }
  enum ZeroSign: String { case plus, majority, drop }
  enum Trim: String { case exact, inclusive }
  /// Which of the published countings of the trimmed elements.
  enum Counting { case standard, sdMecha, mergeLM, mergeLMPrune }

  /// Probability with which an element is kept by the random drop; 1: no drop.
  var keep: [Double]
  var drop = Drop.bernoulli
  var epsilon = 0.0
  var seed: UInt64 = 0
  var rescale = Rescale.none
  /// Is an L1 rescale taken over what the trim leaves, rather than over what the drop leaves?
  var rescalesAfterTrim = false
  /// Sums of magnitudes up to this are not rescaled by.
  var smallestSum = 0.0
  /// Share of the elements that the trim keeps; 1: no trim.
  var density: [Double]
  var trim = Trim.exact
  /// Share of the elements, the largest ones, that the trim takes away besides; nil: none.
  var gamma: [Double]?
  /// With gamma: does one element stay, however small the density?
  var keepsOne = true
  var counting = Counting.standard
  var scope = Scope.tensor
  var weights: [Double]
  var elect = SignElection.Rule.none
  var zeroSign = ZeroSign.plus
  /// The sign that a majority of 0 stands for.
  var tiedMajority = 1.0
  var merge = DisjointMerge.Rule.sum

  /// Nothing is dropped or trimmed, and nobody votes.
  init(weights: [Double]) {
    self.weights = weights
    keep = weights.map { _ in 1 }
    density = keep
  }

  var models: Int { weights.count }
  var trims: Bool { density.contains { $0 < 1 } }
  var drops: Bool { keep.contains { $0 < 1 } || drop == .della }

  /// The threshold to look for among `elements` magnitudes; nil: nothing to trim, or nothing to keep.
  func target(_ model: Int, elements: Int) -> ThresholdTarget? {
    let share = density[model]
    guard share > 0, share < 1, elements > 0 else { return nil }
    let kept = Int(Double(elements) * share)
    switch (counting, trim) {
    case (.standard, .inclusive): return smallest(elements - kept, of: elements, ties: .all)
    case (.mergeLMPrune, _): return smallest(masked(share, of: elements), of: elements, ties: .none)
    case (_, .exact): return max(1, kept) >= elements ? nil : ThresholdTarget(rank: max(1, kept), ties: .fill)
    case (.sdMecha, _): return smallest(max(1, Int((1 - share) * Double(elements))), of: elements, ties: .all)
    case (.mergeLM, _): return smallest(masked(share, of: elements), of: elements, ties: .all)
    }
  }

  /// floor(elements * mask rate): the rate came as 1 - density, whose rounding must not cost an element.
  private func masked(_ share: Double, of elements: Int) -> Int {
    let product = Double(elements) * (1 - share)
    let nearest = product.rounded()
    return Int((nearest - product).magnitude <= 1e-9 * product ? nearest : product)
  }

  /// The k-th smallest magnitude as a rank from the top.
  private func smallest(_ k: Int, of elements: Int, ties: ThresholdTarget.Ties) -> ThresholdTarget? {
    k < 1 ? nil : ThresholdTarget(rank: elements - k + 1, ties: ties)
  }
}

// MARK: - Parameters that several elementwise methods share

extension ParameterSchema {
  static func density(_ summary: String, default value: Double = 1.0, name: String = "density", source: String = "")
    -> ParameterSchema
  {
    ParameterSchema(
      name, .number, default: .double(value), minimum: 0, maximum: 1, perModel: true, summary: summary, source: source)
  }

  static func trim(_ summary: String = "Which elements at the threshold stay.", default value: String = "exact")
    -> ParameterSchema
  {
    ParameterSchema(
      "trim", .choice(["exact", "inclusive"]), default: .string(value),
      summary: summary
        + " exact: as many as the density says (at least one), ties by the lowest index. inclusive: all from the k-th smallest "
        + "magnitude on, k = n - floor(density * n).",
      source: "exact: mergekit, PEFT. inclusive: the paper's code, FusionBench, tall_masks, sd-mecha.")
  }

  static func trimScope(default value: String = "tensor") -> ParameterSchema {
    ParameterSchema(
      "scope", .choice(["tensor", "model"]), default: .string(value),
      summary: "Over what magnitudes are ranked and majorities counted: each tensor, or the whole model.",
      source: "tensor: mergekit, PEFT, sd-mecha. model: the paper's code, FusionBench, tall_masks, MergeLM.")
  }

  static func elect(default value: String = "mass") -> ParameterSchema {
    ParameterSchema(
      "elect", .choice(["mass", "count", "normfrac", "normmass", "none"]), default: .string(value),
      summary: "How the sign of an element is elected: by the sum of the values, by the number of models, by the largest "
        + "share of a model's squared norm, by the sum of those shares; or not at all.",
      source:
        "mass: the paper, mergekit. count: mergekit's sign_consensus count, sd-mecha. normfrac, normmass: the paper's code.")
  }

  static func zeroSign(default value: String = "plus") -> ParameterSchema {
    ParameterSchema(
      "zero_sign", .choice(["plus", "majority", "drop"]), default: .string(value),
      summary: "The sign of a vote of 0: plus, the sign that wins in most elements, or none.",
      source: "plus: mergekit, PEFT. majority: the paper's code, FusionBench, tall_masks. drop: sd-mecha.")
  }

  static func normalize(default value: Bool, _ summary: String) -> ParameterSchema {
    ParameterSchema("normalize", .boolean, default: .bool(value), summary: summary)
  }

  static let disjointMerge = ParameterSchema(
    "merge", .choice(["mean", "sum", "max"]), default: nil, isOptional: true,
    summary: "What becomes of the values that agree: their weighted mean (normalize: true), their sum (normalize: false), or "
      + "the largest.",
    source: "The paper's dis-mean, dis-sum and dis-max.")

  static func rescale(default value: String) -> ParameterSchema {
    ParameterSchema(
      "rescale", .choice(["l1", "inverse", "none"]), default: .string(value), aliases: ["true": "l1", "false": "none"],
      summary: "What makes up for the elements left out: the ratio of the sums of magnitudes before and after, 1 / density, or "
        + "nothing. true means l1, false none.",
      source: "l1: mergekit. inverse: the DARE paper, MergeLM, FusionBench, PEFT. none: 6DammK9's recipes.")
  }

  static let drop = ParameterSchema(
    "drop", .choice(["bernoulli", "della"]), default: "bernoulli",
    summary: "bernoulli: every element has the same chance. della: the chance grows with the magnitude's rank in the tensor, "
      + "from density - epsilon / 2 to density + epsilon / 2.",
    source: "bernoulli: DARE. della: 6DammK9's DGMLA; the rank is read off a histogram of 65536 bins.")

  static let epsilon = ParameterSchema(
    "epsilon", .number, default: 0.15, minimum: -1, maximum: 1,
    summary: "Width of DELLA's range of probabilities; negative keeps small elements rather than large ones.",
    source: "0.15: mergekit's DELLA. -0.1: 6DammK9's DGMLA.")

  static let randomSeed = ParameterSchema(
    "random_seed", .integer, default: 0, minimum: 0,
    summary: "Seed of the random masks (Philox, see docs/masks.md): the same masks for any threads, shards and order.")
}

extension Parameters {
  /// `normalize` and `merge` say the same thing; where both are given they have to agree.
  func disjointMerge() throws(Failure) -> DisjointMerge.Rule {
    let normalize = boolean("normalize")
    guard has("merge") else { return normalize ? .mean : .sum }
    let name = choice("merge")
    if isGiven("normalize"), name != (normalize ? "mean" : "sum") {
      throw Failure(
        .parameter, "merge: \(name) and normalize: \(normalize) of \(schema.name) contradict each other: drop one")
    }
    return name == "mean" ? .mean : name == "sum" ? .sum : .max
  }

  func election() -> SignElection.Rule {
    switch choice("elect") {
    case "mass": .mass
    case "count": .count
    case "normfrac": .normfrac
    case "normmass": .normmass
    default: .none
    }
  }

  /// The parameters of a random drop.
  func setDrop(_ settings: inout TaskVectorSettings) throws(Failure) {
    settings.keep = try perModel("density", count: settings.models)
    settings.drop = choice("drop", as: TaskVectorSettings.Drop.self)
    settings.epsilon = number("epsilon")
    settings.seed = UInt64(integer("random_seed"))
    if has("rescale") { settings.rescale = choice("rescale", as: TaskVectorSettings.Rescale.self) }
  }
}
