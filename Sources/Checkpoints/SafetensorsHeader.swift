import JSON
import Platform
import TensorKernels

/// One tensor of a checkpoint: what it is, and where its bytes lie.
public struct TensorRecord: Sendable, Equatable {
  public let name: String
  public let dtype: DType
  /// Row-major; empty for a scalar.
  public let shape: [Int]
  /// Index into `Checkpoint.files`.
  public let file: Int
  /// Of the first byte, from the start of the file.
  public let offset: Int
  /// Elements.
  public let count: Int
  /// `count * dtype.size`.
  public let byteCount: Int

  /// Where the record of that name, spelled the same, stands among records in the order of their names.
  static func position(of name: String, in records: [TensorRecord]) -> Int? {
    var (low, high) = (0, records.count)
    while low < high {
      let middle = (low + high) / 2
      if precedes(records[middle].name, name) { low = middle + 1 } else { high = middle }
    }
    return low < records.count && records[low].name == name ? low : nil
  }
}

/// The header of a safetensors file, read and proved: its tensors tile the data without overlap or hole, up to the last byte.
///
///     u64 N, little-endian | N bytes: {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...} | data
public struct SafetensorsHeader: Sendable {
  /// The longest header that the reference reader accepts, in bytes.
  public static let maximumLength = 100_000_000

  /// In the order of their bytes in the file.
  public let tensors: [TensorRecord]
  /// The strings under `__metadata__`, in the order of the text.
  public let metadata: [(key: String, value: String)]
  /// Where the data begins: 8 + N.
  public let dataOffset: Int

  /// What a file says before its data.
  struct Text: Equatable, Sendable {
    /// The N bytes.
    let bytes: [UInt8]
    /// Of the whole file, at least 8 + N.
    let fileSize: Int

    /// - Throws: `.format` for what cannot be a safetensors file, `.file` when the system refuses.
    init(of file: File) throws(Failure) {
      fileSize = try file.size()
      guard fileSize >= 8 else {
        throw Failure(.format, "\(file.path) has \(fileSize) bytes and cannot be a safetensors file; fetch it again")
      }
      let start = try file.bytes(count: 8, at: 0)
      bytes = try file.bytes(count: try SafetensorsHeader.length(start, fileSize: fileSize, path: file.path), at: 8)
    }
  }

  /// Read the header of a file.
  /// - Parameter index: what the records shall have as their `file`.
  /// - Throws: `.format` for anything that is not a sound safetensors file, `.file` when the system refuses.
  public init(reading file: File, index: Int = 0) throws(Failure) {
    try self.init(try Text(of: file), path: file.path, index: index)
  }

  init(_ text: Text, path: String, index: Int) throws(Failure) {
    try self.init(text: text.bytes, fileSize: text.fileSize, path: path, index: index)
  }

  /// N, from the first eight bytes of a file.
  static func length(_ start: [UInt8], fileSize: Int, path: String) throws(Failure) -> Int {
    let length = start.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    if length > UInt64(maximumLength) || length > UInt64(fileSize - 8) {
      if let other = otherFormat(start, path) { throw Failure(.format, "\(path) is \(other)") }
    }
    guard length <= UInt64(maximumLength) else {
      throw Failure(.format, "\(path) claims a header of \(length) bytes, more than safetensors allows: it is not such a file")
    }
    guard length <= UInt64(fileSize - 8) else {
      throw Failure(.format, "\(path) ends inside its header of \(length) bytes: it has been truncated; fetch it again")
    }
    return Int(length)
  }

  /// What people take for safetensors files.
  static func otherFormat(_ start: [UInt8], _ path: String) -> String? {
    if start.elementsEqual("version ".utf8) { return "a Git LFS pointer, not the weights; run git lfs pull" }
    if start.starts(with: "GGUF".utf8) { return "a GGUF file; convert it to safetensors" }
    if start.starts(with: [0x80]) {
      return "a bare pickle, as PyTorch wrote them before version 1.6; \(TorchArchive.conversion(of: path))"
    }
    return nil
  }

  /// Check the text of a header.
  /// - Parameters:
  ///   - text: the N bytes.
  ///   - fileSize: bytes of the whole file, at least 8 + N.
  public init(text: [UInt8], fileSize: Int, path: String, index: Int = 0) throws(Failure) {
    let document = try text.withUnsafeBytes { raw in
      Result { () throws(Failure) in try JSONDocument(raw, source: "the header of \(path)") }
    }.get()
    guard document.root.isObject else {
      throw Failure(.format, "the header of \(path) is not a JSON object: it is not a safetensors file")
    }
    var metadata: [(key: String, value: String)] = []
    var spans: [Entry] = []
    spans.reserveCapacity(document.root.count)
    for (name, entry) in document.root.members {
      if name == "__metadata__" {
        metadata = try SafetensorsHeader.strings(entry, path: path)
      } else {
        spans.append(try Entry(name, entry, path: path))
      }
    }
    // Jansson reads -0 as the integer 0. No number of a header may have a sign, so any minus outside a string is a lie.
    if let position = SafetensorsHeader.minus(in: text) {
      throw Failure(
        .format, "the header of \(path) has a negative number at byte \(8 + position): it is not a safetensors file")
    }
    dataOffset = 8 + text.count
    spans.sort { ($0.begin, $0.end) < ($1.begin, $1.end) }
    try SafetensorsHeader.checkTiling(spans, dataSize: fileSize - dataOffset, path: path)
    tensors = spans.map { [dataOffset] span in
      TensorRecord(
        name: span.name, dtype: span.dtype, shape: span.shape, file: index, offset: dataOffset + span.begin, count: span.count,
        byteCount: span.end - span.begin)
    }
    self.metadata = metadata
  }

