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

  let json: JSON
  let method: any MergeMethod.Type
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
  private(set) var warnings: [String] = []

  var schema: MethodSchema { method.schema }

  private static let keys = [
    "merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "config_source", "on_shape_mismatch",
    "on_missing", "extras", "on_non_finite", "output", "random_seed", "statistics", "name", "vocabulary",
    "chat_template", "tokenizer", "tokenizer_source", "compat",
  ]
  private static let otherGrammar = ["slices", "modules"]

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
    for key in Self.otherGrammar where json[key] != nil && !json[key]!.isNull {
      throw Failure(.recipe, "the recipe uses '\(key)', which this version does not read: list whole models under 'models'")
    }
    var warnings: [String] = []
    for member in members where !Self.keys.contains(member.key) && !Self.otherGrammar.contains(member.key) {
      let hint = Suggestion.nearest(to: member.key, among: Self.keys).map { ": did you mean '\($0)'?" } ?? ""
      let text = "the recipe's key '\(member.key)' is unknown and has no effect\(hint)"
      if strict { throw Failure(.recipe, text) }
      warnings.append(text)
    }

    if let value = json["base_model"], !value.isNull { base = try Self.reference(value) } else { base = nil }
    let schema = method.schema
    var models: [Model] = []
    let shared = try Self.statistics(in: json, "the recipe")
    guard let list = json["models"]?.array, !list.isEmpty else {
      throw Failure(.recipe, "the recipe has no 'models': list at least one {model: PATH}")
    }
    for (i, entry) in list.enumerated() {
      let path = try Self.reference(entry.members != nil ? entry["model"] ?? .null : entry)
      for member in entry.members ?? [] where !["model", "parameters", "statistics"].contains(member.key) {
        let text = "models[\(i)] has the unknown key '\(member.key)', which has no effect"
        if strict { throw Failure(.recipe, text) }
        warnings.append(text)
      }
      let settings = try Self.settings(entry["parameters"], "models[\(i)].parameters", schema, strict, &warnings)
      for (name, _) in settings where schema.parameter(name)?.perModel == false {
        warnings.append("models[\(i)] sets '\(name)', which is no per-model parameter: move it to the recipe's 'parameters'")
      }
      if entry["statistics"] != nil, schema.parameter("statistics") == nil {
        warnings.append("models[\(i)] has statistics, of which \(name) makes no use")
      }
      let own = try Self.statistics(in: entry, "models[\(i)]")
      models.append(Model(path: path, statistics: own ?? shared, parameters: settings))
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
    self.warnings = warnings
  }

  // MARK: - Parts

  /// A model reference as text (see `ModelReference`): text as it is, a mapping in its short form where there is one.
  private static func reference(_ json: JSON) throws(Failure) -> String {
    if let text = json.string, !text.isEmpty { return text }
    return try ModelReference(json).text
  }

  /// The path of activation statistics, given as `statistics`, or among the parameters.
  private static func statistics(in json: JSON, _ place: String) throws(Failure) -> String? {
    if let path = json["parameters"]?["statistics"]?.string { return path }
    guard let value = json["statistics"], !value.isNull else { return nil }
    guard let path = value.string, !path.isEmpty else {
      throw Failure(.recipe, "statistics of \(place) is \(value.serialized(indent: 0)): give the path of a file")
    }
    return path
  }

  private static func settings(
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
      settings.append((member.key, try Setting(member.value, place: "\(place).\(member.key)")))
    }
    return settings
  }

  private static func dtype(_ json: JSON, _ key: String) throws(Failure) -> DType? {
    guard let value = json[key], !value.isNull else { return nil }
    guard let text = value.string, let dtype = DType(recipeName: text), dtype.isFloat else {
      throw Failure(
        .recipe,
        "'\(key)' is \(value.serialized(indent: 0)): give bfloat16, float16, float32, float64, float8_e4m3fn or float8_e5m2")
    }
    return dtype
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
