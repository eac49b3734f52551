import Platform
import Synchronization

/// The tensors of a checkpoint, as its index and the headers of its files have them, proved against one another.
struct CheckpointContents: Sendable {
  /// Ordered by the bytes of the name; all names differ.
  let tensors: [TensorRecord]
  /// The `__metadata__` of the first file, in its order.
  let metadata: [(key: String, value: String)]
  /// Of all tensors.
  let totalBytes: Int
  /// Position of the first tensor that has a quantiser's name; nil: none has.
  let quantized: Int?

  /// - Parameters:
  ///   - headers: of each file the text before its data; nil for one of PyTorch's.
  ///   - archive: reads the records of such a file.
  init(
    _ found: CheckpointFiles, headers: [SafetensorsHeader.Text?],
    archive: @escaping @Sendable (Int) -> Result<[TensorRecord], Failure>
  ) throws(Failure) {
    let parsed = WorkerPool.map(headers.count, workers: found.workers) { file in
      Result { () throws(Failure) -> (tensors: [TensorRecord], metadata: [(key: String, value: String)]) in
        guard let text = headers[file] else { return (try archive(file).get(), []) }
        let header = try SafetensorsHeader(text, path: found.paths[file], index: file)
        return (header.tensors, header.metadata)
      }
    }
    var records: [TensorRecord] = []
    var metadata: [(key: String, value: String)] = []
    for (file, header) in parsed.enumerated() {
      let (tensors, own) = try header.get()
      if file == 0 { metadata = own }
      records += tensors
    }
    records = sortedByName(records) { $0.name }
    try Self.checkNames(records, found.paths)
    var totalBytes = 0
    for position in records.indices {
      let (sum, overflow) = totalBytes.addingReportingOverflow(records[position].byteCount)
      guard !overflow else { throw Failure(.format, "the tensors of \(found.path) have more bytes than 63 bits can count") }
      totalBytes = sum
    }
    if let index = found.index { try Self.check(records, against: index, found.paths) }
    (tensors, self.metadata, self.totalBytes) = (records, metadata, totalBytes)
    quantized = Quantization.first(in: records)
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
    _ records: [TensorRecord], against index: CheckpointFiles.Index, _ paths: [String]
  ) throws(Failure) {
    let entries = index.entries
    var next = 0
    var surplus: Int?
    for position in records.indices {
      while next < entries.count, precedes(entries[next].tensor, records[position].name) {
        surplus = surplus ?? next
        next += 1
      }
      let (name, file) = (records[position].name, records[position].file)
      guard next < entries.count, entries[next].tensor == name else {
        throw Failure(.format, "\(paths[file]) holds tensor \(quoted(name)), which \(index.path) does not name")
      }
      guard entries[next].file == file else {
        throw Failure(
          .format, "\(index.path) puts tensor \(quoted(name)) in \(paths[entries[next].file]), but \(paths[file]) holds it")
      }
      next += 1
    }
    guard let first = surplus ?? (next < entries.count ? next : nil) else { return }
    throw Failure(
      .format,
      "\(index.path) puts tensor \(quoted(entries[first].tensor)) in \(paths[entries[first].file]), which does not hold it")
  }
}

/// What the first of several checkpoints was found to hold. Fine-tunes of one model that one tool wrote have the same index and
/// headers to the byte, and what was proved of a text once is not parsed and proved again. To be kept no longer than checkpoints
/// are opened: it holds the texts.
public final class KnownContents: Sendable {
  private struct Known {
    let index: CheckpointFiles.Index?
    let headers: [SafetensorsHeader.Text]
    let contents: CheckpointContents
  }

  private let first = Mutex<Known?>(nil)

  public init() {}

  /// An index of this text, as if read from `path`.
  func index(_ text: [UInt8], path: String) -> CheckpointFiles.Index? {
    guard let known = first.withLock({ $0?.index }), known.text == text else { return nil }
    return CheckpointFiles.Index(known, path: path)
  }

  /// The contents of files with these headers, in the order of the index of this text.
  func contents(_ index: [UInt8]?, _ headers: [SafetensorsHeader.Text?]) -> CheckpointContents? {
    guard let known = first.withLock({ $0 }), known.index?.text == index, known.headers == headers else { return nil }
    return known.contents
  }

  /// Of a checkpoint that was proved. Only the first is kept.
  func add(_ contents: CheckpointContents, _ index: CheckpointFiles.Index?, _ headers: [SafetensorsHeader.Text?]) {
    let texts = headers.compactMap { $0 }
    guard texts.count == headers.count else { return }
    first.withLock { known in
      if known == nil { known = Known(index: index, headers: texts, contents: contents) }
    }
  }
}
