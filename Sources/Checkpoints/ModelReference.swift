import JSON
import Platform

/// Which model a user means: `path[@revision][+adapter[@revision]]`, or the same as a mapping.
///
///     {model: {path, revision}, lora: {path, revision}, override_architecture}      each part may also be text
///
/// A path that exists as it is written wins over any other reading, so a folder may have + and @ in its name. What is no local
/// path is looked up in the local Hugging Face cache. Two references are the same model if all their fields are equal.
public struct ModelReference: Hashable, Sendable {
  /// A folder, file or repository, and which of its revisions.
  public struct Part: Hashable, Sendable {
    public let path: String
    /// A branch, tag or commit of a repository; nil: "main".
    public let revision: String?

    public init(path: String, revision: String? = nil) { (self.path, self.revision) = (path, revision) }
  }

  public let model: Part
  /// A LoRA adapter that is added to the model.
  public let adapter: Part?
  /// mergekit's `override_architecture`, which has no meaning here: tensors are told by their names.
  public let architecture: String?

  public init(model: Part, adapter: Part? = nil, architecture: String? = nil) {
    (self.model, self.adapter, self.architecture) = (model, adapter, architecture)
  }

  /// Read the text form; text that is a JSON object is the mapping form.
  public init(_ text: String) throws(Failure) {
    if FileSystem.exists(text) {
      self.init(model: Part(path: text))
      return
    }
    if text.utf8.first == UInt8(ascii: "{") {
      try self.init(try JSON.parse(text, source: "a model reference"))
      return
    }
    let parts = text.split(separator: "+", omittingEmptySubsequences: false).map(String.init)
    switch parts.count {
    case 1: self.init(model: try Part(text, of: text))
    case 2: self.init(model: try Part(parts[0], of: text), adapter: try Part(parts[1], of: text))
    default:
      // More than one plus: the one after the longest path that exists is the separator.
      for end in stride(from: parts.count - 1, to: 0, by: -1) {
        let left = parts[..<end].joined(separator: "+")
        guard let part = try? Part(left, of: text), FileSystem.exists(part.path) else { continue }
        self.init(model: part, adapter: try Part(parts[end...].joined(separator: "+"), of: text))
        return
      }
      throw Failure(
        .recipe,
        "the model reference \(quoted(text)) has more than one '+': write {model: {path: ...}, lora: {path: ...}} instead")
    }
  }

  /// Read a reference of a recipe: text, or a mapping.
  public init(_ json: JSON) throws(Failure) {
    if let text = json.string {
      try self.init(text)
      return
    }
    guard let members = json.members, !members.isEmpty else {
      throw Failure(
        .recipe,
        "a model is \(json.serialized(indent: 0)): give the path of a folder or of a .safetensors file, or org/name[@revision]")
    }
    if json["path"] != nil {
      self.init(model: try Part(json, in: json))
      return
    }
    for member in members where !["model", "lora", "override_architecture"].contains(member.key) {
      throw Failure(
        .recipe, "a model reference has the key '\(member.key)': it has model, lora and override_architecture")
    }
    guard let model = json["model"] else {
      throw Failure(.recipe, "the model reference \(json.serialized(indent: 0)) has no 'model'")
    }
    let adapter = json["lora"]?.unlessNull
    self.init(
      model: try Part(model, in: json), adapter: try adapter.map { (part) throws(Failure) in try Part(part, in: json) },
      architecture: json["override_architecture"]?.string)
  }

  /// The reference as text, from which an equal one can be read: the short form where it says the same.
  public var text: String {
    let short = model.text + (adapter.map { "+" + $0.text } ?? "")
    if architecture == nil, let same = try? ModelReference(short), same == self { return short }
    var members: [JSON.Member] = [.init(key: "model", value: model.json)]
    if let adapter { members.append(.init(key: "lora", value: adapter.json)) }
    if let architecture { members.append(.init(key: "override_architecture", value: .string(architecture))) }
    return JSON.object(members).serialized(indent: 0)
  }

  /// The same model, also when a local file or folder is named by two paths?
  public func isSame(_ other: ModelReference) -> Bool {
    self == other || model.isSame(other.model) && (adapter == other.adapter || Self.areSame(adapter, other.adapter))
  }

  private static func areSame(_ left: Part?, _ right: Part?) -> Bool {
    guard let left, let right else { return false }
    return left.isSame(right)
  }
}

extension ModelReference.Part {
  /// `path[@revision]`.
  fileprivate init(_ text: String, of whole: String) throws(Failure) {
    guard !text.isEmpty else {
      throw Failure(.recipe, "the model reference \(quoted(whole)) names nothing: give the path of a folder, or org/name")
    }
    if FileSystem.exists(text) {
      self.init(path: text)
      return
    }
    let parts = text.split(separator: "@", omittingEmptySubsequences: false).map(String.init)
    guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }) else {
      throw Failure(
        .recipe, "the model reference \(quoted(whole)) is not path@revision: write {path: ..., revision: ...} instead")
    }
    self.init(path: parts[0], revision: parts.count == 2 ? parts[1] : nil)
  }

  /// Text, or {path, revision}, whose path is taken as it is.
  fileprivate init(_ json: JSON, in whole: JSON) throws(Failure) {
    if let text = json.string {
      try self.init(text, of: text)
      return
    }
    let members = json.members ?? []
    let revision = json["revision"]?.unlessNull
    guard let path = json["path"]?.string, !path.isEmpty, members.allSatisfy({ ["path", "revision"].contains($0.key) }),
      revision == nil || revision?.string?.isEmpty == false
    else {
      throw Failure(
        .recipe, "\(whole.serialized(indent: 0)) is no model reference: its parts are text, or {path: ..., revision: ...}")
    }
    self.init(path: path, revision: revision?.string)
  }

  fileprivate var text: String { path + (revision.map { "@" + $0 } ?? "") }

  fileprivate var json: JSON {
    var members: [JSON.Member] = [.init(key: "path", value: .string(path))]
    if let revision { members.append(.init(key: "revision", value: .string(revision))) }
    return .object(members)
  }

  fileprivate func isSame(_ other: Self) -> Bool {
    self == other || revision == nil && other.revision == nil && FileSystem.isSame(path, other.path)
  }

  /// The local folder or file.
  /// - Throws: `.notFound`, with what to do about it.
  public func resolved() throws(Failure) -> String {
    if FileSystem.exists(path) {
      guard let revision else { return path }
      throw Failure(.notFound, "\(path) is on this machine, where it has no revision \(quoted(revision)): leave the @ out")
    }
    if path.hasPrefix("~/"), let home = Machine.environment("HOME"), FileSystem.exists(home + path.dropFirst()) {
      return home + path.dropFirst()
    }
    guard HubCache.isRepository(path) else {
      throw Failure(
        .notFound,
        "there is no checkpoint at \(path): give a folder with safetensors files, or one such file, on this machine, or org/name"
      )
    }
    return try HubCache.snapshot(of: path, revision: revision)
  }
}

extension Checkpoint {
  /// Open the model of a reference: a local path, or one of the Hugging Face cache.
  /// - Throws: `.recipe` for a reference that is none, or has an adapter; `.notFound`; what `init(path:)` throws.
  public convenience init(reference text: String) throws(Failure) {
    let reference = try ModelReference(text)
    guard reference.adapter == nil else {
      throw Failure(.recipe, "\(text) is a model with an adapter, which only a recipe can name: give the model, or the adapter")
    }
    try self.init(path: try reference.model.resolved())
  }
}
