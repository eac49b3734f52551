import Checkpoints
import JSON
import Platform
import TensorKernels

/// The texts beside an extracted adapter: PEFT's config, and what was done to each tensor.
struct AdapterTexts {
  let results: [ExtractedTensor]
  let base: Checkpoint
  let baseName: String
  let modelName: String
  let rank: Int
  let dtype: DType
  let isTransposed: Bool
  let adapterBytes: Int
  let modelBytes: Int
  let seconds: Double
  let warnings: [String]

  /// A checkpoint's config.json, where it has one.
  static func config(of checkpoint: Checkpoint) -> JSON? {
    guard let folder = checkpoint.folder, let bytes = try? FileSystem.read(folder + "/config.json") else { return nil }
    return try? JSON.parse(bytes, source: folder + "/config.json")
  }

  /// adapter_config.json. lora_alpha is the rank, so the scale is 1; smaller matrices have both in their patterns.
  var config: JSON {
    let factored = results.filter(\.isFactored)
    let small = factored.filter { $0.rank != rank }.map { JSON.Member(key: Self.escaped($0.module), value: .int($0.rank)) }
    let saved = Set(results.filter(\.isSaved).map(\.module)).sorted()
    return .object([
      .init(key: "peft_type", value: "LORA"), .init(key: "auto_mapping", value: nil),
      .init(key: "base_model_name_or_path", value: .string(baseName)), .init(key: "task_type", value: taskType),
      .init(key: "inference_mode", value: true), .init(key: "r", value: .int(rank)),
      .init(key: "lora_alpha", value: .int(rank)), .init(key: "lora_dropout", value: 0.0),
      .init(key: "bias", value: "none"), .init(key: "fan_in_fan_out", value: .bool(isTransposed)),
      .init(key: "init_lora_weights", value: true), .init(key: "use_rslora", value: false),
      .init(key: "use_dora", value: false), .init(key: "target_modules", value: .array(targets.map { .string($0) })),
      .init(key: "modules_to_save", value: saved.isEmpty ? nil : .array(saved.map { .string($0) })),
      .init(key: "rank_pattern", value: .object(small)), .init(key: "alpha_pattern", value: .object(small)),
    ])
  }

  /// A dot in a pattern of PEFT stands for any character.
  private static func escaped(_ name: String) -> String {
    name.split(separator: ".", omittingEmptySubsequences: false).joined(separator: "\\.")
  }

  private var taskType: JSON {
    let architecture = Self.config(of: base)?["architectures"]?.array?.first?.string ?? ""
    let types = [
      ("ForCausalLM", "CAUSAL_LM"), ("LMHeadModel", "CAUSAL_LM"), ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
      ("ForSequenceClassification", "SEQ_CLS"), ("ForTokenClassification", "TOKEN_CLS"),
      ("ForQuestionAnswering", "QUESTION_ANS"),
    ]
    return types.first { architecture.hasSuffix($0.0) }.map { .string($0.1) } ?? nil
  }

  /// The last component of the modules' names, where all of that name have factors; else whole names.
  private var targets: [String] {
    func leaf(_ module: String) -> String { String(module.split(separator: ".").last ?? "") }
    let factored = Set(results.filter(\.isFactored).map(\.module))
    let others = Set(base.tensors.map { ExtractionOptions.module(of: $0.name) }.filter { !factored.contains($0) }.map(leaf))
    return Set(factored.map { others.contains(leaf($0)) ? $0 : leaf($0) }).sorted()
  }

  // MARK: - Report

  var report: JSON {
    let factored = results.filter(\.isFactored)
    let errors = factored.compactMap(\.error)
    let difference = results.compactMap(\.differenceNorm).reduce(0) { $0 + $1 * $1 }
    let missing = results.reduce(0.0) { sum, result in
      guard let norm = result.differenceNorm, result.hasChanged else { return sum }
      let part = norm * (result.error ?? 1)
      return sum + part * part
    }
    return .object([
      .init(key: "stockpot", value: .string(LibraryVersion.string)), .init(key: "base", value: .string(baseName)),
      .init(key: "model", value: .string(modelName)), .init(key: "rank", value: .int(rank)),
      .init(key: "dtype", value: .string(dtype.torchName ?? dtype.name)), .init(key: "seconds", value: .double(seconds)),
      .init(
        key: "summary",
        value: [
          "tensors": .int(results.count), "factored": .int(factored.count), "saved": .int(results.count { $0.isSaved }),
          "unchanged": .int(results.count { !$0.hasChanged }), "lost": .int(results.count { $0.lostReason != nil }),
          "worst_error": .double(errors.max() ?? 0),
          // Of all that changed, what is lost among it.
          "total_error": .double(difference > 0 ? (missing / difference).squareRoot() : 0),
          "adapter_bytes": .int(adapterBytes), "model_bytes": .int(modelBytes),
        ]),
      .init(key: "tensors", value: .array(results.filter { $0.hasChanged || $0.isSaved }.map(Self.describe))),
      .init(key: "warnings", value: .array(warnings.map { .string($0) })),
    ])
  }

  private static func describe(_ result: ExtractedTensor) -> JSON {
    func number(_ value: Double?) -> JSON { value.map { .double($0) } ?? .null }
    var members: [JSON.Member] = [
      .init(key: "name", value: .string(result.source.name)),
      .init(key: "shape", value: .array(result.source.modelRecord.shape.map { .int($0) })),
      .init(key: "action", value: .string(action(result))), .init(key: "rank", value: .int(result.rank)),
      .init(key: "error", value: number(result.error)), .init(key: "difference_norm", value: number(result.differenceNorm)),
      .init(key: "model_norm", value: number(result.modelNorm)),
      .init(key: "singular_values", value: .array(result.sigma.map { .double($0) })),
    ]
    if let reason = result.lostReason { members.append(.init(key: "note", value: .string(reason))) }
    return .object(members)
  }

  private static func action(_ result: ExtractedTensor) -> String {
    result.isFactored ? "factored" : result.isSaved ? "saved" : "lost"
  }

  var csv: String {
    var text = "name,shape,action,rank,error,difference_norm,model_norm,note\n"
    for result in results where result.hasChanged || result.isSaved {
      let shape = result.source.modelRecord.shape.map(String.init).joined(separator: "x")
      let numbers = [result.error, result.differenceNorm, result.modelNorm].map { $0.map { "\($0)" } ?? "" }
      let name =
        "\"" + result.source.name.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
      text += "\(name),\(shape),\(Self.action(result)),\(result.rank),\(numbers.joined(separator: ",")),"
      text += "\(result.lostReason.map { "\"\($0)\"" } ?? "")\n"
    }
    return text
  }
}
