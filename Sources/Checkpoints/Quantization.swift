import JSON
import Platform

/// Recognises quantised checkpoints, which must not be merged: the average of packed integers, or of numbers whose scales lie in
/// another tensor, is garbage that looks like a model.
public enum Quantization {
  /// What speaks against merging this checkpoint: a `.quantized` failure, or nil.
  /// - Throws: `.format` when its config.json is not valid JSON.
  public static func failure(of checkpoint: Checkpoint) throws(Failure) -> Failure? {
    if let folder = checkpoint.folder {
      let path = joined(folder, "config.json")
      if FileSystem.kind(path) == .file {
        let config = try JSON.parse(try readSmallFile(path, limit: 100_000_000), source: path)
        if let failure = failure(config: config, path: path) { return failure }
      }
    }
    guard let record = checkpoint.quantized.map({ checkpoint.tensors[$0] }) else { return nil }
    return Failure(
      .quantized, "tensor \(quoted(record.name)) of \(checkpoint.files[record.file]) belongs to a quantised model; \(remedy)")
  }

  /// What a config says: a `quantization_config` anywhere in it that is not null or empty.
  public static func failure(config: JSON, path: String) -> Failure? {
    guard let found = quantizationConfig(in: config) else { return nil }
    let method = found["quant_method"]?.string.map { " (\(quoted($0)))" } ?? ""
    return Failure(.quantized, "\(path) has a quantization_config\(method): the model is quantised; \(remedy)")
  }

  private static let remedy =
    "averaging packed integers gives garbage, so de-quantise it first, for example by saving it in bfloat16"

  private static func quantizationConfig(in config: JSON) -> JSON? {
    for member in config.members ?? [] {
      if member.key == "quantization_config", !member.value.isNull, member.value != .object([]) { return member.value }
      if let nested = quantizationConfig(in: member.value) { return nested }
    }
    return nil
  }

  /// Position of the first record that has such a name, among all of a checkpoint in the order of their names.
  static func first(in records: [TensorRecord]) -> Int? {
    records.firstIndex { record in
      isQuantized(record.name) { TensorRecord.position(of: $0, in: records) != nil }
    }
  }

  /// Names that quantisers give: block-scaled FP8, compressed-tensors, GPTQ and AWQ, bitsandbytes.
  static func isQuantized(_ name: String, beside exists: (String) -> Bool) -> Bool {
    if endings.contains(where: { name.hasEnding($0) }) { return true }
    if name.hasEnding(".scales") { return exists(name.dropLast("scales".count) + "qweight") }
    // quant_state as a whole component, not as part of a word.
    return name.containsText(".quant_state.")
  }

  private static let endings: [StaticString] = ["_scale_inv", ".weight_scale", ".qweight", ".qzeros", ".absmax", ".SCB"]
}
