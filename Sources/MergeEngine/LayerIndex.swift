/// Which layer of which stack a tensor belongs to, from the first whole number among the components of its name:
/// "model.layers.12.mlp.up_proj.weight" is layer 12 of the stack "model.layers".
struct LayerIndex {
  private var depths: [String: Int] = [:]

  init(names: some Sequence<String>) {
    for name in names {
      if let (stack, layer) = Self.split(name) { depths[stack] = max(depths[stack] ?? 0, layer + 1) }
    }
  }

  /// 0 for the first layer of its stack, 1 for the last (and only); 0 outside any stack.
  func position(_ name: String) -> Double {
    guard let (stack, layer) = Self.split(name), let depth = depths[stack] else { return 0 }
    return depth > 1 ? Double(layer) / Double(depth - 1) : 1
  }

  /// The tensors of a layer share this; a tensor outside any stack is alone.
  static func layer(_ name: String) -> String {
    split(name).map { "\($0.stack).\($0.layer)" } ?? name
  }

  static func split(_ name: String) -> (stack: String, layer: Int)? {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    for (i, part) in parts.enumerated() {
      if !part.isEmpty, part.utf8.allSatisfy({ (48...57).contains($0) }), part.utf8.count < 10, let layer = Int(part) {
        return (parts[..<i].joined(separator: "."), layer)
      }
    }
    return nil
  }
}
