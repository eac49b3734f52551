import JSON
import Platform

/// The files of a checkpoint's folder that are not weights: which of them go along into a merged checkpoint.
///
/// Configs, tokenizers, processors, chat templates, sentence-transformers modules, custom code that a config refers to, and
/// licences do. Weights, training states, model cards and anything unknown do not, and are named so that nobody is surprised.
public struct SideFiles: Sendable, Equatable {
  /// Paths relative to the folder, ordered by name; config.json is among them where there is one.
  public let carried: [String]
  /// Names in the folder that stay behind, folders with a slash at the end, ordered by name. Hidden ones are not listed.
  public let left: [String]

  /// - Parameter weights: names that are accounted for as weights, and so not listed as left behind.
  public init(in folder: String, besides weights: Set<String> = []) throws(Failure) {
    let code = SideFiles.referredCode(in: folder)
    let modules = SideFiles.moduleFolders(in: folder)
    var carried: [String] = []
    var left: [String] = []
    for name in try FileSystem.list(folder) where !name.hasPrefix(".") && !weights.contains(name) {
      let path = joined(folder, name)
      if FileSystem.kind(path) == .folder {
        if name == "additional_chat_templates" || modules.contains(name) {
          var visited: Set<FileIdentity> = []
          carried += try SideFiles.files(under: name, in: folder, visited: &visited)
        } else {
          left.append(name + "/")
        }
      } else if FileSystem.kind(path) == .file, SideFiles.isCarried(name, path: path, code: code) {
        carried.append(name)
      } else {
        left.append(name)
      }
    }
    self.init(carried: carried.sorted(by: precedes), left: left)
  }

  private init(carried: [String], left: [String]) {
    self.carried = carried
    self.left = left
  }

  /// These, but for files that the output has from elsewhere.
  /// - Parameter isReplaced: the whole tokenizer is.
  public func replacing(_ names: [String], tokenizer isReplaced: Bool) -> SideFiles {
    let other = carried.filter { names.contains($0) || isReplaced && SideFiles.isTokenizerFile($0) }
    return SideFiles(carried: carried.filter { !other.contains($0) }, left: (left + other).sorted(by: precedes))
  }

  /// The side files of an opened checkpoint; none for a single file.
  public init(of checkpoint: Checkpoint) throws(Failure) {
    guard let folder = checkpoint.folder else {
      self.init(carried: [], left: [])
      return
    }
    let weights = Set(checkpoint.files.map { FileSystem.name(of: $0) } + [CheckpointFiles.indexName])
    try self.init(in: folder, besides: weights)
  }

  /// Copy the carried files into another folder, links followed.
  /// - Parameter excluded: relative paths that the caller writes itself, such as "config.json".
  public func copy(from folder: String, to destination: String, except excluded: Set<String> = []) throws(Failure) {
    for path in carried where !excluded.contains(path) {
      let target = joined(destination, path)
      try FileSystem.makeFolder(FileSystem.directory(of: target))
      try SideFiles.copyFile(joined(folder, path), to: target)
    }
  }

  private static func copyFile(_ source: String, to target: String) throws(Failure) {
    let input = try File(path: source, mode: .read)
    let size = try input.size()
    let output = try File(path: target, mode: .create)
    let block = 1 << 20
    for start in stride(from: 0, to: size, by: block) {
      try output.write(try input.bytes(count: min(block, size - start), at: start), at: start)
    }
  }

  // MARK: - Rules for files

  private static let named: Set = [
    "added_tokens.json", "bpe.codes", "chat_template.jinja", "chat_template.json", "config.json",
    "config_sentence_transformers.json", "dict.txt", "feature_extractor_config.json", "generation_config.json",
    "image_preprocessor_config.json", "image_processor_config.json", "merges.txt", "modules.json", "preprocessor_config.json",
    "processor_config.json", "sentence_bert_config.json", "sentencepiece.bpe.model", "sentencepiece.model",
    "special_tokens_map.json", "spiece.model", "spm.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "video_preprocessor_config.json", "vocab.bpe", "vocab.json", "vocab.txt",
  ]

