import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// What a user asks of `extract-lora`.
public struct ExtractionOptions: Sendable {
  let rank: Int
  /// Patterns for modules that are factored though they would not be by themselves: embeddings, convolutions.
  let include: [String]
  let exclude: [String]
  /// Patterns for modules that are saved whole.
  let saved: [String]
  /// Are matrices stored with their inputs first? nil: as the model's type says.
  let isTransposed: Bool?
  let dtype: DType

  /// - Parameter json: {"rank": 16, "include": [], "exclude": [], "save_modules": [], "fan_in_fan_out": false, "dtype": "float32"};
  ///   only the rank has to be given.
  public init(_ json: JSON) throws(Failure) {
    let known = ["rank", "include", "exclude", "save_modules", "fan_in_fan_out", "dtype"]
    for member in json.members ?? [] where !known.contains(member.key) {
      throw Failure(.parameter, "extract-lora has no option '\(member.key)': it has \(known.joined(separator: ", "))")
    }
    guard let rank = json["rank"]?.int, (1...1_000_000).contains(rank) else {
      throw Failure(.parameter, "rank is \(json["rank"]?.serialized(indent: 0) ?? "missing"): give a whole number from 1 up")
    }
    self.rank = rank
    include = try Self.patterns(json, "include")
    exclude = try Self.patterns(json, "exclude")
    saved = try Self.patterns(json, "save_modules")
    let flag = json["fan_in_fan_out"]?.unlessNull
    guard flag == nil || flag?.bool != nil else {
      throw Failure(.parameter, "fan_in_fan_out is no truth value: give true or false")
    }
    isTransposed = flag?.bool
    let name = json["dtype"]?.unlessNull ?? "float32"
    guard let dtype = name.string.flatMap({ DType(recipeName: $0) }), [.f32, .f16, .bf16].contains(dtype) else {
      throw Failure(.parameter, "dtype is \(name.serialized(indent: 0)): give float32, bfloat16 or float16")
    }
    self.dtype = dtype
  }

  private static func patterns(_ json: JSON, _ key: String) throws(Failure) -> [String] {
    guard let value = json[key], !value.isNull else { return [] }
    guard let list = value.array, list.allSatisfy({ $0.string?.isEmpty == false }) else {
      throw Failure(.parameter, "\(key) is \(value.serialized(indent: 0)): give a list of names or patterns")
    }
    return list.map { $0.string! }
  }

  /// Does one of the patterns mean the module: its whole name, or its last component?
  static func means(_ patterns: [String], _ module: String) -> Bool {
    let leaf = String(module.split(separator: ".").last ?? "")
    return patterns.contains { pattern in
      let glob = Glob(pattern)
      return glob.matches(module) || glob.matches(leaf)
    }
  }

  /// What becomes of a tensor that has changed.
  enum Treatment {
    case factored(isTransposed: Bool, isEmbedding: Bool)
    case saved
    case lost(String)
  }

  func treatment(_ record: TensorRecord, transposes: Bool) -> Treatment {
    let module = Self.module(of: record.name)
    if Self.means(saved, module) { return .saved }
    guard record.dtype.isFloat else { return .lost("not a float tensor") }
    guard record.name.hasSuffix(".weight"), record.shape.count >= 2, record.count > 0 else {
      return .lost("no matrix: save_modules would keep it")
    }
    if Self.means(exclude, module) { return .lost("excluded") }
    let isEmbedding = ["embed", "wte", "wpe"].contains { module.containsText($0) }
    if isEmbedding || record.shape.count > 2, !Self.means(include, module) {
      return .lost("\(isEmbedding ? "an embedding" : "a convolution"): include or save_modules would keep it")
    }
    let isHead = module.hasSuffix("lm_head")
    return .factored(
      isTransposed: isEmbedding || transposes && !isHead && record.shape.count == 2, isEmbedding: isEmbedding)
  }

  /// The module of a parameter: its name without the last component.
  static func module(of name: String) -> String {
    name.split(separator: ".", omittingEmptySubsequences: false).dropLast().joined(separator: ".")
  }
}
