import Checkpoints
import Platform
import TensorKernels

/// The parts of a model that have a stack of layers of their own: one in a language model, two or more in a multi-modal one.
///
/// They are inferred from the names. Each stack is a part; its root is the shortest beginning of the stack's name that no other
/// stack shares, and what begins with a root belongs to that part. Of the rest, projectors are parts without layers, and all else
/// (embeddings, final norm, lm_head) belongs to the main part: that whose depth the config states, or the text's, or the deepest.
struct ModelParts {
  /// What a part is for, told by words in names of modules, stacks and configs.
  enum Kind: CaseIterable {
    case text, vision, audio, projector

    private var words: [String] {
      switch self {
      case .projector: ["projector", "connector", "merger", "resampler", "aligner"]
      case .vision: ["vision", "visual", "image", "vit", "video"]
      case .audio: ["audio", "speech", "sound"]
      case .text: ["text", "language", "llm"]
      }
    }

    /// The kind that a name speaks of; nil: none.
    init?(_ name: String) {
      let name = name.lowercased()
      guard
        let kind = [.projector, .vision, .audio, .text].first(where: { (kind: Kind) in
          kind.words.contains { name.containsText($0) }
        })
      else { return nil }
      self = kind
    }
  }

  struct Part {
    let root: String
    let kind: Kind?
    /// The stack; "" for a part without layers.
    let stack: String
    let depth: Int
    /// Names per layer.
    fileprivate(set) var layers: [[String]]
    /// Names outside the stack.
    fileprivate(set) var others: [String] = []

    var isEmpty: Bool { others.isEmpty && layers.allSatisfy(\.isEmpty) }

    /// What comes after the layer's number in the name of a tensor in the stack: ".mlp.up_proj.weight".
    func rest(of name: String) -> String {
      String(name.utf8.dropFirst(stack.utf8.count + 1).drop { $0 != UInt8(ascii: ".") })!
    }

    /// What begins the names of a layer: "model.layers.3", or "blocks.03" where numbers are padded with zeros.
    func beginning(_ layer: Int) -> String {
      let first = layers.first?.first.map { $0.utf8.count - stack.utf8.count - 1 - rest(of: $0).utf8.count } ?? 1
      let number = String(layer)
      return stack + "." + String(repeating: "0", count: max(0, first - number.utf8.count)) + number
    }
  }

  let path: String
  private(set) var parts: [Part] = []
  /// Index of the part that has what no other part claims.
  private(set) var main = 0
  let index: LayerIndex

  /// - Parameter counts: numbers of layers that the config states, the text's first.
  init(_ checkpoint: Checkpoint, counts: [Int]) {
    path = checkpoint.path
    let names = checkpoint.positionsInFiles.map { checkpoint.tensors[$0].name }
    index = LayerIndex(names: names, counts: counts)
    // Numbers at the beginning of names are a list without a name, which cannot be told from the rest.
    let stacks = Self.parted(index.stacks.filter { $0.isLayered && !$0.name.isEmpty }, counts)
    parts = stacks.map { stack in
      let root = stacks.count == 1 ? "" : Self.root(stack.name, among: stacks.map(\.name))
      return Part(
        root: root, kind: Kind(stack.name), stack: stack.name, depth: stack.depth,
        layers: [[String]](repeating: [], count: stack.depth))
    }
    if parts.isEmpty { parts = [Part(root: "", kind: nil, stack: "", depth: 0, layers: [])] }
    main =
      parts.firstIndex { $0.depth > 0 && $0.depth == counts.first && ![.vision, .audio, .projector].contains($0.kind) }
      ?? parts.firstIndex { $0.kind == .text } ?? parts.indices.max { parts[$0].depth < parts[$1].depth }!
    for name in names {
      if let (stack, layer) = index.place(name), let part = parts.firstIndex(where: { !$0.stack.isEmpty && $0.stack == stack })
      {
        parts[part].layers[layer].append(name)
      } else {
        parts[owner(of: name)].others.append(name)
      }
    }
    parts.indices.reversed().forEach { if parts[$0].isEmpty, parts.count > 1 { remove($0) } }
  }

