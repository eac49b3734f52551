import JSON
import Platform
import TensorKernels

/// Where every byte of a checkpoint to be written will lie, known before the first is written.
///
/// Tensors are put into shards greedily in the order they are given, as huggingface_hub does; inside each file they lie in the
/// order of the reference writer of safetensors, which aligns every tensor to its element size.
public struct CheckpointLayout: Sendable, Equatable {
  public struct FileLayout: Sendable, Equatable {
    /// Plain file name.
    public var name: String
    /// All that comes before the data: the length and the JSON text, padded to a multiple of 8 bytes.
    public var header: [UInt8]
    /// Bytes of the whole file.
    public var size: Int
  }

  public struct Slot: Sendable, Equatable {
    public var name: String
    public var dtype: DType
    public var shape: [Int]
    /// Index into `files`.
    public var file: Int
    /// Of the first byte, from the start of the file.
    public var offset: Int
    public var byteCount: Int
  }

  /// What the files are called.
  public enum Naming: Sendable, Equatable {
    /// `model.safetensors`, or `model-00001-of-00002.safetensors` and so on with an index.
    case folder
    /// Everything in one file of this name, whatever its size.
    case file(String)
  }

  /// 5 GB in decimal units, as huggingface_hub counts them.
  public static let defaultShardSize = 5_000_000_000

  public var files: [FileLayout]
  /// In the order the tensors were given.
  public var slots: [Slot]
  /// Of all tensors, without headers.
  public var totalBytes: Int
  /// The text of `model.safetensors.index.json`; nil for one file.
  public var indexText: String?

  /// - Parameters:
  ///   - tensors: shapes are row-major; the order decides which tensors share a shard.
  ///   - shardSize: bytes of tensors per file; a tensor that is larger gets a file of its own.
  ///   - metadata: for `__metadata__` of every file, after `format`, which is "pt" unless given.
  ///   - workers: make headers side by side.
  /// - Throws: `.argument` for names or keys given twice, or a shard size below 1; `.shape` for a size that cannot be; `.format`
  ///   when a header would be longer than readers accept.
  public init(
    tensors: [(name: String, dtype: DType, shape: [Int])], shardSize: Int = defaultShardSize, naming: Naming = .folder,
    metadata: [(key: String, value: String)] = [], workers: Int = 1
  ) throws(Failure) {
    guard shardSize > 0 else { throw Failure(.argument, "a shard size of \(shardSize) bytes is not possible; give 1 or more") }
    try CheckpointLayout.checkNames(tensors.map(\.name))
    let metadata = try CheckpointLayout.completed(metadata)

    var slots: [Slot] = []
    slots.reserveCapacity(tensors.count)
    var totalBytes = 0
    for (name, dtype, shape) in tensors {
      guard shape.allSatisfy({ $0 >= 0 }), let bytes = product(shape + [dtype.size]),
        case let (sum, overflow) = totalBytes.addingReportingOverflow(bytes), !overflow
      else { throw Failure(.shape, "tensor \(quoted(name)) cannot have shape \(shape): its size is negative or too large") }
      totalBytes = sum
      slots.append(Slot(name: name, dtype: dtype, shape: shape, file: 0, offset: 0, byteCount: bytes))
    }

    var shards = [Array(slots.indices)]
    if naming == .folder { shards = CheckpointLayout.shards(slots.map(\.byteCount), limit: shardSize) }
    let headers = WorkerPool.map(shards.count, workers: workers) { [slots] number in
      Result { () throws(Failure) in
        var name = CheckpointLayout.name(number, of: shards.count)
        if case .file(let given) = naming { name = given }
        let inFile = CheckpointLayout.ordered(shards[number], slots)
        return (name, inFile, try CheckpointLayout.header(inFile.map { slots[$0] }, metadata: metadata, file: name))
      }
    }
    var files: [FileLayout] = []
    for (number, made) in headers.enumerated() {
      let (name, inFile, header) = try made.get()
      var offset = header.count
      for position in inFile {
        slots[position].file = number
        slots[position].offset = offset
        let (end, overflow) = offset.addingReportingOverflow(slots[position].byteCount)
        guard !overflow else { throw Failure(.shape, "the tensors of \(name) are too large for one file; give a shard size") }
        offset = end
      }
      files.append(FileLayout(name: name, header: header, size: offset))
    }

    self.files = files
    self.slots = slots
    self.totalBytes = totalBytes
    indexText = files.count > 1 ? CheckpointLayout.index(slots, files, totalBytes: totalBytes) : nil
  }

  // MARK: - Rules

