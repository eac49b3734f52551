import Platform
import TensorKernels

/// A LoRA adapter as PEFT saves it, matched with the model it belongs to: W + scale B A, and tensors that take another's place.
///
///     adapter_config.json, adapter_model.safetensors
///     base_model.model.X.lora_A.weight [r, in], X.lora_B.weight [out, r]       X.weight + scale B A
///     base_model.model.X.lora_embedding_A [r, rows], X.lora_embedding_B [out, r]    X.weight + scale (B A)^T
///     base_model.model.X.weight, X.bias (modules_to_save, trained biases)      in the place of the model's own
///
/// Every tensor of the adapter has its place in the model, or it is refused. Headers only: nothing is added up here.
public final class Adapter: Sendable {
  /// What is added to one tensor of the model.
  public struct Update: Sendable {
    /// A: [r, inputs...].
    public let first: TensorRecord
    /// B: [outputs, r], or [outputs, r, 1, 1] for a convolution.
    public let second: TensorRecord
    public let scale: Double
    /// Is (B A)^T what is added?
    public let isTransposed: Bool

    public var rank: Int { second.shape[1] }
  }

  /// As given.
  public let path: String
  public let configPath: String
  /// Its tensors.
  public let checkpoint: Checkpoint
  /// By the model's name of the tensor.
  public let updates: [String: Update]
  public let replacements: [String: TensorRecord]

  /// - Parameter model: the checkpoint it was trained on.
  /// - Throws: `.notFound`, `.format` for what is no plain LoRA adapter (see `AdapterConfig`), `.missingTensor` and `.shape` for one
  ///   of another model.
  public init(path: String, of model: Checkpoint) throws(Failure) {
    let folder = FileSystem.kind(path) == .file ? FileSystem.directory(of: path) : path
    configPath = joined(folder, AdapterConfig.name)
    let config = try AdapterConfig(path: configPath)
    let weights = joined(folder, "adapter_model.safetensors")
    checkpoint = try Checkpoint(path: FileSystem.kind(path) == .folder && FileSystem.exists(weights) ? weights : path)
    self.path = path

    var parts = Parts()
    for record in checkpoint.tensors { try parts.add(record, checkpoint) }
    guard parts.count > 0 else { throw Failure(.format, "\(checkpoint.path) has no tensors: it is no adapter") }
    let rename = try Renaming(parts.targets, model, checkpoint)
    var updates: [String: Update] = [:]
    for (module, pair) in parts.pairs {
      guard let first = pair.first, let second = pair.second else {
        throw Failure(
          .format, "\(checkpoint.path) has only one of the two factors of \(quoted(module)): it is damaged; fetch it again")
      }
      let name = rename(module + ".weight")
      updates[name] = try Self.update(
        module, first, second, pair.isEmbedding, config, model.tensor(named: name)!, model, checkpoint)
    }
    var replacements: [String: TensorRecord] = [:]
    for (target, record) in parts.replacements {
      let name = rename(target)
      guard updates[name] == nil else {
        throw Failure(.format, "\(checkpoint.path) both replaces and changes \(quoted(name)): it is damaged")
      }
      guard record.dtype.isFloat == model.tensor(named: name)!.dtype.isFloat else {
        throw Failure(
          .dtype, "\(quoted(record.name)) of \(checkpoint.path) is \(record.dtype.name): it cannot be \(quoted(name))")
      }
      replacements[name] = record
    }
    self.updates = updates
    self.replacements = replacements
  }

  private static func update(
    _ module: String, _ first: TensorRecord, _ second: TensorRecord, _ isEmbedding: Bool, _ config: AdapterConfig,
    _ target: TensorRecord, _ model: Checkpoint, _ checkpoint: Checkpoint
  ) throws(Failure) -> Update {
    let isMatrix = first.shape.count == 2 && second.shape.count == 2
    for factor in [first, second] where !factor.dtype.isFloat {
      throw Failure(
        .dtype, "\(quoted(factor.name)) of \(checkpoint.path) is \(factor.dtype.name), which no factor of an adapter can be")
    }
    guard first.shape.count >= 2, second.shape.count >= 2, first.shape[0] == second.shape[1],
      second.shape.dropFirst(2).allSatisfy({ $0 == 1 })
    else {
      throw Failure(
        .shape,
        "the factors of \(quoted(module)) in \(checkpoint.path) have shapes \(first.shape) and \(second.shape), which cannot be multiplied"
      )
    }
    guard target.dtype.isFloat else {
      throw Failure(.dtype, "\(quoted(target.name)) of \(model.path) is \(target.dtype.name), to which no adapter can be added")
    }
    let fits = !isEmbedding && target.shape == [second.shape[0]] + first.shape.dropFirst()
    let fitsTransposed = isMatrix && target.shape == [first.shape[1], second.shape[0]]
    guard fits || fitsTransposed else {
      throw Failure(
        .shape,
        "\(quoted(target.name)) has shape \(target.shape) in \(model.path), but \(checkpoint.path) changes one of shape "
          + "\([second.shape[0]] + first.shape.dropFirst()): give the model that the adapter was trained on")
    }
    return Update(
      first: first, second: second, scale: try config.scale(of: module, rank: first.shape[0]),
      isTransposed: fitsTransposed && (!fits || config.isTransposed))
  }

