import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// What to merge and how, as a user wrote it. The grammar is mergekit's with additions (docs/recipes.md).
public struct Recipe {
  struct Model {
    let path: String
    /// Path of its activation statistics.
    let statistics: String?
    let parameters: [(name: String, setting: Setting)]
  }

  enum ShapePolicy: String { case error, base, crop }
  enum MissingPolicy: String { case error, base, available }
  enum ExtrasPolicy: String { case drop, keep }
  /// Whose tensors are the output's: the base's (or the first model's), those of any model, or those that all have.
  enum TensorSet: String { case base, union, intersection }

  let json: JSON
  let method: any MergeMethod.Type
  /// `models`, `slices` or `modules`.
  let composition: Composition
  /// All models that are named, each once, in the recipe's order; of `models`, all entries.
  let models: [Model]
  let base: String?
  let parameters: [(name: String, setting: Setting)]
  /// The output's float type; nil: each tensor's own.
  let outputType: DType?
  let configSource: String?
  let onShapeMismatch: ShapePolicy
  let onMissing: MissingPolicy
  let extras: ExtrasPolicy
  let vocabulary: Vocabulary?
  /// As the recipe has it: auto, a name, or the text.
  let chatTemplate: String?
  let tensorSet: TensorSet
  /// Does the donor's tokenizer go along?
  let copiesTokenizer: Bool
  /// Does the output get a README.md?
  let writesModelCard: Bool
  private(set) var warnings: [String] = []

  var schema: MethodSchema { method.schema }

  private static let keys = [
    "merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "config_source", "on_shape_mismatch",
    "on_missing", "extras", "on_non_finite", "output", "random_seed", "statistics", "name", "slices", "modules", "tensor_set",
    "copy_tokenizer", "write_model_card", "vocabulary", "chat_template", "tokenizer", "tokenizer_source", "compat",
  ]
  /// Keys of mergekit's earlier grammars, and what became of them.
  private static let legacyKeys = [
    "embed_slerp": "embeddings are merged like all tensors", "input_model_parameters": "move them to each model's 'parameters'",
  ]

  /// - Parameter strict: unknown keys and parameters are errors, not warnings.
  public init(_ json: JSON, strict: Bool) throws(Failure) {
    guard let members = json.members else {
      throw Failure(
        .recipe, "a recipe is an object with 'merge_method' and 'models'; this is \(json.serialized(indent: 0).prefix(60))")
    }
    guard let name = json["merge_method"]?.string else {
      throw Failure(.recipe, "the recipe has no 'merge_method': name one of the methods")
    }
    self.json = Vocabulary.withoutMade(json)
    method = try Registry.method(named: name)
    var warnings: [String] = []
    for member in members where !Self.keys.contains(member.key) {
      let hint = Suggestion.nearest(to: member.key, among: Self.keys).map { ": did you mean '\($0)'?" } ?? ""
      let text =
        Self.legacyKeys[member.key].map {
          "the recipe's key '\(member.key)' is of an earlier grammar and has no effect: \($0)"
        } ?? "the recipe's key '\(member.key)' is unknown and has no effect\(hint)"
      if strict { throw Failure(.recipe, text) }
      warnings.append(text)
    }

    if let value = json["base_model"], !value.isNull { base = try Self.reference(value) } else { base = nil }
    let schema = method.schema
    var reader = CompositionReader(schema: schema, strict: strict, statistics: try Self.statistics(in: json, "the recipe"))
    composition = try reader.read(json)
    warnings += reader.warnings
    var models: [Model] = []
    for source in composition.sources where source.layers == nil || !models.contains(where: { $0.path == source.model.path }) {
      models.append(source.model)
    }
    var parameters = try Self.settings(json["parameters"], "parameters", schema, strict, &warnings)
    for key in ["on_non_finite", "output", "random_seed", "compat"] {
      guard let value = json[key], !value.isNull else { continue }
      guard schema.parameter(key) != nil else {
        // A seed is given to every merge of a script, whether it draws or not; compat concerns more than the method.
        if key != "random_seed", key != "compat" { warnings.append("\(name) has no '\(key)', which has no effect") }
        continue
      }
      parameters.append((key, try Setting(value, place: key)))
    }
    self.models = models
    self.parameters = parameters

    let named = try Self.dtype(json, "dtype")
    outputType = try Self.dtype(json, "out_dtype") ?? named
    configSource = try Self.donor(json["config_source"], base, models)
    // mergekit cuts embeddings of unequal height to what they have in common.
    let cuts = json["compat"]?.string == "mergekit" || json["parameters"]?["compat"]?.string == "mergekit"
    onShapeMismatch = try Self.policy(json, "on_shape_mismatch", cuts ? .crop : .error, ["error", "base", "crop"])
    onMissing = try Self.policy(json, "on_missing", .error, ["error", "base", "available"])
    extras = try Self.policy(json, "extras", .drop, ["drop", "keep"])
    vocabulary = try Vocabulary.section(of: json)
    if let value = json["chat_template"], !value.isNull {
      guard let text = value.string else {
        throw Failure(
          .recipe, "'chat_template' is \(value.serialized(indent: 0).prefix(60)): give a name, or the template's text")
      }
      if text != "auto" { _ = try ChatTemplate.text(text) }
      chatTemplate = text
    } else {
      chatTemplate = nil
    }
    tensorSet = try Self.policy(json, "tensor_set", .base, ["base", "union", "intersection"])
    copiesTokenizer = try Self.flag(json, "copy_tokenizer", true)
    writesModelCard = try Self.flag(json, "write_model_card", true)
    self.warnings = warnings
  }

