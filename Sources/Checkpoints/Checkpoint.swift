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

  private let positions: [String: Int]
  private let openFiles: OpenFiles

  /// - Throws: `.notFound`, `.file`, or `.format` for anything that contradicts itself: see `SafetensorsHeader`; one tensor in
  ///   two files; an index and files that do not agree on every tensor; an index that points out of its folder.
  public init(path: String) throws(Failure) {
    let found = try CheckpointFiles(path: path)
    let openFiles = OpenFiles(paths: found.paths)
    var records: [TensorRecord] = []
    var metadata: [(key: String, value: String)] = []
    for index in found.paths.indices {
      let file = try openFiles.file(index)
      let isArchive = try TorchArchive.isOne(file)
      if isArchive || CheckpointFiles.isTorch(file.path) {
        records += try TorchArchive(reading: file, index: index).tensors
        continue
      }
      let header = try SafetensorsHeader(reading: file, index: index)
      if index == 0 { metadata = header.metadata }
      records += header.tensors
    }
    records.sort { precedes($0.name, $1.name) }

    var positions: [String: Int] = [:]
    positions.reserveCapacity(records.count)
    var totalBytes = 0
    for (position, record) in records.enumerated() {
      if let other = positions.updateValue(position, forKey: record.name) {
        throw Checkpoint.twice(records[other], record, found.paths)
      }
      let (sum, overflow) = totalBytes.addingReportingOverflow(record.byteCount)
      guard !overflow else { throw Failure(.format, "the tensors of \(path) have more bytes than 63 bits can count") }
      totalBytes = sum
    }
    if let fileOfTensor = found.fileOfTensor {
      try Checkpoint.check(records, positions, against: fileOfTensor, found.paths, found.indexPath ?? "")
    }

    self.path = path
    self.files = found.paths
    self.folder = found.folder
    self.tensors = records
    self.metadata = metadata
    self.totalBytes = totalBytes
    self.positions = positions
    self.openFiles = openFiles
  }

  /// A model with some tensors taken from another checkpoint, whose files come after its own.
  init(_ model: Checkpoint, replacing replacements: [String: TensorRecord], from other: Checkpoint) {
    path = model.path
    files = model.files + other.files
    folder = model.folder
    metadata = model.metadata
    positions = model.positions
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
  public func tensor(named name: String) -> TensorRecord? { positions[name].map { tensors[$0] } }

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
    positions = other.positions.merging([name: other.positions[stored]!]) { own, _ in own }
    openFiles = other.openFiles
  }

  /// Position of a tensor in `tensors`.
  public func index(of name: String) -> Int? { positions[name] }

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

  private static func twice(_ first: TensorRecord, _ second: TensorRecord, _ paths: [String]) -> Failure {
    let (one, other) = (paths[min(first.file, second.file)], paths[max(first.file, second.file)])
    if one == other || !first.name.utf8.elementsEqual(second.name.utf8) {
      return CheckpointFiles.lookalike(first.name, in: FileSystem.directory(of: one))
    }
    return Failure(.format, "tensor \(quoted(first.name)) is both in \(one) and in \(other); keep one of them")
  }

  /// The index and the files must name the same tensors in the same places.
  private static func check(
    _ records: [TensorRecord], _ positions: [String: Int], against fileOfTensor: [String: Int], _ paths: [String],
    _ index: String
  ) throws(Failure) {
    for record in records {
      guard let expected = fileOfTensor[record.name] else {
        throw Failure(.format, "\(paths[record.file]) holds tensor \(quoted(record.name)), which \(index) does not name")
      }
      guard expected == record.file else {
        throw Failure(
          .format, "\(index) puts tensor \(quoted(record.name)) in \(paths[expected]), but \(paths[record.file]) holds it")
      }
    }
    // Every record has its entry by now, so the index can only name too many.
    guard fileOfTensor.count > records.count else { return }
    for (name, file) in fileOfTensor.sorted(by: { precedes($0.key, $1.key) }) where positions[name] == nil {
      throw Failure(.format, "\(index) puts tensor \(quoted(name)) in \(paths[file]), which does not hold it")
    }
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
