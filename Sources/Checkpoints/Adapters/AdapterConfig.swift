import JSON
import Platform

/// What a PEFT adapter's adapter_config.json says, as far as the sum of model and adapter depends on it.
///
/// Only plain LoRA can be added to the weights as it is. Everything that needs more than its two factors is refused, by name.
struct AdapterConfig: Sendable {
  static let name = "adapter_config.json"

  /// Is a matrix of the model stored with its inputs first, as GPT-2's are?
  let isTransposed: Bool
  private let path: String
  private let rank: Int
  private let alpha: Double
  /// alpha / sqrt(r) instead of alpha / r.
  private let isRankStabilized: Bool
  private let ranks: [(pattern: NamePattern, value: Int)]
  private let alphas: [(pattern: NamePattern, value: Double)]

  init(path: String) throws(Failure) {
    guard FileSystem.kind(path) == .file else {
      throw Failure(.notFound, "there is no \(path), which says how an adapter is scaled: give the folder that PEFT saved")
    }
    let json = try JSON.parse(try readSmallFile(path, limit: 100_000_000), source: path)
    guard let rank = json["r"]?.int, rank > 0, let alpha = json["lora_alpha"]?.double, alpha.isFinite else {
      throw Failure(.format, "\(path) has no rank 'r' of at least 1, or no number 'lora_alpha': it is no LoRA adapter of PEFT")
    }
    try Self.check(json, path)
    self.path = path
    self.rank = rank
    self.alpha = alpha
    isRankStabilized = json["use_rslora"]?.bool ?? false
    isTransposed = json["fan_in_fan_out"]?.bool ?? false
    ranks = try Self.patterns(json["rank_pattern"], path, "rank of at least 1") {
      $0.double.flatMap(Int.init(exactly:)).flatMap { $0 >= 1 ? $0 : nil }
    }
    alphas = try Self.patterns(json["alpha_pattern"], path, "number") { $0.double.flatMap { $0.isFinite ? $0 : nil } }
  }

  /// Refuse what is not plain LoRA.
  private static func check(_ json: JSON, _ path: String) throws(Failure) {
    let merge = "merge it into its model with PEFT (merge_and_unload), and give the result"
    if let type = json["peft_type"]?.string, type != "LORA" {
      throw Failure(.format, "\(path) is of type \(quoted(type)), and only LORA can be read: \(merge)")
    }
    let refused = [
      ("use_dora", "a DoRA adapter, whose magnitudes scale the model's own weights"),
      ("lora_bias", "an adapter whose second factors have biases"),
      ("use_qalora", "a QA-LoRA adapter"), ("alora_invocation_tokens", "an activated LoRA, which works on some tokens only"),
      ("layer_replication", "an adapter of repeated layers"), ("target_parameters", "an adapter of single parameters"),
      ("trainable_token_indices", "an adapter of single tokens"), ("megatron_config", "a Megatron adapter"),
      ("arrow_config", "a mixture of adapters"),
    ]
    for (key, what) in refused {
      switch json[key] {
      case nil, .null?, .bool(false)?, .array([])?, .object([])?: continue
      default: throw Failure(.format, "\(path) is \(what) ('\(key)'), which is not read: \(merge)")
      }
    }
    if let start = json["init_lora_weights"]?.string {
      let changing = ["pissa", "olora", "corda", "loftq", "lora_ga", "mica"]
      if let name = changing.first(where: { start.lowercased().hasPrefix($0) }) {
        throw Failure(
          .format,
          "\(path) was begun by \(name) ('init_lora_weights'), which changes the model's own weights too: save it with PEFT's "
            + "path_initial_model_for_weight_conversion, or \(merge)")
      }
    }
  }

  private static func patterns<Value>(
    _ json: JSON?, _ path: String, _ what: String, _ read: (JSON) -> Value?
  ) throws(Failure) -> [(pattern: NamePattern, value: Value)] {
    var patterns: [(pattern: NamePattern, value: Value)] = []
    for member in json?.members ?? [] {
      guard let value = read(member.value) else {
        throw Failure(.format, "\(path) has the pattern \(quoted(member.key)) without a \(what): it is damaged")
      }
      patterns.append((try NamePattern(member.key, source: path), value))
    }
    return patterns
  }

  /// The factor of B A for a module.
  /// - Parameter rank: that of its factors, which has to be the config's.
  func scale(of module: String, rank stored: Int) throws(Failure) -> Double {
    // As PEFT: the first pattern that matches counts.
    let rank = ranks.first { $0.pattern.matches(module) }?.value ?? self.rank
    let alpha = alphas.first { $0.pattern.matches(module) }?.value ?? self.alpha
    guard rank == stored else {
      throw Failure(
        .format,
        "the factors of \(quoted(module)) have rank \(stored), where \(path) says \(rank): they do not belong together")
    }
    return isRankStabilized ? alpha / Double(rank).squareRoot() : alpha / Double(rank)
  }
}
