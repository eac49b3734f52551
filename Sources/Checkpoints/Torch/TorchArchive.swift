import Platform
import TensorKernels

/// The state dict in a file of `torch.save`: which tensors it holds, and where their bytes lie in it.
///
///     <any>/data.pkl       a pickle of dictionaries of tensors, see `Unpickler`
///     <any>/data/<key>     the elements of a storage, little-endian, stored as they are
///     <any>/byteorder      "little"
///
/// Tensors are read from their place in the archive, as those of a safetensors file are. The state dict is the dictionary itself, or
/// what it has under "state_dict" (Lightning), "model_state_dict", "model" or "module"; dictionaries in it join their keys by dots.
/// Everything else in a training checkpoint is left alone. A tensor that is not contiguous, and an object among the tensors, are
/// refused: nothing of a state dict is lost.
struct TorchArchive {
  /// In the order of the pickle.
  let tensors: [TensorRecord]

  private static let longestPickle = 64 << 20
  private static let wrappers = ["state_dict", "model_state_dict", "model", "module"]
  private static let mostEntries = 2_000_000
  /// Of all of them; a key of a dictionary is in the name of every tensor below it.
  private static let mostNameBytes = 256 << 20
  private static let deepest = 16

  /// Does the file begin as a zip archive does?
  static func isOne(_ file: File) throws(Failure) -> Bool {
    guard try file.size() >= 4 else { return false }
    return try file.bytes(count: 4, at: 0) == [0x50, 0x4B, 3, 4]
  }

  /// The command that makes a safetensors file of what only PyTorch can read; short, since messages are.
  static func conversion(of path: String) -> String {
    // The name may be anybody's text, and a shell would run what it has in $( ).
    let given = FileSystem.name(of: path)
    let isHarmless = given.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F && !"\"'`$\\!".utf8.contains($0) }
    let name = isHarmless ? given : "FILE"
    return "convert it where you trust it: python -c \"import torch; from safetensors.torch import save_file; save_file({k: "
      + "v.clone().contiguous() for k, v in torch.load('\(name)', 'cpu', weights_only=True).items()}, "
      + "'model.safetensors')\""
  }

  /// - Parameter index: what the records shall have as their `file`.
  /// - Throws: `.format` for a file that is damaged, or holds anything else than tensors where a state dict should be.
  init(reading file: File, index: Int = 0) throws(Failure) {
    let advice = Self.conversion(of: file.path)
    guard try Self.isOne(file) else {
      let start = try file.bytes(count: min(8, try file.size()), at: 0)
      let what = SafetensorsHeader.otherFormat(start, file.path) ?? "no file of torch.save since version 1.6; \(advice)"
      throw Failure(.format, "\(file.path) is \(what)")
    }
    let archive = try ZipArchive(file)
    let pickles = archive.entries.keys.filter { $0 == "data.pkl" || $0.hasSuffix("/data.pkl") }
    guard pickles.count == 1, let entry = archive.entries[pickles[0]] else {
      let what = pickles.isEmpty ? "no data.pkl" : "several files data.pkl"
      throw Failure(.format, "\(file.path) is a zip archive, but none of torch.save: it has \(what); \(advice)")
    }
    let prefix = String(pickles[0].dropLast("data.pkl".count))
    guard entry.isStored, entry.byteCount <= Self.longestPickle else {
      throw Failure(
        .format, "data.pkl of \(file.path) is compressed, or of \(entry.byteCount) bytes, which is not read; \(advice)")
    }
    if let order = archive.entries[prefix + "byteorder"], order.byteCount == 3 {
      throw Failure(.format, "\(file.path) was written on a big-endian machine, which is not read; \(advice)")
    }
    var machine = Unpickler(try file.bytes(count: entry.byteCount, at: entry.offset), source: "data.pkl of \(file.path)")
    let root = try machine.load()
    let found = try StateDict(machine, root, file.path).tensors
    var records: [TensorRecord] = []
    records.reserveCapacity(found.count)
    for (name, tensor) in found {
      records.append(try Self.record(name, machine.tensors[tensor], archive, prefix, file.path, index))
    }
    tensors = records
  }

  private static func record(
    _ name: String, _ tensor: Unpickler.Tensor, _ archive: ZipArchive, _ prefix: String, _ path: String, _ index: Int
  ) throws(Failure) -> TensorRecord {
    func failure(_ what: String) -> Failure { Failure(.format, "tensor \(quoted(name)) of \(path) \(what)") }
    let type = tensor.dtype ?? tensor.storage.type
    guard let dtype = types[type] else {
      throw failure("is of type \(quoted(type)), which is unknown to this library; \(conversion(of: path))")
    }
    guard let count = product(tensor.shape), let bytes = product([count, dtype.size]),
      let start = product([tensor.offset, dtype.size])
    else { throw failure("has a shape whose size does not fit in 63 bits") }
    guard isContiguous(tensor) else {
      throw failure(
        "is not stored in the order of its elements (strides \(tensor.strides) of \(tensor.shape)); \(conversion(of: path))")
    }
    guard let entry = archive.entries[prefix + "data/" + tensor.storage.key], entry.isStored else {
      throw failure("has no data in the archive, or compressed data: \(quoted(tensor.storage.key)); fetch it again")
    }
    guard start <= entry.byteCount, bytes <= entry.byteCount - start else {
      throw failure("ends after its data, \(quoted(tensor.storage.key)): the file is damaged; fetch it again")
    }
    return TensorRecord(
      name: name, dtype: dtype, shape: tensor.shape, file: index, offset: entry.offset + start, count: count, byteCount: bytes)
  }

  private static func isContiguous(_ tensor: Unpickler.Tensor) -> Bool {
    if tensor.shape.contains(0) { return true }
    var expected = 1
    for (size, stride) in zip(tensor.shape, tensor.strides).reversed() where size != 1 {
      guard stride == expected else { return false }
      expected *= size
    }
    return true
  }

  private static let types: [String: DType] = {
    var types: [String: DType] = [
      "torch uint8": .u8, "torch int8": .i8, "torch int16": .i16, "torch int32": .i32, "torch int64": .i64, "torch bool": .bool,
      "torch uint16": .u16, "torch uint32": .u32, "torch uint64": .u64, "torch complex64": .c64,
      "torch float8_e8m0fnu": .f8e8m0,
    ]
    for dtype in DType.allCases { if let name = dtype.torchName { types["torch " + name] = dtype } }
    let storages: [String: DType] = [
      "Float": .f32, "Double": .f64, "Half": .f16, "BFloat16": .bf16, "Long": .i64, "Int": .i32, "Short": .i16, "Char": .i8,
      "Byte": .u8, "Bool": .bool, "ComplexFloat": .c64,
    ]
    for (name, dtype) in storages {
      types["torch \(name)Storage"] = dtype
      types["torch.cuda \(name)Storage"] = dtype
    }
    return types
  }()
}

