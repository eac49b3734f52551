import Platform
import TensorKernels

/// A checkpoint opened for reading: every header read and proved, no tensor read yet.
///
/// It is a folder with `model.safetensors.index.json` (exactly the files the index names are read), a folder with
/// `model.safetensors`, a folder with other `*.safetensors` files (all of them), or one such file; where there are none, the same
/// with PyTorch's files (`TorchArchive`). Any number of threads may read from it.
public final class Checkpoint: @unchecked Sendable {
  // @unchecked: all of it is immutable but the table of open files, which has its own lock.

  /// As given.
  public let path: String
  /// Paths of the safetensors files, ordered by name.
  public let files: [String]
  /// Ordered by the bytes of the name; all names differ.
  public let tensors: [TensorRecord]
  /// The `__metadata__` of the first file, in its order.
  public let metadata: [(key: String, value: String)]
  /// Of all tensors.
  public let totalBytes: Int
  /// Where config.json, the tokenizer and other side files lie; nil for a single file.
  public let folder: String?

  public var isFolder: Bool { folder != nil }

  /// Position of the first tensor that has a quantiser's name; nil: none has.
  let quantized: Int?
  /// What names beside the tensors' own stand for.
  private let aliases: [String: Int]
  private let openFiles: OpenFiles

  /// - Parameter known: what was found in a checkpoint that was opened before, of which this one may be a fine-tune.
  /// - Throws: `.notFound`, `.file`, or `.format` for anything that contradicts itself: see `SafetensorsHeader`; one tensor in
  ///   two files; an index and files that do not agree on every tensor; an index that points out of its folder.
  public init(path: String, known: KnownContents? = nil) throws(Failure) {
    let found = try CheckpointFiles(path: path, known: known)
    let openFiles = OpenFiles(paths: found.paths)
    let texts = WorkerPool.map(found.paths.count, workers: found.workers) { file in
      Result { () throws(Failure) in try Self.headerText(of: file, in: openFiles) }
    }
    let headers = try texts.map { (text) throws(Failure) in try text.get() }
    let contents: CheckpointContents
    if let same = known?.contents(found.index?.text, headers) {
      contents = same
    } else {
      contents = try CheckpointContents(found, headers: headers) { file in
        Result { () throws(Failure) in try TorchArchive(reading: openFiles.file(file), index: file).tensors }
      }
      known?.add(contents, found.index, headers)
    }
    self.path = path
    files = found.paths
    folder = found.folder
    (tensors, metadata, totalBytes) = (contents.tensors, contents.metadata, contents.totalBytes)
    quantized = contents.quantized
    aliases = [:]
    self.openFiles = openFiles
  }

  /// nil for one of PyTorch's.
  private static func headerText(of index: Int, in openFiles: OpenFiles) throws(Failure) -> SafetensorsHeader.Text? {
    let file = try openFiles.file(index)
    if try TorchArchive.isOne(file) || CheckpointFiles.isTorch(file.path) { return nil }
    return try SafetensorsHeader.Text(of: file)
  }

  /// A model with some tensors taken from another checkpoint, whose files come after its own.
  init(_ model: Checkpoint, replacing replacements: [String: TensorRecord], from other: Checkpoint) {
    path = model.path
    files = model.files + other.files
    folder = model.folder
    metadata = model.metadata
    (aliases, quantized) = (model.aliases, model.quantized)
    tensors = model.tensors.map { record in
      guard let new = replacements[record.name] else { return record }
      return TensorRecord(
        name: record.name, dtype: new.dtype, shape: new.shape, file: model.files.count + new.file, offset: new.offset,
        count: new.count, byteCount: new.byteCount)
    }
    totalBytes = tensors.reduce(0) { $0 + $1.byteCount }
    openFiles = OpenFiles(paths: files)
  }

  /// The tensor of that name, or the one that answers to it.
  public func tensor(named name: String) -> TensorRecord? { index(of: name).map { tensors[$0] } }

  /// The same checkpoint, of which a tensor also answers to another name, as a tied embedding does to its head's. `tensors` does
  /// not list it twice.
  public func answering(to name: String, with stored: String) -> Checkpoint { Checkpoint(self, answering: name, with: stored) }

  private init(_ other: Checkpoint, answering name: String, with stored: String) {
    path = other.path
    files = other.files
    folder = other.folder
    tensors = other.tensors
    metadata = other.metadata
    totalBytes = other.totalBytes
    quantized = other.quantized
    aliases = other.aliases.merging([name: other.index(of: stored)!]) { own, _ in own }
    openFiles = other.openFiles
  }

  /// Position in `tensors` of the tensor of that name, or of the one that answers to it.
  /// - Parameter guess: where it is looked for first; in models of one architecture a name has the same position.
  public func index(of name: String, near guess: Int = -1) -> Int? {
    if tensors.indices.contains(guess), tensors[guess].name == name { return guess }
    if let position = TensorRecord.position(of: name, in: tensors) { return position }
    if let alias = aliases[name] { return alias }
    // The same text in another spelling of Unicode lies elsewhere.
    return name.utf8.allSatisfy { $0 < 0x80 } ? nil : tensors.firstIndex { $0.name == name }
  }

