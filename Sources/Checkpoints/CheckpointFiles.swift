import JSON
import Platform

/// Which safetensors files, or PyTorch files where there are none, make up the checkpoint at a path, and what its index says of them.
struct CheckpointFiles {
  static let indexName = "model.safetensors.index.json"
  static let singleName = "model.safetensors"
  private static let torchIndexName = "pytorch_model.bin.index.json"
  private static let torchSingleName = "pytorch_model.bin"
  private static let torchSuffixes = [".bin", ".pt", ".pth", ".ckpt"]
  /// What training leaves beside the weights.
  private static let trainingStates = ["optimizer", "scheduler", "scaler", "rng_state", "training_args", "random_states"]
  private static let longestIndex = 100_000_000
  /// From so many tensors on, the headers of several files are read and parsed side by side.
  private static let manyTensors = 2000

  /// model.safetensors.index.json: which of the files beside it holds which tensor.
  struct Index: Sendable {
    struct Entry {
      let tensor: String
      /// Index into `files`.
      var file: Int
    }

    let path: String
    let text: [UInt8]
    /// Names, in their order.
    let files: [String]
    /// Ordered by the tensor's name.
    let entries: [Entry]
  }

  /// As given.
  let path: String
  /// The folder the files lie in; nil for a single file.
  let folder: String?
  /// Paths.
  let paths: [String]
  let index: Index?

  /// How many may work on the headers.
  var workers: Int { (index?.entries.count ?? 0) >= Self.manyTensors ? Machine.usableCPUs() : 1 }

  /// - Parameter known: whose index need not be parsed again.
  init(path: String, known: KnownContents?) throws(Failure) {
    switch FileSystem.kind(path) {
    case nil:
      throw Failure(
        .notFound,
        "there is no checkpoint at \(path): give a folder with safetensors files, or one such file, on this machine")
    case .file:
      guard !path.hasSuffix(".index.json") else {
        throw Failure(.format, "\(path) is an index: give the folder it lies in")
      }
      self.init(path: path, folder: nil, paths: [path], index: nil)
    case .other:
      throw Failure(.file, "\(path) is neither a file nor a folder")
    case .folder:
      try self.init(folder: path, known: known)
    }
  }

  private init(path: String, folder: String?, paths: [String], index: Index?) {
    (self.path, self.folder, self.paths, self.index) = (path, folder, paths, index)
  }

  private init(folder: String, known: KnownContents?) throws(Failure) {
    let names = try FileSystem.list(folder)
    if names.contains(CheckpointFiles.indexName) {
      try self.init(folder: folder, index: joined(folder, CheckpointFiles.indexName), known: known)
      return
    }
    var weights = names.filter { $0.hasSuffix(".safetensors") && !$0.hasPrefix(".") }
    if weights.contains(CheckpointFiles.singleName) { weights = [CheckpointFiles.singleName] }
    if weights.isEmpty {
      if names.contains(CheckpointFiles.torchIndexName) {
        try self.init(folder: folder, index: joined(folder, CheckpointFiles.torchIndexName), known: known)
        return
      }
      weights = try CheckpointFiles.torchFiles(in: folder, names)
    }
    try CheckpointFiles.checkSeries(weights, in: folder)
    self.init(path: folder, folder: folder, paths: weights.map { joined(folder, $0) }, index: nil)
  }

  /// The files that an index names, and no others.
  private init(folder: String, index path: String, known: KnownContents?) throws(Failure) {
    let text = try readSmallFile(path, limit: CheckpointFiles.longestIndex)
    let index: Index
    if let same = known?.index(text, path: path) { index = same } else { index = try Index(text, path: path) }
    let paths = index.files.map { joined(folder, $0) }
    if let absent = paths.indices.first(where: { FileSystem.kind(paths[$0]) == nil }) {
      throw Failure(
        .notFound,
        "\(path) names \(quoted(index.files[absent])), which is not there: the download is incomplete; fetch it again")
    }
    self.init(path: folder, folder: folder, paths: paths, index: index)
  }

  /// Two names of different bytes that Unicode holds to be the same text, as Swift's dictionaries do.
  static func lookalike(_ name: String, in path: String) -> Failure {
    Failure(.format, "\(path) has two tensors called \(quoted(name)), spelled with different Unicode; rename one of them")
  }

  /// Is a file by its name one of PyTorch's?
  static func isTorch(_ name: String) -> Bool { torchSuffixes.contains { name.hasSuffix($0) } }