extension TorchArchive {
  /// The tensors of a state dict, found in what a pickle holds.
  private struct StateDict {
    private(set) var tensors: [(name: String, tensor: Int)] = []
    private var visited = 0
    private var nameBytes = 0
    private let machine: Unpickler
    private let path: String

    init(_ machine: Unpickler, _ root: Unpickler.Value, _ path: String) throws(Failure) {
      self.machine = machine
      self.path = path
      guard case .dictionary(var index) = root else {
        let what = if case .object(let name) = root { "an object, \(quoted(name))" } else { "no dictionary" }
        throw Failure(.format, "\(path) holds \(what), and no state dict; \(TorchArchive.conversion(of: path))")
      }
      let pairs = Self.pairs(machine.items[index])
      if !pairs.contains(where: { if case .tensor = $0.value { true } else { false } }) {
        let inner = TorchArchive.wrappers.lazy.compactMap { wrapper -> Int? in
          guard case .dictionary(let inner)? = pairs.last(where: { Self.text($0.key) == wrapper })?.value else { return nil }
          return inner
        }.first
        guard let inner else {
          let keys = pairs.prefix(5).map { quoted(Self.text($0.key) ?? "?") }.joined(separator: ", ")
          throw Failure(
            .format,
            "\(path) holds no state dict: neither tensors, nor any of \(TorchArchive.wrappers.joined(separator: ", ")) among its "
              + "keys (\(keys)); \(TorchArchive.conversion(of: path))")
        }
        index = inner
      }
      try collect(index, prefix: "", depth: 0)
    }

    private mutating func collect(_ index: Int, prefix: String, depth: Int) throws(Failure) {
      guard depth <= TorchArchive.deepest else {
        throw Failure(.format, "\(path) has dictionaries nested more than \(TorchArchive.deepest) deep: it is no state dict")
      }
      for (key, value) in Self.pairs(machine.items[index]) {
        try visit(1)
        guard let word = Self.text(key) else {
          throw Failure(
            .format, "\(path) has a key in \(quoted(prefix)) that is neither text nor a number: it is no state dict")
        }
        let name = prefix + word
        nameBytes += name.utf8.count
        guard nameBytes <= TorchArchive.mostNameBytes else {
          throw Failure(.format, "\(path) has names of more than \(TorchArchive.mostNameBytes) bytes: it is no state dict")
        }
        switch value {
        case .tensor(let tensor): tensors.append((name, tensor))
        case .dictionary(let inner): try collect(inner, prefix: name + ".", depth: depth + 1)
        case .object(let type), .global(let type):
          throw Failure(
            .format,
            "\(quoted(name)) of \(path) is an object, \(quoted(type)), and would be lost; \(TorchArchive.conversion(of: path))")
        case .list(let items), .tuple(let items):
          // The same list may be in many places.
          try visit(machine.items[items].count)
          guard machine.items[items].allSatisfy({ if case .int = $0 { true } else if case .text = $0 { true } else { false } })
          else {
            throw Failure(
              .format, "\(quoted(name)) of \(path) is a list, whose tensors would be lost; \(TorchArchive.conversion(of: path))"
            )
          }
        case .storage:
          throw Failure(.format, "\(quoted(name)) of \(path) is a bare storage; \(TorchArchive.conversion(of: path))")
        // Counters, versions and the like.
        case .none, .bool, .int, .double, .text: break
        }
      }
    }

    private mutating func visit(_ count: Int) throws(Failure) {
      visited += count
      guard visited <= TorchArchive.mostEntries else {
        throw Failure(.format, "\(path) has more than \(TorchArchive.mostEntries) entries: it is no state dict")
      }
    }

    private static func pairs(_ items: [Unpickler.Value]) -> [(key: Unpickler.Value, value: Unpickler.Value)] {
      stride(from: 0, to: items.count - 1, by: 2).map { (items[$0], items[$0 + 1]) }
    }

    private static func text(_ value: Unpickler.Value) -> String? {
      switch value {
      case .text(let text): text
      case .int(let number): String(number)
      default: nil
      }
    }
  }
}