  private static func checkNames(_ names: [String]) throws(Failure) {
    var seen = Set<String>(minimumCapacity: names.count)
    for name in names {
      guard name != "__metadata__" else { throw Failure(.argument, "a tensor cannot be called \"__metadata__\"; rename it") }
      guard seen.insert(name).inserted else { throw Failure(.argument, "two tensors are called \(quoted(name)); rename one") }
    }
  }

  /// `format` comes first, since huggingface_hub refuses metadata without it.
  private static func completed(_ given: [(key: String, value: String)]) throws(Failure) -> [(key: String, value: String)] {
    var result = [(key: "format", value: given.first { $0.key == "format" }?.value ?? "pt")]
    var seen: Set<String> = []
    for (key, value) in given {
      guard seen.insert(key).inserted else { throw Failure(.argument, "the metadata key \(quoted(key)) is given twice") }
      if key != "format" { result.append((key, value)) }
    }
    return result
  }

  /// Indices of the tensors of each shard, as huggingface_hub's `split_state_dict_into_shards_factory` forms them: a tensor
  /// above the limit closes its own shard at once, and the one being filled goes on after it.
  private static func shards(_ sizes: [Int], limit: Int) -> [[Int]] {
    var done: [[Int]] = []
    var current: [Int] = []
    var filled = 0
    for (index, size) in sizes.enumerated() {
      if size > limit {
        done.append([index])
        continue
      }
      if size > limit - filled {
        done.append(current)
        (current, filled) = ([], 0)
      }
      current.append(index)
      filled += size
    }
    if !current.isEmpty || done.isEmpty { done.append(current) }
    return done
  }

  private static func name(_ number: Int, of count: Int) -> String {
    guard count > 1 else { return CheckpointFiles.singleName }
    func five(_ value: Int) -> String { String(repeating: "0", count: max(0, 5 - String(value).count)) + String(value) }
    return "model-\(five(number + 1))-of-\(five(count)).safetensors"
  }

  /// The tensors of one file in the order of their bytes: by type, and by name.
  private static func ordered(_ shard: [Int], _ slots: [Slot]) -> [Int] {
    let byName = sortedByName(shard) { slots[$0].name }
    let ranks = Set(shard.map { rank(slots[$0].dtype) }).sorted(by: >)
    return ranks.count < 2 ? byName : ranks.flatMap { rank in byName.filter { self.rank(slots[$0].dtype) == rank } }
  }

  /// Place of a type in the reference writer's list, which grows with the alignment; files begin with the highest.
  private static func rank(_ dtype: DType) -> Int {
    switch dtype {
    case .bool: 0
    case .u8: 1
    case .i8: 2
    case .f8e5m2: 3
    case .f8e4m3fn: 4
    case .f8e8m0: 5
    case .i16: 6
    case .u16: 7
    case .f16: 8
    case .bf16: 9
    case .i32: 10
    case .u32: 11
    case .f32: 12
    case .c64: 13
    case .f64: 14
    case .i64: 15
    case .u64: 16
    }
  }

  // MARK: - Texts

  /// The length and the JSON of a header whose tensors are given in the order of their bytes.
  static func header(
    _ slots: [Slot], metadata: [(key: String, value: String)], file: String
  ) throws(Failure) -> [UInt8] {
    var members: [JSON.Member] = []
    members.reserveCapacity(slots.count + 1)
    if !metadata.isEmpty {
      let strings = metadata.map { JSON.Member(key: $0.key, value: .string($0.value)) }
      members.append(JSON.Member(key: "__metadata__", value: .object(strings)))
    }
    var begin = 0
    for slot in slots {
      let (end, overflow) = begin.addingReportingOverflow(slot.byteCount)
      guard !overflow else { throw Failure(.shape, "the tensors of \(file) are too large for one file; give a shard size") }
      let entry: JSON = [
        "dtype": .string(slot.dtype.name),
        "shape": .array(slot.shape.map { .int($0) }),
        "data_offsets": [.int(begin), .int(end)],
      ]
      members.append(JSON.Member(key: slot.name, value: entry))
      begin = end
    }
    var text = Array(JSON.object(members).serialized(indent: 0).utf8)
    text.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - text.count % 8) % 8))
    guard text.count <= SafetensorsHeader.maximumLength else {
      throw Failure(
        .format, "the header of \(file) would have \(text.count) bytes, more than readers accept; give a smaller shard size")
    }
    return (0..<8).map { UInt8(truncatingIfNeeded: text.count >> ($0 * 8)) } + text
  }

  private static func index(_ slots: [Slot], _ files: [FileLayout], totalBytes: Int) -> String {
    let sorted = sortedByName(slots) { $0.name }
    let map = sorted.map { JSON.Member(key: $0.name, value: .string(files[$0.file].name)) }
    let index: JSON = ["metadata": ["total_size": .int(totalBytes)], "weight_map": .object(map)]
    return index.serialized(indent: 2) + "\n"
  }
}