  /// Positions in `tensors` in the order in which the tensors lie: by file, place, and name.
  public var positionsInFiles: [Int] {
    var keys = tensors.indices.map { (file: tensors[$0].file, offset: tensors[$0].offset, position: $0) }
    // The tensors are ordered by name, so the position stands for it.
    keys.sort { ($0.file, $0.offset, $0.position) < ($1.file, $1.offset, $1.position) }
    return keys.map(\.position)
  }

  /// Read bytes of a tensor, little-endian and row-major, as they are in the file.
  /// - Parameters:
  ///   - record: of this checkpoint.
  ///   - range: counted from the tensor's first byte.
  ///   - buffer: room for `range.count` bytes.
  /// - Throws: `.argument` for a range outside the tensor, `.file`, `.format` when the file has changed since it was opened.
  public func read(_ record: TensorRecord, bytes range: Range<Int>, into buffer: UnsafeMutableRawPointer) throws(Failure) {
    guard files.indices.contains(record.file), range.lowerBound >= 0, range.upperBound <= record.byteCount else {
      throw Failure(
        .argument,
        "bytes \(range.lowerBound) to \(range.upperBound) are not within tensor \(quoted(record.name)) of \(path), which has "
          + "\(record.byteCount)")
    }
    guard !range.isEmpty else { return }
    do throws(Failure) {
      try openFiles.file(record.file).read(into: buffer, count: range.count, at: record.offset + range.lowerBound)
    } catch {
      throw Failure(error.status, "tensor \(quoted(record.name)) cannot be read: \(error.message)")
    }
  }

  /// Copy bytes of a tensor into a file as they are, without reading them.
  /// - Returns: false when the system cannot do that between these files: read and write them then.
  public func copy(_ record: TensorRecord, bytes range: Range<Int>, to file: File, at offset: Int) throws(Failure) -> Bool {
    guard range.lowerBound >= 0, range.upperBound <= record.byteCount, let source = try? openFiles.file(record.file) else {
      return false
    }
    return try file.copy(from: source, record.offset + range.lowerBound..<record.offset + range.upperBound, to: offset)
  }

  /// Bytes of a tensor without a copy; nil where that is not possible, or not worth it. To be read inside `MappedWindow.guarded`.
  public func window(_ record: TensorRecord, bytes range: Range<Int>) -> MappedWindow? {
    guard range.count >= MappedWindow.smallest, range.lowerBound >= 0, range.upperBound <= record.byteCount,
      // Kernels expect elements at multiples of their size.
      record.offset % max(1, record.dtype.size) == 0, let file = try? openFiles.file(record.file)
    else { return nil }
    return file.window(record.offset + range.lowerBound..<record.offset + range.upperBound)
  }

  /// Ask the kernel to fetch bytes of a tensor soon, without waiting. Advice only: nothing can fail.
  public func prefetch(_ record: TensorRecord, bytes range: Range<Int>) {
    let range = range.clamped(to: 0..<record.byteCount)
    guard !range.isEmpty, files.indices.contains(record.file), let file = try? openFiles.file(record.file) else { return }
    file.prefetch(record.offset + range.lowerBound..<record.offset + range.upperBound)
  }

  /// Bytes of a file without a copy, counted from its start; nil as above.
  public func window(file: Int, bytes range: Range<Int>) -> MappedWindow? {
    guard range.count >= MappedWindow.smallest, let file = try? openFiles.file(file) else { return nil }
    return file.window(range)
  }

  /// Ask the kernel to fetch bytes of a file soon, counted from its start. There may be fewer.
  public func prefetch(file: Int, bytes range: Range<Int>) {
    if let file = try? openFiles.file(file) { file.prefetch(range) }
  }
}

/// The files of one checkpoint, opened at first use and kept, but no more than 64 at a time: a job with several models of
/// hundreds of shards would otherwise run into the usual limit of 1024 descriptors.
private final class OpenFiles: @unchecked Sendable {
  // @unchecked: everything mutable is touched under the lock only.
  private static let limit = 64

  private let paths: [String]
  private let lock = Monitor()
  private var files: [Int: File] = [:]
  private var oldestFirst: [Int] = []
  private var firstSeen: [Int: (identity: FileIdentity, size: Int)] = [:]

  init(paths: [String]) { self.paths = paths }

  func file(_ index: Int) throws(Failure) -> File {
    if let file = lock.locked({ files[index] }) { return file }
    let path = paths[index]
    // Opening a pipe would wait for its writer.
    guard FileSystem.kind(path) != .other else { throw Failure(.file, "\(path) is not a regular file") }
    let file = try File(path: path, mode: .read)
    let now = (identity: try file.identity(), size: try file.size())
    let unchanged = lock.locked {
      let before = firstSeen[index] ?? now
      guard before == now else { return false }
      firstSeen[index] = before
      // A file that falls out is closed when its last reader is done with it.
      if files.updateValue(file, forKey: index) == nil { oldestFirst.append(index) }
      if oldestFirst.count > OpenFiles.limit { files[oldestFirst.removeFirst()] = nil }
      return true
    }
    guard unchanged else { throw Failure(.format, "\(path) has been replaced while it was in use; start again") }
    return file
  }
}