  /// The model with the tensors that the adapter has in their place. Updates are not among them: they are added while reading.
  public func replacing(in model: Checkpoint) -> Checkpoint { Checkpoint(model, replacing: replacements, from: checkpoint) }
}

/// An adapter's tensors, by what they are for.
private struct Parts {
  struct Pair {
    var first: TensorRecord?
    var second: TensorRecord?
    var isEmbedding = false
  }

  /// By module.
  private(set) var pairs: [String: Pair] = [:]
  /// By the name of the tensor to replace.
  private(set) var replacements: [String: TensorRecord] = [:]

  var count: Int { pairs.count + replacements.count }
  /// Names of the model's tensors that are wanted, sorted.
  var targets: [String] { (pairs.keys.map { $0 + ".weight" } + replacements.keys).sorted(by: precedes) }

  mutating func add(_ record: TensorRecord, _ checkpoint: Checkpoint) throws(Failure) {
    var name = record.name
    for prefix in ["base_model.model.", "base_model."] where name.hasPrefix(prefix) {
      name = String(name.dropFirst(prefix.count))
      break
    }
    // "default" is the adapter's name, which PEFT leaves out when it saves.
    var words = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    if let place = words.firstIndex(where: { $0.hasPrefix("lora_") || $0 == "modules_to_save" }), place + 1 < words.count,
      words[place + 1] == "default"
    {
      words.remove(at: place + 1)
    }
    guard let place = words.firstIndex(where: { $0.hasPrefix("lora_") }) else {
      let target = words.filter { $0 != "modules_to_save" && $0 != "base_layer" }.joined(separator: ".")
      guard replacements.updateValue(record, forKey: target) == nil else {
        throw Failure(.format, "\(checkpoint.path) replaces \(quoted(target)) twice: it is damaged")
      }
      return
    }
    let module = words[..<place].joined(separator: ".")
    let factor: WritableKeyPath<Pair, TensorRecord?>
    var isEmbedding = false
    switch words[place...].joined(separator: ".") {
    case "lora_A.weight": factor = \.first
    case "lora_B.weight": factor = \.second
    case "lora_embedding_A": (factor, isEmbedding) = (\.first, true)
    case "lora_embedding_B": (factor, isEmbedding) = (\.second, true)
    case let other:
      let what = other.hasPrefix("lora_magnitude_vector") ? "belongs to a DoRA adapter" : "is no part of a plain LoRA adapter"
      throw Failure(
        .format,
        "\(quoted(record.name)) of \(checkpoint.path) \(what), and would be lost: merge the adapter into its model with PEFT "
          + "(merge_and_unload), and give the result")
    }
    var pair = pairs[module] ?? Pair()
    if let known = pair[keyPath: factor] {
      throw Failure(
        .format,
        "\(checkpoint.path) has one factor of \(quoted(module)) twice, as \(quoted(known.name)) and as \(quoted(record.name)): "
          + "it is damaged")
    }
    pair[keyPath: factor] = record
    pair.isEmbedding = pair.isEmbedding || isEmbedding
    pairs[module] = pair
  }
}

/// From an adapter's names to the checkpoint's. They differ by a prefix where the class that was trained wraps the one that was
/// saved ("transformer.h.0" and "h.0"); one change has to do for all names.
private struct Renaming {
  private let dropped: Int
  private let prefix: String

  private init(dropped: Int, prefix: String) { (self.dropped, self.prefix) = (dropped, prefix) }

  init(_ targets: [String], _ model: Checkpoint, _ adapter: Checkpoint) throws(Failure) {
    var candidates = [Renaming(dropped: 0, prefix: ""), Renaming(dropped: 1, prefix: ""), Renaming(dropped: 2, prefix: "")]
    var prefixes: Set<String> = []
    for record in model.tensors {
      let words = record.name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
      if words.count > 1 { prefixes.insert(words[0] + ".") }
      if words.count > 2 { prefixes.insert(words[0] + "." + words[1] + ".") }
    }
    candidates += prefixes.sorted(by: precedes).map { Renaming(dropped: 0, prefix: $0) }
    // Names that differ stay different: two of the adapter's would otherwise change one of the model's.
    let count = Set(targets).count
    let first = candidates.first { candidate in
      targets.allSatisfy { model.tensor(named: candidate($0)) != nil } && Set(targets.map { candidate($0) }).count == count
    }
    if let first {
      self = first
      return
    }
    let missing = targets.first { model.tensor(named: $0) == nil } ?? ""
    let advice =
      missing.hasSuffix("lm_head.weight")
      ? "where the embedding takes its place (tied weights): save the model with untied weights, or merge the adapter with PEFT"
      : "which has no tensor of that name: give the model that the adapter was trained on"
    throw Failure(.missingTensor, "\(adapter.path) changes \(quoted(missing)) of \(model.path), \(advice)")
  }

  func callAsFunction(_ name: String) -> String {
    guard dropped > 0 else { return prefix + name }
    return name.split(separator: ".", omittingEmptySubsequences: false).dropFirst(dropped).joined(separator: ".")
  }
}
