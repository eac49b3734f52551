import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// Decides, name by name, what is made of each tensor.
struct TensorPlanner {
  private let recipe: Recipe
  private let opened: PlanInputs
  private let layers: LayerIndex
  private(set) var vocabulary: PlannedVocabulary?
  private(set) var warnings: [String] = []
  private var missing: [String] = []
  private var groups: [String: Int] = [:]

  init(_ recipe: Recipe, _ opened: PlanInputs) {
    self.recipe = recipe
    self.opened = opened
    layers = LayerIndex(names: opened.inputs[opened.names].checkpoint.tensors.map(\.name))
  }

  /// The output's tensors, in the order in which the names' source stores them.
  mutating func plan() throws(Failure) -> [Plan.Tensor] {
    let source = opened.inputs[opened.names].checkpoint
    let stored = source.tensors.sorted { ($0.file, $0.offset, $0.name) < ($1.file, $1.offset, $1.name) }
    guard !stored.isEmpty else { throw Failure(.format, "\(source.path) holds no tensors: there is nothing to merge") }
    vocabulary = try recipe.vocabulary.map { (section) throws(Failure) in try PlannedVocabulary(section, opened) }
    warnings += vocabulary?.warnings ?? []
    var tensors: [Plan.Tensor] = []
    tensors.reserveCapacity(stored.count)
    for record in stored { tensors.append(try plan(record)) }
    tensors += try extras(beside: source)
    if let vocabulary { tensors = try tensors.map { (tensor) throws(Failure) in try vocabulary.reindexed(tensor) } }
    if !missing.isEmpty { warnings.append(Self.listed(missing, "missing in some models") + ", see the report") }
    return tensors
  }

  private mutating func plan(_ record: TensorRecord) throws(Failure) -> Plan.Tensor {
    let name = record.name
    guard record.dtype.isFloat else { return copy(record, "not a float tensor") }
    var models: [Int] = []
    var absent: [Int] = []
    for model in opened.models {
      if opened.inputs[model].checkpoint.tensor(named: name) != nil { models.append(model) } else { absent.append(model) }
    }
    if let first = absent.first {
      switch recipe.onMissing {
      case .error:
        throw Failure(
          .missingTensor,
          "'\(name)' of \(opened.inputs[opened.names].path) is missing in \(opened.inputs[first].path): use a model of the same "
            + "architecture, or set on_missing: base or available")
      case .base:
        missing.append(name)
        return copy(record, "missing in \(opened.inputs[first].path)")
      case .available:
        missing.append(name)
        if models.isEmpty || models.count < recipe.schema.minModels {
          return copy(record, "missing in \(opened.inputs[first].path)")
        }
      }
    }
    return try merge(record, models)
  }

  private mutating func merge(_ record: TensorRecord, _ models: [Int]) throws(Failure) -> Plan.Tensor {
    let name = record.name
    let parameters = try parameters(name, models)
    let method = try recipe.method.init(Parameters(recipe.schema, parameters))
    var inputs = models
    if let base = opened.base, method.usesBase(given: true) { inputs.insert(base, at: 0) }
    let records = inputs.map { opened.inputs[$0].checkpoint.tensor(named: name)! }
    if let odd = records.indices.first(where: { !records[$0].dtype.isFloat }) {
      throw Failure(
        .dtype,
        "'\(name)' is \(record.dtype.name) in \(opened.inputs[opened.names].path) but \(records[odd].dtype.name) in "
          + "\(opened.inputs[inputs[odd]].path): convert one of them")
    }
    let shapes = records.map { vocabulary?.shape($0) ?? $0.shape }
    var shape = vocabulary?.shape(record) ?? record.shape
    var cropped: Int?
    var notes: [String] = []
    if let odd = records.indices.first(where: { shapes[$0] != shape }) {
      let text =
        "'\(name)' has shape \(record.shape) in \(opened.inputs[opened.names].path) but \(records[odd].shape) in "
        + "\(opened.inputs[inputs[odd]].path)"
      switch recipe.onShapeMismatch {
      case .error:
        let remedy =
          Self.isEmbedding(name)
          ? "the vocabularies differ, so set tokenizer_source: union to align the rows by token, or on_shape_mismatch: crop to keep the "
            + "rows that all have" : "use a model of the same architecture, or set on_shape_mismatch: base or crop"
        throw Failure(.shape, text + ": " + remedy)
      case .base:
        warnings.append(text + ": copied")
        return copy(record, "its shape differs in \(opened.inputs[inputs[odd]].path)")
      case .crop:
        guard Self.isEmbedding(name), shape.count <= 2, records.allSatisfy({ $0.shape.count == shape.count }) else {
          throw Failure(.shape, text + ": on_shape_mismatch: crop is for embedding matrices only; set it to base")
        }
        shape = shape.indices.map { axis in records.map { $0.shape[axis] }.min()! }
        cropped = shape.count == 2 ? shape[1] : 1
        notes.append("cropped to \(shape), the largest matrix that all inputs have")
        warnings.append(text + ": cropped to \(shape)")
      }
    }
    return Plan.Tensor(
      name: name, shape: shape, dtype: recipe.outputType ?? record.dtype, action: .merge(parameters), inputs: inputs,
      croppedColumns: cropped, group: group(name, method, inputs), warnings: notes)
  }

