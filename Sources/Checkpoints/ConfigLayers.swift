import JSON

/// The layers that a config.json states, and what changes in it when layers are restacked.
public enum ConfigLayers {
  /// A value to be replaced in a config's text.
  public struct Change: Equatable, Sendable {
    /// Keys from the top: ["text_config", "num_hidden_layers"].
    public let path: [String]
    public let value: JSON

    public init(path: [String], value: JSON) { (self.path, self.value) = (path, value) }
  }

  /// A count of layers that a config states.
  public struct Count: Equatable, Sendable {
    public let path: [String]
    public let count: Int
  }

  private static let countKeys = [
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "depth",
  ]
  /// Numbers that are the count where they are equal to it: layers with full attention.
  private static let followers = ["max_window_layers"]
  /// Lists that may be as long as the stack by chance.
  private static let otherLists = ["architectures", "auto_map", "keys_to_ignore_at_inference"]

  /// All counts: the top's first, then the text model's, then others'.
  public static func counts(_ config: JSON) -> [Count] {
    let found = objects(config, []).flatMap { object -> [Count] in
      countKeys.compactMap { key in object.json[key]?.int.map { Count(path: object.path + [key], count: $0) } }
    }
    return found.filter { rank($0) == 0 } + found.filter { rank($0) == 1 } + found.filter { rank($0) == 2 }
  }

  private static func rank(_ count: Count) -> Int {
    if count.path.count == 1 { return 0 }
    return count.path.contains { $0.hasPrefix("text") || $0.hasPrefix("llm") || $0.hasPrefix("language") } ? 1 : 2
  }

  /// What to change so that a config states a new stack.
  /// - Parameters:
  ///   - config: of the model whose config is carried along.
  ///   - depth: of the stack that the config now states.
  ///   - layers: of the new stack, in order: the config of the model that each comes from, and its number there.
  ///   - isOurs: may an object with these keys above it be about this stack?
  /// - Returns: changes in no particular order; none when the config does not state this depth.
  public static func changes(
    _ config: JSON, depth: Int, layers: [(config: JSON?, layer: Int)], isOurs: ([String]) -> Bool = { _ in true }
  ) -> [Change] {
    var changes: [Change] = []
    for object in objects(config, []) where isOurs(object.path) {
      let keys = countKeys.filter { object.json[$0]?.int == depth }
      guard !keys.isEmpty else { continue }
      for key in keys + followers.filter({ object.json[$0]?.int == depth }) where depth != layers.count {
        changes.append(Change(path: object.path + [key], value: .int(layers.count)))
      }
      for member in object.json.members ?? [] {
        guard let list = member.value.array, !otherLists.contains(member.key), !isTokenList(member.key) else { continue }
        let path = object.path + [member.key]
        if let new = isIndexList(member.key, list, depth) ? indices(list, layers) : perLayer(list, depth, path, layers),
          new != list
        {
          changes.append(Change(path: path, value: .array(new)))
        }
      }
    }
    return changes
  }

  /// The config's objects that describe models: itself, and those under keys that end in "_config".
  private static func objects(_ json: JSON, _ path: [String]) -> [(path: [String], json: JSON)] {
    guard let members = json.members, path.count < 4 else { return [] }
    return [(path, json)] + members.filter { $0.key.hasSuffix("_config") }.flatMap { objects($0.value, path + [$0.key]) }
  }

  private static func isTokenList(_ key: String) -> Bool { key.hasSuffix("token_id") || key.hasSuffix("token_ids") }

  /// Numbers of layers in ascending order, such as `mlp_only_layers`; a list of 0 and 1 for every layer is none.
  private static func isIndexList(_ key: String, _ list: [JSON], _ depth: Int) -> Bool {
    let numbers = list.compactMap(\.int)
    guard key.hasSuffix("layers") || key.hasSuffix("idxs") || key.hasSuffix("indices") || key.hasSuffix("layer_ids"),
      !list.isEmpty, numbers.count == list.count
    else { return false }
    return zip(numbers, numbers.dropFirst()).allSatisfy { $0 < $1 } && (0..<depth).contains(numbers[0])
      && numbers.last! < depth
  }

  private static func indices(_ list: [JSON], _ layers: [(config: JSON?, layer: Int)]) -> [JSON]? {
    let numbers = Set(list.compactMap(\.int))
    return layers.indices.filter { numbers.contains(layers[$0].layer) }.map { .int($0) }
  }

  /// One entry per layer: that of the model the layer comes from, where its config has such a list too.
  private static func perLayer(
    _ list: [JSON], _ depth: Int, _ path: [String], _ layers: [(config: JSON?, layer: Int)]
  ) -> [JSON]? {
    guard list.count == depth, depth > 0 else { return nil }
    return layers.map { source in
      var own = source.config
      for key in path { own = own?[key] }
      if let other = own?.array, other.indices.contains(source.layer) { return other[source.layer] }
      return list[min(source.layer, depth - 1)]
    }
  }
}
