import Platform

/// Which layer of which stack a tensor belongs to, from a whole number among the components of its name:
/// "model.layers.12.mlp.up_proj.weight" is layer 12 of the stack "model.layers".
///
/// It is the first whole number, unless the model's config states a count of layers that only a later number runs up to.
struct LayerIndex {
  /// Tensors whose names differ in the layer, and what comes after it.
  struct Stack: Equatable {
    let name: String
    /// One more than the highest layer.
    let depth: Int
    /// Are there tensors for every layer, and is it more than a numbered list of tensors?
    let isLayered: Bool
  }

  private let depths: [String: Int]
  private let counts: Set<Int>
  /// In the order of the names.
  let stacks: [Stack]

  /// - Parameter counts: the numbers of layers that the config states.
  init(names: some Collection<String>, counts: [Int] = []) {
    let splits = names.map(\.numberedComponents)
    var depths: [String: Int] = [:]
    for (stack, layer) in splits.joined() { depths[stack, default: 0] = max(depths[stack, default: 0], layer + 1) }
    self.depths = depths
    self.counts = Set(counts)
    var order: [String] = []
    var layers: [String: Set<Int>] = [:]
    var tensors: [String: Int] = [:]
    for places in splits {
      guard let (stack, layer) = Self.choice(places, depths, self.counts) else { continue }
      if layers[stack] == nil { order.append(stack) }
      layers[stack, default: []].insert(layer)
      tensors[stack, default: 0] += 1
    }
    let known = self.counts
    stacks = order.map { stack in
      let depth = layers[stack]!.max()! + 1
      let isWhole = layers[stack]!.count == depth
      return Stack(
        name: stack, depth: depth,
        isLayered: isWhole && (known.contains(depth) || depth > 1 && tensors[stack]! >= 2 * depth))
    }
  }

  /// The stack of a tensor, and its layer; nil outside any stack.
  func place(_ name: String) -> (stack: String, layer: Int)? { Self.choice(name.numberedComponents, depths, counts) }

  /// 0 for the first layer of its stack, 1 for the last (and only); 0 outside any stack.
  func position(_ name: String) -> Double {
    guard let (stack, layer) = place(name), let depth = depths[stack] else { return 0 }
    return Self.position(layer, of: depth)
  }

  static func position(_ layer: Int, of depth: Int) -> Double { depth > 1 ? Double(layer) / Double(depth - 1) : 1 }

  /// The tensors of a layer share this; a tensor outside any stack is alone.
  static func layer(_ name: String) -> String {
    split(name).map { "\($0.stack).\($0.layer)" } ?? name
  }

  static func split(_ name: String) -> (stack: String, layer: Int)? { name.numberedComponents.first.map { ($0, $1) } }

  private static func choice(
    _ splits: [(before: String, number: Int)], _ depths: [String: Int], _ counts: Set<Int>
  ) -> (stack: String, layer: Int)? {
    let chosen = counts.isEmpty ? nil : splits.first { counts.contains(depths[$0.before] ?? 0) }
    return (chosen ?? splits.first).map { ($0, $1) }
  }
}