  private static func strings(_ entry: JSONNode, path: String) throws(Failure) -> [(key: String, value: String)] {
    guard entry.isObject else { throw Failure(.format, "__metadata__ of \(path) is not a JSON object") }
    var result: [(key: String, value: String)] = []
    for (key, value) in entry.members {
      guard let value = value.string else {
        throw Failure(.format, "__metadata__ of \(path) holds \(quoted(key)), which is not a string")
      }
      result.append((key, value))
    }
    return result
  }

  /// The spans, sorted, must follow one another from 0 to the end of the data.
  private static func checkTiling(_ spans: [Entry], dataSize: Int, path: String) throws(Failure) {
    var end = 0
    var previous = ""
    for span in spans {
      if span.begin < end {
        throw Failure(.format, "tensors \(quoted(previous)) and \(quoted(span.name)) overlap in \(path)")
      }
      if span.begin > end {
        throw Failure(.format, "\(path) has a hole of \(span.begin - end) bytes before tensor \(quoted(span.name))")
      }
      end = span.end
      previous = span.name
    }
    if end > dataSize {
      throw Failure(
        .format,
        "\(path) ends \(end - dataSize) bytes before its last tensor \(quoted(previous)) does: it has been truncated; fetch it again"
      )
    }
    if end < dataSize {
      throw Failure(.format, "\(path) has \(dataSize - end) bytes after its last tensor, which no safetensors file may have")
    }
  }

  /// Position of the first minus sign outside the strings of valid JSON.
  private static func minus(in text: [UInt8]) -> Int? {
    var inString = false
    var escaped = false
    for (position, byte) in text.enumerated() {
      if escaped {
        escaped = false
      } else if byte == UInt8(ascii: "\\") {
        escaped = true
      } else if byte == UInt8(ascii: "\"") {
        inString.toggle()
      } else if byte == UInt8(ascii: "-"), !inString {
        return position
      }
    }
    return nil
  }
}

/// One entry of a header, its shape proved against its offsets.
private struct Entry {
  let name: String
  let dtype: DType
  let shape: [Int]
  let begin: Int
  let end: Int
  let count: Int

  init(_ name: String, _ entry: JSONNode, path: String) throws(Failure) {
    func failure(_ what: String) -> Failure { Failure(.format, "tensor \(quoted(name)) of \(path) \(what)") }

    guard entry.count == 3, let typeName = entry["dtype"]?.string, let shape = entry["shape"], shape.isArray,
      let offsets = entry["data_offsets"], offsets.isArray, offsets.count == 2
    else { throw failure("is not described by exactly a dtype, a shape and two data_offsets") }

    guard let dtype = Entry.types[typeName] else {
      let reason =
        Entry.packed.contains(typeName) ? "which packs elements into less than a byte" : "which is unknown to this library"
      throw failure("has dtype \(quoted(typeName)), \(reason); save the model in a float type of 8 bits or more")
    }
    var sizes: [Int] = []
    sizes.reserveCapacity(shape.count)
    for element in shape.elements {
      guard let size = element.int, size >= 0 else { throw failure("has a shape that is not a list of integers from 0 up") }
      sizes.append(size)
    }
    guard let begin = offsets[0]?.int, let end = offsets[1]?.int, begin >= 0, begin <= end else {
      throw failure("has data_offsets that are not two integers from 0 up, in order")
    }
    guard let count = product(sizes), let bytes = product([count, dtype.size]) else {
      throw failure("has a shape whose size does not fit in 63 bits")
    }
    guard bytes == end - begin else {
      throw failure("has \(end - begin) bytes of data where its shape and dtype need \(bytes)")
    }
    (self.name, self.dtype, self.shape, self.begin, self.end, self.count) = (name, dtype, sizes, begin, end, count)
  }

  private static let types = Dictionary(uniqueKeysWithValues: DType.allCases.map { ($0.name, $0) })
  private static let packed: Set = ["F4", "F6_E2M3", "F6_E3M2"]
}

extension File {
  /// `count` bytes at `offset`. For headers and small files: the caller has bounded the count.
  func bytes(count: Int, at offset: Int) throws(Failure) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let failure: Failure? = bytes.withUnsafeMutableBytes { raw in
      guard let start = raw.baseAddress, count > 0 else { return nil }
      do throws(Failure) { try read(into: start, count: count, at: offset) } catch { return error }
      return nil
    }
    if let failure { throw failure }
    return bytes
  }
}