  /// PyTorch's weights: pytorch_model.bin, one other file, or a numbered series.
  private static func torchFiles(in folder: String, _ names: [String]) throws(Failure) -> [String] {
    if names.contains(torchSingleName) { return [torchSingleName] }
    let found = names.filter { name in
      isTorch(name) && !name.hasPrefix(".")
        && !trainingStates.contains { name.hasPrefix($0) }
    }
    guard !found.isEmpty else {
      if let other = names.first(where: { $0.hasSuffix(".gguf") }) {
        throw Failure(
          .format, "\(folder) has no safetensors files, but \(quoted(other)): convert the model to safetensors first")
      }
      throw Failure(
        .notFound, "\(folder) has no checkpoint: neither \(indexName) nor \(singleName) nor any *.safetensors file")
    }
    guard found.count == 1 || Set(found.map { series(of: $0)?.pattern ?? $0 }).count == 1 else {
      throw Failure(
        .format,
        "\(folder) has no safetensors files, and \(found.count) files of PyTorch, \(quoted(found[0])) and \(quoted(found[1])) "
          + "among them: give the path of the one that holds the weights")
    }
    return found
  }

  /// Without an index nothing else would tell that a shard of model-00001-of-00003.safetensors and so on is missing.
  private static func checkSeries(_ names: [String], in folder: String) throws(Failure) {
    var present: [String: Int] = [:]
    for name in names {
      guard let series = series(of: name) else { continue }
      present[series.pattern, default: 0] += 1
    }
    for name in names {
      guard let series = series(of: name), let count = present[series.pattern], count < series.total else { continue }
      throw Failure(
        .notFound, "\(folder) has only \(count) of the \(series.total) files that \(quoted(name)) is one of; fetch the others")
    }
  }

  /// "model-00001-of-00003.safetensors" belongs to the 3 files of "model-of-00003".
  private static func series(of name: String) -> (pattern: String, total: Int)? {
    let stem = name.split(separator: ".", omittingEmptySubsequences: false).dropLast().joined(separator: ".")
    let parts = stem.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count >= 3, parts[parts.count - 2] == "of", let total = Int(parts[parts.count - 1]),
      Int(parts[parts.count - 3]) != nil
    else { return nil }
    return ((parts.dropLast(3) + parts.suffix(2)).joined(separator: "-"), total)
  }
}

extension CheckpointFiles.Index {
  /// The same index beside other files of the same names.
  init(_ other: Self, path: String) {
    self.init(path: path, text: other.text, files: other.files, entries: other.entries)
  }

  /// - Throws: `.format` for what is no index, names no files, or points out of its folder.
  init(_ text: [UInt8], path: String) throws(Failure) {
    let document = try text.withUnsafeBytes { raw in
      Result { () throws(Failure) in try JSONDocument(raw, source: path) }
    }.get()
    guard let map = document.root["weight_map"], map.isObject else {
      throw Failure(.format, "\(path) has no weight_map from tensor names to files")
    }
    // Files are numbered as they come, and in the order of their names at the end.
    var files: [String] = []
    var numbers: [String: Int] = [:]
    var entries: [Entry] = []
    entries.reserveCapacity(map.count)
    for (tensor, value) in map.members {
      guard let file = value.string, isPlainName(file) else {
        let shown = value.string.map(quoted) ?? "something that is no string"
        throw Failure(
          .format, "\(path) puts tensor \(quoted(tensor)) in \(shown), which is not the plain name of a file beside it")
      }
      let last = entries.last?.file
      let number = last.flatMap { files[$0] == file ? $0 : nil } ?? numbers[file] ?? files.count
      if number == files.count {
        files.append(file)
        numbers[file] = number
      } else if !files[number].utf8.elementsEqual(file.utf8) {
        throw Failure(
          .format, "\(path) names two files \(quoted(file)), spelled with different Unicode; rename one of them")
      }
      entries.append(Entry(tensor: tensor, file: number))
    }
    guard !files.isEmpty else { throw Failure(.format, "\(path) names no files: its weight_map is empty") }
    let order = files.indices.sorted { precedes(files[$0], files[$1]) }
    var places = [Int](repeating: 0, count: files.count)
    for (place, file) in order.enumerated() { places[file] = place }
    for position in entries.indices { entries[position].file = places[entries[position].file] }
    entries = sortedByName(entries) { $0.tensor }
    var others: Set<String> = []
    for entry in entries where !entry.tensor.utf8.allSatisfy({ $0 < 0x80 }) && !others.insert(entry.tensor).inserted {
      throw CheckpointFiles.lookalike(entry.tensor, in: path)
    }
    self.init(path: path, text: text, files: order.map { files[$0] }, entries: entries)
  }
}

/// A name in a folder.
func joined(_ folder: String, _ name: String) -> String {
  folder.hasSuffix("/") ? folder + name : folder + "/" + name
}

/// The whole of a file of text that has no business to be longer than `limit` bytes.
func readSmallFile(_ path: String, limit: Int) throws(Failure) -> [UInt8] {
  guard FileSystem.kind(path) != .other else { throw Failure(.file, "\(path) is not a regular file") }
  let file = try File(path: path, mode: .read)
  let size = try file.size()
  guard size <= limit else {
    throw Failure(.format, "\(path) has \(size) bytes, too many for such a file; the limit is \(limit)")
  }
  return try file.bytes(count: size, at: 0)
}
