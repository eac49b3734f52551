import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// Decides, name by name, what is made of each tensor.
struct TensorPlanner {
  private let recipe: Recipe
  private let opened: PlanInputs
  private let listed: OutputTensors
  private(set) var vocabulary: PlannedVocabulary?
  private(set) var warnings: [String] = []
  private var missing: [String] = []
  private var groups: [String: Int] = [:]
  /// What the tensor before was merged with: most often that of the next one too.
  private var last: (key: SettingsKey, settings: Int, inputs: [Int])?
  private(set) var settings = PlannedSettings()
  private let schemas: [ParameterSchema]

  /// What settles a tensor's parameters, where none of them depends on its name or layer.
  private struct SettingsKey: Equatable {
    let place: String
    let positions: [Int]
    let hasBase: Bool
  }

  var stacks: [PlannedStack] { listed.stacks }
  var configChanges: [ConfigLayers.Change] { listed.configChanges }

  init(_ recipe: Recipe, _ opened: PlanInputs) throws(Failure) {
    self.recipe = recipe
    self.opened = opened
    schemas = recipe.schema.allParameters
    listed = try OutputTensors(opened)
    warnings = listed.warnings
  }

  /// The output's tensors: slice by slice, in the order in which the names' source stores them.
  mutating func plan() throws(Failure) -> [Plan.Tensor] {
    let source = opened.inputs[opened.names].checkpoint
    guard !source.tensors.isEmpty else {
      throw Failure(.format, "\(source.path) holds no tensors: there is nothing to merge")
    }
    vocabulary = try recipe.vocabulary.map { (section) throws(Failure) in try PlannedVocabulary(section, opened) }
    warnings += vocabulary?.warnings ?? []
    var tensors: [Plan.Tensor] = []
    tensors.reserveCapacity(listed.tensors.count)
    for tensor in listed.tensors where isWanted(tensor) { tensors.append(try plan(tensor)) }
    tensors += listed.unlisted.map { copy($0.record, nil, as: $0.record.name, from: $0.input, "in no module of the recipe") }
    tensors += try extras(beside: source)
    if let vocabulary { tensors = try tensors.map { (tensor) throws(Failure) in try vocabulary.reindexed(tensor) } }
    if !missing.isEmpty { warnings.append(Self.sentence(missing, "missing in some models") + ", see the report") }
    return tensors
  }

  /// Of an intersection, what some input lacks is left out.
  private mutating func isWanted(_ tensor: OutputTensor) -> Bool {
    guard recipe.tensorSet == .intersection else { return true }
    let everywhere = tensor.slice.sources.indices.allSatisfy {
      index(tensor, tensor.slice.sources[$0].input, tensor.stored($0)) != nil
    }
    return everywhere && tensor.slice.base.map { index(tensor, $0.input, tensor.storedInBase!) != nil } ?? true
  }

  /// Where an input has a tensor among its own.
  private func index(_ tensor: OutputTensor, _ input: Int, _ name: String) -> Int? {
    opened.inputs[input].checkpoint.index(of: name, near: tensor.index)
  }

  private mutating func plan(_ tensor: OutputTensor) throws(Failure) -> Plan.Tensor {
    let (name, owner) = (tensor.name, tensor.owner)
    guard tensor.record.dtype.isFloat else { return copy(tensor, "not a float tensor") }
    guard !tensor.slice.sources.isEmpty else { return copy(tensor, "its slice has only the base") }
    var present: [Int] = []
    var indices: [Int] = []
    var firstAbsent: Int?
    for (position, source) in tensor.slice.sources.enumerated() {
      if let found = index(tensor, source.input, tensor.stored(position)) {
        present.append(position)
        indices.append(found)
      } else {
        firstAbsent = firstAbsent ?? position
      }
    }
    if let first = firstAbsent {
      let path = opened.inputs[tensor.slice.sources[first].input].path
      let policy = recipe.tensorSet == .union && recipe.onMissing == .error ? .available : recipe.onMissing
      switch policy {
      case .error:
        throw Failure(
          .missingTensor,
          "'\(tensor.record.name)' of \(opened.inputs[owner].path) is missing in \(path)\(Self.calls(tensor, first)): use a model of the "
            + "same architecture, or set on_missing: base or available")
      case .base:
        missing.append(name)
        return copy(tensor, "missing in \(path)")
      case .available:
        missing.append(name)
        if present.isEmpty || present.count < recipe.schema.minModels { return copy(tensor, "missing in \(path)") }
      }
    }
    return try merge(tensor, present, indices)
  }

  /// How a source calls a tensor, where it is called otherwise.
  private static func calls(_ tensor: OutputTensor, _ position: Int) -> String {
    tensor.stored(position) == tensor.record.name ? "" : ", which has no '\(tensor.stored(position))'"
  }

