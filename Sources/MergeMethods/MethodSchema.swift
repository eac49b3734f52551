import JSON
import Platform

/// What a method is and takes: everything that documentation, bindings and recipes need to know of it.
public struct MethodSchema: Sendable {
  /// How a method uses the base model.
  public enum Base: String, Sendable {
    /// It is an input, and has to be given.
    case required
    /// It is an input when given.
    case optional
    /// It gives names, config and tokenizer, and is no input.
    case donor
  }

  public let name: String
  public let title: String
  public let summary: String
  public let family: String
  public let citation: String
  public let base: Base
  public let minModels: Int
  public let maxModels: Int?
  /// The method's own parameters; `allParameters` adds the common ones.
  public let parameters: [ParameterSchema]
  /// Keys of its decisions in the report.
  public let reports: [String]
  /// Does it make a task vector, which `output: task_vector` writes instead of the merged weights?
  public let makesTaskVector: Bool

  public init(
    name: String, title: String, summary: String, family: String, citation: String, base: Base, minModels: Int = 1,
    maxModels: Int? = nil, parameters: [ParameterSchema], reports: [String], makesTaskVector: Bool = false
  ) {
    self.name = name
    self.title = title
    self.summary = summary
    self.family = family
    self.citation = citation
    self.base = base
    self.minModels = minModels
    self.maxModels = maxModels
    self.parameters = parameters
    self.reports = reports
    self.makesTaskVector = makesTaskVector
  }

  public var allParameters: [ParameterSchema] {
    var all = parameters
    if makesTaskVector { all.append(.output) }
    all.append(.onNonFinite)
    return all
  }

  /// Can it merge so many models, with a base or without?
  public func check(models: Int, hasBase: Bool) throws(Failure) {
    if base == .required, !hasBase { throw Failure(.method, "\(name) needs a base: give one (base_model in a recipe)") }
    if models < minModels {
      throw Failure(.method, "\(name) needs at least \(minModels) models beside the base, not \(models): give more")
    }
    if let most = maxModels, models > most {
      throw Failure(.method, "\(name) takes at most \(most) models, not \(models): give fewer")
    }
  }

  public func parameter(_ name: String) -> ParameterSchema? { allParameters.first { $0.name == name } }

  public var json: JSON {
    [
      "name": .string(name), "title": .string(title), "summary": .string(summary), "family": .string(family),
      "citation": .string(citation),
      "inputs": [
        "base": .string(base.rawValue), "min_models": .int(minModels), "max_models": maxModels.map { .int($0) } ?? .null,
      ],
      "parameters": .array(allParameters.map(\.json)), "reports": .array(reports.map { .string($0) }),
    ]
  }
}

/// One parameter of a method.
public struct ParameterSchema: Sendable {
  public enum Kind: Sendable, Equatable {
    case number
    case integer
    case boolean
    case choice([String])
    case strings
    /// A list of numbers for all models, or a list with one list (or null) per model.
    case vectors
    /// An input of the merge: its name, or its number, counted from 1; 0 means none.
    case model
  }

  public let name: String
  public let kind: Kind
  /// nil: required, unless `isOptional`.
  public let defaultValue: JSON?
  public let isOptional: Bool
  public let minimum: Double?
  public let maximum: Double?
  /// Does it take one value per model?
  public let perModel: Bool
  /// Other spellings of a choice; true and false are spelled so.
  public let aliases: [String: String]
  public let summary: String
  /// Which public implementation each value matches.
  public let source: String

  public init(
    _ name: String, _ kind: Kind, default defaultValue: JSON?, isOptional: Bool = false, minimum: Double? = nil,
    maximum: Double? = nil, perModel: Bool = false, aliases: [String: String] = [:], summary: String, source: String = ""
  ) {
    self.name = name
    self.kind = kind
    self.defaultValue = defaultValue
    self.isOptional = isOptional
    self.minimum = minimum
    self.maximum = maximum
    self.perModel = perModel
    self.aliases = aliases
    self.summary = summary
    self.source = source
  }

  public var isRequired: Bool { defaultValue == nil && !isOptional }

  public var typeName: String {
    switch kind {
    case .number: "number"
    case .integer: "integer"
    case .boolean: "boolean"
    case .choice: "choice"
    case .strings: "list"
    case .vectors: "vectors"
    case .model: "model"
    }
  }

  var json: JSON {
    var members: [JSON.Member] = [
      .init(key: "name", value: .string(name)), .init(key: "type", value: .string(typeName)),
      .init(key: "required", value: .bool(isRequired)), .init(key: "default", value: defaultValue ?? .null),
    ]
    if case .choice(let choices) = kind {
      members.append(.init(key: "choices", value: .array(choices.map { .string($0) })))
    }
    if !aliases.isEmpty {
      members.append(
        .init(
          key: "aliases",
          value: .object(aliases.sorted { $0.key < $1.key }.map { .init(key: $0.key, value: .string($0.value)) })))
    }
    if let minimum { members.append(.init(key: "minimum", value: .double(minimum))) }
    if let maximum { members.append(.init(key: "maximum", value: .double(maximum))) }
    members.append(.init(key: "per_model", value: .bool(perModel)))
    members.append(.init(key: "summary", value: .string(summary)))
    if !source.isEmpty { members.append(.init(key: "source", value: .string(source))) }
    return .object(members)
  }
}

// MARK: - Parameters that several methods share

extension ParameterSchema {
  static let onNonFinite = ParameterSchema(
    "on_non_finite", .choice(["error", "warn", "ignore"]), default: "error",
    summary: "What to do about a NaN or an infinity in an input that is to be merged. Tensors that are equal in all inputs "
      + "are copied, whatever they hold, or are 0 in a task vector. Where warn or ignore meets one in a method that takes inner "
      + "products, the tensor is copied from the base, or the first model.")

  static let output = ParameterSchema(
    "output", .choice(["weights", "task_vector"]), default: "weights",
    summary: "weights: the merged tensor. task_vector: merged minus base, which can be scaled and added later.")

  static let scope = ParameterSchema(
    "scope", .choice(["tensor", "layer", "model"]), default: "tensor",
    summary: "Over what the Gram matrices are summed before the coefficients are chosen: each tensor, each layer (tensors "
      + "whose names agree up to the first number), or the whole model.",
    source: "tensor: all public tools. model: geom_median's per_component=False.")

  static func weight(_ summary: String) -> ParameterSchema {
    ParameterSchema("weight", .number, default: 1.0, perModel: true, summary: summary)
  }

  static func lambda(_ summary: String) -> ParameterSchema {
    ParameterSchema("lambda", .number, default: 1.0, summary: summary)
  }
}
