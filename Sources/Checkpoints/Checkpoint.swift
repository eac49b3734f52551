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

  /// From so many tensors on, the headers of several files are read side by side.
  private static let manyTensors = 2000

  /// What names beside the tensors' own stand for.
  private let aliases: [String: Int]
  private let openFiles: OpenFiles

  /// - Throws: `.notFound`, `.file`, or `.format` for anything that contradicts itself: see `SafetensorsHeader`; one tensor in
  ///   two files; an index and files that do not agree on every tensor; an index that points out of its folder.
  public init(path: String) throws(Failure) {
    let found = try CheckpointFiles(path: path)
    let openFiles = OpenFiles(paths: found.paths)
    var records: [TensorRecord] = []
    var metadata: [(key: String, value: String)] = []
    let isLarge = (found.entries?.count ?? 0) >= Checkpoint.manyTensors
    let headers = WorkerPool.map(found.paths.count, workers: isLarge ? Machine.usableCPUs() : 1) { index in
      Result { () throws(Failure) in try Checkpoint.header(of: index, in: openFiles) }
    }
    for (index, header) in headers.enumerated() {
      let (tensors, own) = try header.get()
      if index == 0 { metadata = own }
      records += tensors
    }
    records = sortedByName(records) { $0.name }
    try Checkpoint.checkNames(records, found.paths)
    var totalBytes = 0
    for position in records.indices {
      let (sum, overflow) = totalBytes.addingReportingOverflow(records[position].byteCount)
      guard !overflow else { throw Failure(.format, "the tensors of \(path) have more bytes than 63 bits can count") }
      totalBytes = sum
    }
    if let entries = found.entries { try Checkpoint.check(records, against: entries, found.paths, found.indexPath ?? "") }

    self.path = path
    self.files = found.paths
    self.folder = found.folder
    self.tensors = records
    self.metadata = metadata
    self.totalBytes = totalBytes
    aliases = [:]
    self.openFiles = openFiles
  }

  private static func header(
    of index: Int, in openFiles: OpenFiles
  ) throws(Failure) -> (tensors: [TensorRecord], metadata: [(key: String, value: String)]) {
    let file = try openFiles.file(index)
    if try TorchArchive.isOne(file) || CheckpointFiles.isTorch(file.path) {
      return (try TorchArchive(reading: file, index: index).tensors, [])
    }
    let header = try SafetensorsHeader(reading: file, index: index)
    return (header.tensors, header.metadata)
  }

  /// A model with some tensors taken from another checkpoint, whose files come after its own.
  init(_ model: Checkpoint, replacing replacements: [String: TensorRecord], from other: Checkpoint) {
    path = model.path
    files = model.files + other.files
    folder = model.folder
    metadata = model.metadata
    aliases = model.aliases
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
    aliases = other.aliases.merging([name: other.index(of: stored)!]) { own, _ in own }
    openFiles = other.openFiles
  }

  /// Position in `tensors` of the tensor of that name, or of the one that answers to it.
  /// - Parameter guess: where it is looked for first; in models of one architecture a name has the same position.
  public func index(of name: String, near guess: Int = -1) -> Int? {
    if tensors.indices.contains(guess), tensors[guess].name == name { return guess }
    var (low, high) = (0, tensors.count)
    while low < high {
      let middle = (low + high) / 2
      if precedes(tensors[middle].name, name) { low = middle + 1 } else { high = middle }
    }
    if low < tensors.count, tensors[low].name == name { return low }
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

  private static func twice(_ first: TensorRecord, _ second: TensorRecord, _ paths: [String]) -> Failure {
    let (one, other) = (paths[min(first.file, second.file)], paths[max(first.file, second.file)])
    if one == other || !first.name.utf8.elementsEqual(second.name.utf8) {
      return CheckpointFiles.lookalike(first.name, in: FileSystem.directory(of: one))
    }
    return Failure(.format, "tensor \(quoted(first.name)) is both in \(one) and in \(other); keep one of them")
  }

  /// No name twice, in order of the names. What Unicode holds to be the same text is one name, as it is in Swift's dictionaries.
  private static func checkNames(_ records: [TensorRecord], _ paths: [String]) throws(Failure) {
    var others: [String: Int] = [:]
    for position in records.indices {
      let name = records[position].name
      if position > 0, records[position - 1].name == name { throw twice(records[position - 1], records[position], paths) }
      guard !name.utf8.allSatisfy({ $0 < 0x80 }) else { continue }
      if let other = others.updateValue(position, forKey: name) { throw twice(records[other], records[position], paths) }
    }
  }

  /// The index and the files must name the same tensors in the same places. Both are ordered by name.
  private static func check(
    _ records: [TensorRecord], against entries: [CheckpointFiles.Entry], _ paths: [String], _ index: String
  ) throws(Failure) {
    var next = 0
    var surplus: Int?
    for position in records.indices {
      while next < entries.count, precedes(entries[next].tensor, records[position].name) {
        surplus = surplus ?? next
        next += 1
      }
      let (name, file) = (records[position].name, records[position].file)
      guard next < entries.count, entries[next].tensor == name else {
        throw Failure(.format, "\(paths[file]) holds tensor \(quoted(name)), which \(index) does not name")
      }
      guard entries[next].file == file else {
        throw Failure(
          .format, "\(index) puts tensor \(quoted(name)) in \(paths[entries[next].file]), but \(paths[file]) holds it")
      }
      next += 1
    }
    guard let first = surplus ?? (next < entries.count ? next : nil) else { return }
    throw Failure(
      .format,
      "\(index) puts tensor \(quoted(entries[first].tensor)) in \(paths[entries[first].file]), which does not hold it")
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