  /// - Parameters:
  ///   - positions: of the sources that have it.
  ///   - found: where they have it.
  private mutating func merge(_ tensor: OutputTensor, _ positions: [Int], _ found: [Int]) throws(Failure) -> Plan.Tensor {
    let record = tensor.record
    let name = tensor.name
    let chosen = try settings(for: tensor, positions)
    let method = settings.entries[chosen.settings].method
    let inputs = chosen.inputs
    var indices = found
    var stored = tensor.stored.map { all in positions.map { all[$0] } }
    let hasBase = inputs.count > positions.count
    if let base = tensor.slice.base, hasBase {
      guard let index = index(tensor, base.input, tensor.storedInBase!) else {
        throw Failure(
          .missingTensor,
          "'\(record.name)' of \(opened.inputs[tensor.owner].path) is missing in the base \(opened.inputs[base.input].path): use a base "
            + "of the same architecture")
      }
      indices.insert(index, at: 0)
      stored?.insert(tensor.storedInBase!, at: 0)
    }
    var fit = Fit.merged(record.shape)
    let isPlain =
      vocabulary == nil
      && inputs.indices.allSatisfy {
        let other = opened.inputs[inputs[$0]].checkpoint.tensors[indices[$0]]
        return other.dtype.isFloat && other.shape == record.shape
      }
    if !isPlain { fit = try self.fit(tensor, inputs, indices) }
    switch fit {
    case .copied(let reason): return copy(tensor, reason)
    case .merged(let shape, let croppedColumns, let warnings):
      return Plan.Tensor(
        name: name, shape: shape, dtype: recipe.outputType ?? record.dtype, action: .merge(chosen.settings), inputs: inputs,
        indices: indices, stored: stored ?? storedOtherwise(name, inputs, indices), hasBase: hasBase,
        croppedColumns: croppedColumns, group: group(name, method, inputs), warnings: warnings)
    }
  }

  /// What becomes of a tensor whose inputs may differ.
  private enum Fit {
    case merged(_ shape: [Int], croppedColumns: Int? = nil, warnings: [String] = [])
    case copied(String)
  }

  /// The tensor's name for each input, where one has another tensor in its place, as a tied head's embedding.
  private func storedOtherwise(_ name: String, _ inputs: [Int], _ indices: [Int]) -> [String]? {
    let isOwn = inputs.indices.allSatisfy { opened.inputs[inputs[$0]].checkpoint.tensors[indices[$0]].name == name }
    return isOwn ? nil : inputs.map { _ in name }
  }

  /// Parameters, method and inputs of a tensor, the base first if the method uses it.
  private mutating func settings(
    for tensor: OutputTensor, _ positions: [Int]
  ) throws(Failure) -> (settings: Int, inputs: [Int]) {
    let slice = tensor.slice
    let key = SettingsKey(place: slice.place, positions: positions, hasBase: slice.base != nil)
    if slice.isUniform, let last, last.key == key { return (last.settings, last.inputs) }
    let number = try settings.add(try parameters(tensor, positions), recipe)
    var inputs = positions.map { slice.sources[$0].input }
    if let base = slice.base, settings.entries[number].method.usesBase(given: true) { inputs.insert(base.input, at: 0) }
    if let last, last.inputs == inputs { inputs = last.inputs }
    last = (key, number, inputs)
    return (number, inputs)
  }