  private static let tokenizer: Set = [
    "added_tokens.json", "bpe.codes", "chat_template.jinja", "chat_template.json", "dict.txt", "merges.txt",
    "sentencepiece.bpe.model", "sentencepiece.model", "special_tokens_map.json", "spiece.model", "spm.model", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.bpe", "vocab.json", "vocab.txt",
  ]

  /// Is it a part of the tokenizer, its chat templates among them?
  public static func isTokenizerFile(_ name: String) -> Bool {
    tokenizer.contains(name) || [".spm", ".tiktoken"].contains { name.hasSuffix($0) } || name.hasPrefix("tokenizer.model.")
      || name.hasPrefix("additional_chat_templates/")
  }

  /// JSON that tells of a training run or of an earlier merge; an adapter's config would make loaders look for the adapter.
  private static let leftJSON: Set = [
    "adapter_config.json", "all_results.json", "eval_results.json", "merge_report.json", "test_results.json",
    "train_results.json", "trainer_state.json",
  ]

  private static let largestUnknownJSON = 16_000_000

  private static func isCarried(_ name: String, path: String, code: Bool) -> Bool {
    if named.contains(name) { return true }
    if name.hasSuffix(".py") { return code }
    if [".spm", ".tiktoken", ".jinja"].contains(where: { name.hasSuffix($0) }) { return true }
    if name.hasPrefix("tokenizer.model.") { return true }
    let upper = name.uppercased()
    if ["LICENSE", "LICENCE", "NOTICE", "COPYING"].contains(where: { upper.hasPrefix($0) }) { return true }
    guard name.hasSuffix(".json"), !name.hasSuffix(".index.json"), !leftJSON.contains(name) else { return false }
    if ["optimizer", "scheduler", "rng_state"].contains(where: { name.hasPrefix($0) }) || name.hasSuffix("_state.json") {
      return false
    }
    guard let size = try? File(path: path, mode: .read).size() else { return false }
    return size <= largestUnknownJSON
  }

  /// Does a config name Python classes of the folder itself? Then all of its top-level Python files go along, since such files
  /// import one another.
  private static func referredCode(in folder: String) -> Bool {
    ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"].contains { name in
      optionalJSON(joined(folder, name))?["auto_map"] != nil
    }
  }

  // MARK: - Rules for folders

  /// The top-level folders that modules.json of sentence-transformers names: "1_Pooling", "2_Dense".
  private static func moduleFolders(in folder: String) -> Set<String> {
    var result: Set<String> = []
    for module in optionalJSON(joined(folder, "modules.json"))?.array ?? [] {
      guard let path = module["path"]?.string, let top = path.split(separator: "/").first.map(String.init) else { continue }
      let parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
      guard parts.allSatisfy(isPlainName), !top.hasPrefix("."), !top.hasPrefix("checkpoint-") else { continue }
      result.insert(top)
    }
    return result
  }

  /// A module's own weights (a Dense layer's, say) belong to it and go along; folders that links make circular are cut.
  private static func files(
    under relative: String, in folder: String, visited: inout Set<FileIdentity>
  ) throws(Failure) -> [String] {
    guard let identity = FileSystem.identity(joined(folder, relative)), visited.insert(identity).inserted else { return [] }
    var result: [String] = []
    for name in try FileSystem.list(joined(folder, relative)) where !name.hasPrefix(".") {
      let path = relative + "/" + name
      switch FileSystem.kind(joined(folder, path)) {
      case .file: result.append(path)
      case .folder: result += try files(under: path, in: folder, visited: &visited)
      default: break
      }
    }
    return result
  }

  /// A config that may be absent or broken: whoever needs it says so, here it only decides what goes along.
  private static func optionalJSON(_ path: String) -> JSON? {
    guard FileSystem.kind(path) == .file, let bytes = try? readSmallFile(path, limit: largestUnknownJSON) else { return nil }
    return try? JSON.parse(bytes, source: path)
  }
}