  private func copy(_ record: TensorRecord, _ reason: String, from input: Int? = nil) -> Plan.Tensor {
    let dtype = record.dtype.isFloat ? recipe.outputType ?? record.dtype : record.dtype
    return Plan.Tensor(
      name: record.name, shape: record.shape, dtype: dtype, action: .copy(reason: reason), inputs: [input ?? opened.names],
      croppedColumns: nil, group: nil)
  }

  /// Tensors that only some models have.
  private mutating func extras(beside source: Checkpoint) throws(Failure) -> [Plan.Tensor] {
    var kept: [Plan.Tensor] = []
    var seen: Set<String> = []
    for model in opened.models where model != opened.names {
      for record in opened.inputs[model].checkpoint.tensors where source.tensor(named: record.name) == nil {
        guard !opened.tiedHeads.contains(record.name), seen.insert(record.name).inserted else { continue }
        if recipe.extras == .keep { kept.append(copy(record, "only in \(opened.inputs[model].path)", from: model)) }
      }
    }
    if !seen.isEmpty {
      let what = recipe.extras == .keep ? "kept" : "dropped; extras: keep would copy them"
      warnings.append(Self.listed(seen.sorted(), "not in \(source.path)") + ": \(what)")
    }
    return kept
  }

  // MARK: - Parameters

  /// The values for a tensor: a model's own before the recipe's, the rest left to the method's defaults.
  private func parameters(_ name: String, _ models: [Int]) throws(Failure) -> [JSON.Member] {
    let position = layers.position(name)
    var members: [JSON.Member] = []
    for parameter in recipe.schema.allParameters {
      let common = recipe.parameters.last { $0.name == parameter.name }?.setting.value(name: name, position: position)
      if parameter.perModel {
        let own = models.map { model in
          opened.inputs[model].parameters.last { $0.name == parameter.name }?.setting.value(name: name, position: position)
        }
        guard common != nil || own.contains(where: { $0 != nil }) else { continue }
        let fallback = common ?? parameter.defaultValue
        members.append(.init(key: parameter.name, value: .array(own.map { $0 ?? fallback ?? .null })))
      } else if let common {
        members.append(.init(key: parameter.name, value: parameter.kind == .model ? number(of: common) : common))
      }
    }
    return members
  }

  /// A model's name as its number from 1.
  private func number(of value: JSON) -> JSON {
    guard let text = value.string else { return value }
    let index = opened.models.firstIndex { model in
      let path = opened.inputs[model].path
      return path == text || FileSystem.name(of: path) == text
    }
    return index.map { .int($0 + 1) } ?? value
  }

  /// Tensors that pool their sums. One that some model lacks has other sums, so it is with those that lack the same.
  private mutating func group(_ name: String, _ method: any MergeMethod, _ inputs: [Int]) -> Int? {
    var key = "\(inputs) "
    switch method.scope {
    case .tensor: return nil
    case .layer: key += LayerIndex.layer(name)
    case .model: break
    }
    if let known = groups[key] { return known }
    groups[key] = groups.count
    return groups[key]
  }

  private static func isEmbedding(_ name: String) -> Bool {
    ["embed", "lm_head", "wte", "word_embeddings", "output_layer"].contains { name.containsText($0) }
  }

  private static func listed(_ names: [String], _ what: String) -> String {
    let shown = names.prefix(3).map { "'\($0)'" }.joined(separator: ", ")
    let more = names.count > 3 ? " and \(names.count - 3) more" : ""
    return "\(names.count) tensors (\(shown)\(more)) are \(what)"
  }
}