  /// What becomes of a tensor whose inputs differ in type or shape, or whose rows are re-indexed.
  private mutating func fit(_ tensor: OutputTensor, _ inputs: [Int], _ indices: [Int]) throws(Failure) -> Fit {
    let (name, record) = (tensor.name, tensor.record)
    let records = zip(inputs, indices).map { opened.inputs[$0].checkpoint.tensors[$1] }
    if let odd = records.indices.first(where: { !records[$0].dtype.isFloat }) {
      throw Failure(
        .dtype,
        "'\(name)' is \(record.dtype.name) in \(opened.inputs[tensor.owner].path) but \(records[odd].dtype.name) in "
          + "\(opened.inputs[inputs[odd]].path): convert one of them")
    }
    let shapes = records.map { vocabulary?.shape($0) ?? $0.shape }
    var shape = vocabulary?.shape(record) ?? record.shape
    if let odd = records.indices.first(where: { shapes[$0] != shape }) {
      let text =
        "'\(name)' has shape \(record.shape) in \(opened.inputs[tensor.owner].path) but \(records[odd].shape) in "
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
        return .copied("its shape differs in \(opened.inputs[inputs[odd]].path)")
      case .crop:
        guard Self.isEmbedding(name), shape.count <= 2, records.allSatisfy({ $0.shape.count == shape.count }) else {
          throw Failure(.shape, text + ": on_shape_mismatch: crop is for embedding matrices only; set it to base")
        }
        shape = shape.indices.map { axis in records.map { $0.shape[axis] }.min()! }
        warnings.append(text + ": cropped to \(shape)")
        return .merged(
          shape, croppedColumns: shape.count == 2 ? shape[1] : 1,
          warnings: ["cropped to \(shape), the largest matrix that all inputs have"])
      }
    }
    return .merged(shape)
  }

  private func copy(_ tensor: OutputTensor, _ reason: String) -> Plan.Tensor {
    copy(tensor.record, tensor.index, as: tensor.name, from: tensor.owner, reason)
  }

  /// - Parameter index: of the record in the input; nil: it is looked for.
  private func copy(
    _ record: TensorRecord, _ index: Int?, as name: String, from input: Int, _ reason: String
  ) -> Plan.Tensor {
    let dtype = record.dtype.isFloat ? recipe.outputType ?? record.dtype : record.dtype
    return Plan.Tensor(
      name: name, shape: record.shape, dtype: dtype, action: .copy(reason: reason), inputs: [input],
      indices: [index ?? opened.inputs[input].checkpoint.index(of: record.name)!],
      stored: record.name == name ? nil : [record.name], hasBase: false, croppedColumns: nil, group: nil)
  }

  /// Tensors that only some models have.
  private mutating func extras(beside source: Checkpoint) throws(Failure) -> [Plan.Tensor] {
    let extras = listed.extras.filter { !opened.tiedHeads.contains($0.name) }
    guard !extras.isEmpty, recipe.tensorSet != .intersection else { return [] }
    if recipe.tensorSet == .union { return try union(extras) }
    let what = recipe.extras == .keep ? "kept" : "dropped; extras: keep would copy them"
    warnings.append(Self.sentence(extras.map(\.name).sorted(), "not in \(source.path)") + ": \(what)")
    guard recipe.extras == .keep else { return [] }
    return extras.map { copy($0.record, nil, as: $0.name, from: $0.input, "only in \(opened.inputs[$0.input].path)") }
  }

  /// Extras of whole models, merged from those that have them. What the method needs of a base that lacks them is not there, so
  /// such a method copies them.
  private mutating func union(_ extras: [(input: Int, record: TensorRecord, name: String)]) throws(Failure) -> [Plan.Tensor] {
    var tensors: [Plan.Tensor] = []
    for extra in extras {
      guard let slice = opened.modules.flatMap(\.slices).first(where: { $0.sources.contains { $0.input == extra.input } }),
        slice.names.layers == nil, recipe.schema.base != .required
      else {
        tensors.append(copy(extra.record, nil, as: extra.name, from: extra.input, "only in \(opened.inputs[extra.input].path)"))
        continue
      }
      let alone = PlanInputs.Slice(
        place: slice.place, sources: slice.sources, base: nil, names: slice.names, parameters: slice.parameters)
      tensors.append(
        try plan(
          OutputTensor(
            name: extra.name, record: extra.record,
            index: opened.inputs[extra.input].checkpoint.index(of: extra.record.name)!, owner: extra.input, storedInBase: nil,
            slice: alone, position: 0)))
    }
    return tensors
  }

  // MARK: - Parameters

  /// The values for a tensor: a model's own before the slice's, the module's and the recipe's; the rest is left to the method's
  /// defaults. A filter of a per-model parameter is looked for in the name that the model stores.
  private func parameters(_ tensor: OutputTensor, _ positions: [Int]) throws(Failure) -> [JSON.Member] {
    var members: [JSON.Member] = []
    for parameter in schemas {
      func value(_ levels: [Composition.Settings], _ name: String) -> JSON? {
        levels.lazy.compactMap { level in
          level.last { $0.name == parameter.name }?.setting.value(name: name, position: tensor.position)
        }.first
      }
      if parameter.perModel {
        let own = positions.map {
          value([tensor.slice.sources[$0].parameters] + tensor.slice.parameters, tensor.stored($0))
        }
        guard own.contains(where: { $0 != nil }) else { continue }
        members.append(.init(key: parameter.name, value: .array(own.map { $0 ?? parameter.defaultValue ?? .null })))
      } else if let common = value(tensor.slice.parameters, tensor.name) {
        members.append(
          .init(key: parameter.name, value: parameter.kind == .model ? number(of: common, in: tensor.slice) : common))
      }
    }
    return members
  }

  /// A model's name as its number from 1.
  private func number(of value: JSON, in slice: PlanInputs.Slice) -> JSON {
    guard let text = value.string else { return value }
    let index = slice.sources.firstIndex { source in
      let path = opened.inputs[source.input].path
      return path == text || FileSystem.name(of: path) == text
    }
    return index.map { .int($0 + 1) } ?? value
  }

  /// Tensors that pool their sums. One that some model lacks has other sums, so it is with those that lack the same.
  private mutating func group(_ name: String, _ method: any MergeMethod, _ inputs: [Int]) -> Int? {
    guard method.scope != .tensor else { return nil }
    var key = "\(inputs) "
    switch method.scope {
    case .tensor: break
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

  private static func sentence(_ names: [String], _ what: String) -> String {
    let shown = names.prefix(3).map { "'\($0)'" }.joined(separator: ", ")
    let more = names.count > 3 ? " and \(names.count - 3) more" : ""
    return "\(names.count) tensors (\(shown)\(more)) are \(what)"
  }
}
