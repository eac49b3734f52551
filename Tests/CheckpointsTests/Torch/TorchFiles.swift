/// Pickles written opcode by opcode, so that they may also say what Python's pickler never would.
enum Pickle {
  /// A number in so many bytes, little-endian.
  static func number(_ value: UInt64, bytes count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
  }

  static func text(_ text: String) -> [UInt8] { Array("X".utf8) + number(UInt64(text.utf8.count), bytes: 4) + text.utf8 }

  static func int(_ value: Int) -> [UInt8] { [0x8A, 8] + number(UInt64(bitPattern: Int64(value)), bytes: 8) }

  static func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }

  static func tuple(_ items: [UInt8]...) -> [UInt8] { tuple(items) }

  static func tuple(_ items: [[UInt8]]) -> [UInt8] { Array("(".utf8) + items.joined() + Array("t".utf8) }

  static func tuple(numbers: [Int]) -> [UInt8] { tuple(numbers.map(int)) }

  static func list(_ items: [UInt8]...) -> [UInt8] { Array("](".utf8) + items.joined() + Array("e".utf8) }

  static func dictionary(_ members: [(key: String, value: [UInt8])]) -> [UInt8] {
    Array("}(".utf8) + members.flatMap { text($0.key) + $0.value } + Array("u".utf8)
  }

  static func dictionary(_ members: (key: String, value: [UInt8])...) -> [UInt8] { dictionary(members) }

  static func call(_ module: String, _ name: String, _ arguments: [UInt8]...) -> [UInt8] {
    global(module, name) + tuple(arguments) + Array("R".utf8)
  }

  static func storage(_ type: String = "FloatStorage", key: String = "0", count: Int = 6, module: String = "torch") -> [UInt8] {
    tuple(text("storage"), global(module, type), text(key), text("cpu"), int(count)) + Array("Q".utf8)
  }

  /// A tensor as torch.save writes it; with a type, as it does where the storage has none.
  static func tensor(
    _ shape: [Int], in storage: [UInt8] = storage(), offset: Int = 0, strides: [Int]? = nil, dtype: String? = nil
  ) -> [UInt8] {
    let rows = strides ?? shape.indices.map { shape[($0 + 1)...].reduce(1, &*) }
    let hooks = call("collections", "OrderedDict")
    guard let dtype else {
      return call(
        "torch._utils", "_rebuild_tensor_v2", storage, int(offset), tuple(numbers: shape), tuple(numbers: rows), [0x89], hooks)
    }
    return call(
      "torch._utils", "_rebuild_tensor_v3", storage, int(offset), tuple(numbers: shape), tuple(numbers: rows), [0x89], hooks,
      global("torch", dtype))
  }

  static func whole(_ value: [UInt8], protocol version: UInt8 = 2) -> [UInt8] { [0x80, version] + value + Array(".".utf8) }
}

/// A zip archive, each of whose fields can be made to lie.
struct Zip {
  struct Entry {
    var name: [UInt8]
    var data: [UInt8]
    var method: UInt64 = 0
    var flags: UInt64 = 0
    /// Sizes and place in 64 bits.
    var isWide = false
    /// Extra field of the local header; PyTorch fills one up so that the data is aligned.
    var padding: [UInt8] = []
    /// Instead of the true ones.
    var byteCount: UInt64?
    var packedCount: UInt64?
    var place: UInt64?

    init(_ name: String, _ data: [UInt8]) { (self.name, self.data) = (Array(name.utf8), data) }
  }

  var entries: [Entry]
  var comment: [UInt8] = []
  /// The end of the directory in 64 bits, too.
  var isWide = false
  var disk: UInt64 = 0
  /// Instead of the true ones.
  var count: UInt64?
  var directorySize: UInt64?
  var directoryPlace: UInt64?
  var widePlace: UInt64?

  init(_ entries: [Entry]) { self.entries = entries }

  var bytes: [UInt8] {
    func number(_ value: some BinaryInteger, _ count: Int) -> [UInt8] {
      Pickle.number(UInt64(truncatingIfNeeded: value), bytes: count)
    }
    var file: [UInt8] = []
    var directory: [UInt8] = []
    for entry in entries {
      let place = entry.place ?? UInt64(file.count)
      let (size, packed) = (entry.byteCount ?? UInt64(entry.data.count), entry.packedCount ?? UInt64(entry.data.count))
      let shared = number(entry.flags, 2) + number(entry.method, 2) + number(0, 8)
      file += [0x50, 0x4B, 3, 4] + number(20, 2) + shared + number(packed, 4) + number(size, 4)
      file += number(entry.name.count, 2) + number(entry.padding.count, 2) + entry.name + entry.padding + entry.data
      // An unknown field first, which has to be passed over.
      let extra = entry.isWide ? number(0x7777, 2) + number(3, 2) + [1, 2, 3] + number(1, 2) + number(24, 2) : []
      let wide = entry.isWide ? number(size, 8) + number(packed, 8) + number(place, 8) : []
      directory += [0x50, 0x4B, 1, 2] + number(20, 2) + number(20, 2) + shared
      directory += (entry.isWide ? number(UInt64.max, 8) : number(packed, 4) + number(size, 4))
      directory += number(entry.name.count, 2) + number(extra.count + wide.count, 2) + number(0, 10)
      directory += entry.isWide ? number(UInt64.max, 4) : number(place, 4)
      directory += entry.name + extra + wide
    }
    let place = UInt64(file.count)
    let (count, size, start) = (
      count ?? UInt64(entries.count), directorySize ?? UInt64(directory.count), directoryPlace ?? place
    )
    file += directory
    if isWide {
      let record = UInt64(file.count)
      file += [0x50, 0x4B, 6, 6] + number(44, 8) + number(45, 2) + number(45, 2) + number(0, 8)
      file += number(count, 8) + number(count, 8) + number(size, 8) + number(start, 8)
      file += [0x50, 0x4B, 6, 7] + number(0, 4) + number(widePlace ?? record, 8) + number(1, 4)
    }
    file += [0x50, 0x4B, 5, 6] + number(disk, 2) + number(disk, 2)
    if isWide {
      file += number(UInt64.max, 8) + number(UInt64.max, 4)
    } else {
      file += number(count, 2) + number(count, 2) + number(size, 4) + number(start, 4)
    }
    return file + number(comment.count, 2) + comment
  }

  /// A file of torch.save.
  static func torch(
    _ pickle: [UInt8], storages: [String: [UInt8]] = [:], prefix: String = "archive/", byteorder: String? = "little"
  ) -> Zip {
    var entries = [Entry(prefix + "data.pkl", pickle)]
    if let byteorder { entries.append(Entry(prefix + "byteorder", Array(byteorder.utf8))) }
    for (key, data) in storages.sorted(by: { $0.key < $1.key }) { entries.append(Entry(prefix + "data/" + key, data)) }
    entries.append(Entry(prefix + "version", Array("3\n".utf8)))
    return Zip(entries)
  }
}

/// The same numbers for the same seed: SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

/// Changed bytes, some taken out, some repeated.
func damaged(_ sound: [UInt8], using generator: inout SeededGenerator) -> [UInt8] {
  var bytes = sound
  for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
    let place = Int.random(in: bytes.indices, using: &generator)
    let end = min(bytes.count, place + Int.random(in: 1...8, using: &generator))
    switch Int.random(in: 0..<5, using: &generator) {
    case 0: bytes.removeSubrange(place..<end)
    case 1: bytes.insert(contentsOf: bytes[place..<end], at: place)
    default: bytes[place] = UInt8.random(in: 0...255, using: &generator)
    }
  }
  return bytes
}