  // MARK: - Parts

  /// A model reference as text (see `ModelReference`): text as it is, a mapping in its short form where there is one.
  static func reference(_ json: JSON) throws(Failure) -> String {
    if let text = json.string, !text.isEmpty { return text }
    return try ModelReference(json).text
  }

  /// The path of activation statistics, given as `statistics`, or among the parameters.
  static func statistics(in json: JSON, _ place: String) throws(Failure) -> String? {
    if let path = json["parameters"]?["statistics"]?.string { return path }
    guard let value = json["statistics"], !value.isNull else { return nil }
    guard let path = value.string, !path.isEmpty else {
      throw Failure(.recipe, "statistics of \(place) is \(value.serialized(indent: 0)): give the path of a file")
    }
    return path
  }

  static func settings(
    _ json: JSON?, _ place: String, _ schema: MethodSchema, _ strict: Bool, _ warnings: inout [String]
  ) throws(Failure) -> [(name: String, setting: Setting)] {
    guard let json, !json.isNull else { return [] }
    guard let members = json.members else { throw Failure(.recipe, "\(place) must be an object of names and values") }
    var settings: [(name: String, setting: Setting)] = []
    for member in members {
      guard schema.parameter(member.key) != nil else {
        let text = Parameters.unknown(member.key, schema)
        if strict { throw Failure(.parameter, text) }
        warnings.append(text)
        continue
      }
      // A path of statistics belongs to the model, not to the method's parameters.
      if member.key == "statistics", member.value.string != nil { continue }
      let setting = try Setting(member.value, place: "\(place).\(member.key)")
      if setting.isEmptyList, ![.strings, .vectors].contains(schema.parameter(member.key)!.kind) {
        throw Failure(.recipe, "\(place).\(member.key) has an empty list: give a number, or a gradient of at least one")
      }
      settings.append((member.key, setting))
    }
    return settings
  }

  private static func dtype(_ json: JSON, _ key: String) throws(Failure) -> DType? {
    guard let value = json[key], !value.isNull else { return nil }
    if ["int64", "torch.int64"].contains(value.string) {
      throw Failure(.recipe, "'\(key)' is int64, which rounds every weight to a whole number: give a float type")
    }
    guard let text = value.string, let dtype = DType(recipeName: text), dtype.isFloat else {
      throw Failure(
        .recipe,
        "'\(key)' is \(value.serialized(indent: 0)): give bfloat16, float16, float32, float64, float8_e4m3fn or float8_e5m2")
    }
    return dtype
  }

  private static func flag(_ json: JSON, _ key: String, _ standard: Bool) throws(Failure) -> Bool {
    guard let value = json[key], !value.isNull else { return standard }
    guard let flag = value.bool else {
      throw Failure(.recipe, "'\(key)' is \(value.serialized(indent: 0)): give true or false")
    }
    return flag
  }

  private static func policy<Policy: RawRepresentable>(
    _ json: JSON, _ key: String, _ standard: Policy, _ choices: [String]
  ) throws(Failure) -> Policy where Policy.RawValue == String {
    guard let value = json[key], !value.isNull else { return standard }
    guard let text = value.string, let policy = Policy(rawValue: text) else {
      throw Failure(.recipe, "'\(key)' is \(value.serialized(indent: 0)): give one of \(choices.joined(separator: ", "))")
    }
    return policy
  }

  /// The path of the model whose config and tokenizer are carried along: `base`, a model's path, or its number (0: the base).
  private static func donor(_ json: JSON?, _ base: String?, _ models: [Model]) throws(Failure) -> String? {
    guard let json, !json.isNull else { return nil }
    if json.string == "base" || json.int == 0 {
      guard let base else {
        throw Failure(.recipe, "config_source is the base, but the recipe has no base_model: name a model")
      }
      return base
    }
    if let number = json.int {
      guard (1...models.count).contains(number) else {
        throw Failure(
          .recipe,
          "config_source is \(number), but there are \(models.count) models: give 0 for the base, or a model's number from 1")
      }
      return models[number - 1].path
    }
    if let text = json.string, text == base || models.contains(where: { $0.path == text }) { return text }
    throw Failure(
      .recipe, "config_source is \(json.serialized(indent: 0)), which is neither 'base' nor one of the models: name one of them"
    )
  }
}