  /// The stacks that are parts. Where the config states counts, a stack of another depth is a list inside a part (of mergers, of
  /// projectors), unless it is the only one of its kind.
  private static func parted(_ stacks: [LayerIndex.Stack], _ counts: [Int]) -> [LayerIndex.Stack] {
    let stated = stacks.filter { counts.contains($0.depth) }
    guard !stated.isEmpty else { return stacks }
    let kinds = Set(stated.map { Kind($0.name) ?? .text })
    return stacks.filter { stack in
      let kind = Kind(stack.name) ?? .text
      return counts.contains(stack.depth) || kind != .projector && !kinds.contains(kind)
    }
  }

  private mutating func remove(_ part: Int) {
    parts.remove(at: part)
    if part < main { main -= 1 }
  }

  /// The part of a tensor outside all stacks.
  private mutating func owner(of name: String) -> Int {
    let components = name.split(separator: ".").map(String.init)
    let begun = parts.indices.filter { !parts[$0].root.isEmpty && (name + ".").hasPrefix(parts[$0].root + ".") }
    if let part = begun.max(by: { parts[$0].root.utf8.count < parts[$1].root.utf8.count }) { return part }
    guard parts.filter({ !$0.stack.isEmpty }).count > 1,
      let position = components.firstIndex(where: { Kind($0) == .projector })
    else { return main }
    let root = components[...position].joined(separator: ".")
    parts.append(Part(root: root, kind: .projector, stack: "", depth: 0, layers: []))
    return parts.count - 1
  }

  /// The shortest beginning of a stack's name that no other stack has.
  private static func root(_ stack: String, among all: [String]) -> String {
    let components = stack.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    for count in 1...max(1, components.count) {
      let beginning = components.prefix(count).joined(separator: ".")
      if all.filter({ ($0 + ".").hasPrefix(beginning + ".") }).count == 1 { return beginning }
    }
    return stack
  }

  // MARK: - Modules of a recipe

  /// The part that a recipe's module means.
  /// - Parameter module: its name; nil: the recipe has slices without modules.
  func part(_ module: String?, isOnly: Bool) throws(Failure) -> Int {
    if parts.count == 1, isOnly { return 0 }
    guard let module else {
      throw Failure(
        .recipe, "\(path) has \(parts.count) parts (\(listed)), so its layers cannot be told by 'slices' alone: use 'modules'")
    }
    if parts.count > 1 {
      if let exact = parts.firstIndex(where: { $0.root.split(separator: ".").contains { $0 == module } }) { return exact }
      if let kind = Kind(module), let found = parts.firstIndex(where: { $0.kind == kind }) { return found }
      if ["default", "decoder", "model"].contains(module) || Kind(module) == .text { return main }
    }
    throw Failure(
      .recipe,
      "modules.\(module) is no part of \(path), which has \(listed): name one of these, or what it is for (text, vision)")
  }

  private var listed: String {
    parts.indices.map { i in
      let name = parts[i].root.isEmpty ? (parts[i].stack.isEmpty ? "no layers" : parts[i].stack) : parts[i].root
      return parts[i].depth > 0 ? "\(name): \(parts[i].depth) layers" : name
    }.joined(separator: ", ")
  }

  /// Does a tensor outside the stack come before its layers? Embeddings and what stems from them do; norms and heads do not.
  static func isBefore(_ name: String) -> Bool {
    let name = name.lowercased()
    if ["embed_out", "unembed", "project_out"].contains(where: { name.containsText($0) }) { return false }
    return [
      "embed", "wte", "wpe", "emb.", "token", "pos_", "position", "shared", "project_in", "patch", "cls_", "pre_lay", "ln_pre",
      "stem", "rotary", "conv1", "conv_in",
    ].contains { name.containsText($0) }
  }
}
