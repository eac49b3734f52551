import Platform
import TensorKernels
import Testing

@testable import Checkpoints

@Suite struct TorchArchiveTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func tensors(_ bytes: [UInt8]) throws(Failure) -> [TensorRecord] {
    let path = folder("x.pt")
    // A file that is written over would be waited for.
    try FileSystem.remove(path)
    try FileSystem.write(bytes, to: path)
    return try TorchArchive(reading: File(path: path, mode: .read), index: 3).tensors
  }

  /// A file whose storage "0" has the bytes 0 to 23.
  private func file(_ value: [UInt8]) -> [UInt8] {
    Zip.torch(Pickle.whole(value), storages: ["0": Array(0..<24)]).bytes
  }

  private func file(_ members: (key: String, value: [UInt8])...) -> [UInt8] { file(Pickle.dictionary(members)) }

  private func expectRefused(
    _ bytes: [UInt8], _ words: String..., converts: Bool = true, at location: SourceLocation = #_sourceLocation
  ) {
    do throws(Failure) {
      _ = try tensors(bytes)
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == .format, "\(error.message)", sourceLocation: location)
      #expect(error.message.contains("python -c") == converts, "\(error.message)", sourceLocation: location)
      #expect(error.message.utf8.count < 1500, "\(error.message)", sourceLocation: location)
      for word in words + [folder("x.pt")] {
        #expect(error.message.contains(word), "\(error.message)", sourceLocation: location)
      }
    }
  }

  private func names(_ bytes: [UInt8]) throws -> [String] { try tensors(bytes).map(\.name) }

  // MARK: - Tensors

  @Test func placesAndShapes() throws {
    let bytes = file(
      ("b", Pickle.tensor([2, 3])), ("a", Pickle.tensor([2], offset: 4)), ("scalar", Pickle.tensor([])),
      ("none", Pickle.tensor([0, 9], strides: [5, 5])), ("column", Pickle.tensor([2, 1], offset: 1, strides: [1, 77])))
    let found = try tensors(bytes)
    #expect(found.map(\.name) == ["b", "a", "scalar", "none", "column"])
    #expect(found.map(\.shape) == [[2, 3], [2], [], [0, 9], [2, 1]])
    #expect(found.map(\.count) == [6, 2, 1, 0, 2])
    #expect(found.map(\.byteCount) == [24, 8, 4, 0, 8])
    #expect(found.allSatisfy { $0.file == 3 && $0.dtype == .f32 })
    // The bytes were counted up from 0, so the first of each says where it lies; floats have four.
    #expect(found.filter { $0.count > 0 }.map { bytes[$0.offset] } == [0, 16, 0, 4])
  }

  @Test(arguments: [
    ("FloatStorage", DType.f32), ("DoubleStorage", .f64), ("HalfStorage", .f16), ("BFloat16Storage", .bf16),
    ("LongStorage", .i64), ("IntStorage", .i32), ("ShortStorage", .i16), ("CharStorage", .i8), ("ByteStorage", .u8),
    ("BoolStorage", .bool), ("ComplexFloatStorage", .c64),
  ])
  func typesOfStorages(_ name: String, _ type: DType) throws {
    for module in ["torch", "torch.cuda"] {
      let storage = Pickle.storage(name, module: module)
      let found = try tensors(file(("w", Pickle.tensor([2], in: storage, offset: 1))))
      #expect(found.map(\.dtype) == [type])
      #expect(found.map(\.byteCount) == [2 * type.size])
    }
  }

  @Test(arguments: [
    ("float32", DType.f32), ("float64", .f64), ("float16", .f16), ("bfloat16", .bf16), ("float8_e4m3fn", .f8e4m3fn),
    ("float8_e5m2", .f8e5m2), ("float8_e8m0fnu", .f8e8m0), ("uint8", .u8), ("int8", .i8), ("uint16", .u16), ("int16", .i16),
    ("uint32", .u32), ("int32", .i32), ("uint64", .u64), ("int64", .i64), ("bool", .bool), ("complex64", .c64),
  ])
  func typesBesideUntypedStorages(_ name: String, _ type: DType) throws {
    let storage = Pickle.storage("UntypedStorage", count: 24, module: "torch.storage")
    #expect(try tensors(file(("w", Pickle.tensor([3], in: storage, dtype: name)))).map(\.dtype) == [type])
  }

  @Test func whichTensorsAreRefused() {
    func refused(
      _ tensor: [UInt8], _ words: String..., converts: Bool, at location: SourceLocation = #_sourceLocation
    ) {
      do throws(Failure) {
        _ = try tensors(file(("the.name", tensor)))
        Issue.record("accepted", sourceLocation: location)
      } catch {
        #expect(error.status == .format, "\(error.message)", sourceLocation: location)
        #expect(error.message.contains("python -c") == converts, "\(error.message)", sourceLocation: location)
        for word in words + ["\"the.name\"", folder("x.pt")] {
          #expect(error.message.contains(word), "\(error.message)", sourceLocation: location)
        }
      }
    }
    refused(Pickle.tensor([3, 2], strides: [1, 3]), "order of its elements", "[1, 3]", "[3, 2]", converts: true)
    refused(Pickle.tensor([2, 3], strides: [0, 1]), "order of its elements", converts: true)
    // Columns of a wider matrix, every other element.
    refused(Pickle.tensor([2, 2], strides: [3, 1]), "order of its elements", converts: true)
    refused(Pickle.tensor([3], strides: [2]), "order of its elements", converts: true)
    refused(Pickle.tensor([1], in: Pickle.storage("QInt8Storage")), "\"torch QInt8Storage\"", "unknown", converts: true)
    refused(Pickle.tensor([1], dtype: "float8_e4m3fnuz"), "\"torch float8_e4m3fnuz\"", "unknown", converts: true)
    refused(Pickle.tensor([1], in: Pickle.storage(key: "9")), "\"9\"", "fetch it again", converts: false)
    refused(Pickle.tensor([7]), "ends after its data", "fetch it again", converts: false)
    refused(Pickle.tensor([1], offset: 6), "ends after its data", converts: false)
    refused(Pickle.tensor([0], offset: 7), "ends after its data", converts: false)
    for numbers in [[1 << 40, 1 << 40], [Int.max, 2], [Int.max], [1 << 62, 4, 0]] {
      refused(Pickle.tensor(numbers), "63 bits", converts: false)
    }
    refused(Pickle.tensor([1], offset: .max), "63 bits", converts: false)
    refused(Pickle.tensor([1], offset: Int.max / 4), "ends after its data", converts: false)
    refused(Pickle.tensor([Int.max / 4]), "ends after its data", converts: false)
  }

  @Test func compressedData() {
    var zip = Zip.torch(Pickle.whole(Pickle.dictionary(("w", Pickle.tensor([1])))), storages: ["0": [0, 0, 0, 0]])
    zip.entries[2].method = 8
    expectRefused(zip.bytes, "\"w\"", "compressed", converts: false)
    zip.entries[0].method = 8
    expectRefused(zip.bytes, "data.pkl", "compressed")
  }

  // MARK: - State dicts

  @Test(arguments: ["state_dict", "model_state_dict", "model", "module"])
  func wrappers(_ name: String) throws {
    let inner = Pickle.dictionary(("w", Pickle.tensor([1])))
    let other = Pickle.call("somewhere", "Callback", Pickle.int(1))
    #expect(try names(file(("epoch", Pickle.int(3)), ("callbacks", other), (name, inner))) == ["w"])
    // Beside tensors it is part of the names.
    #expect(try names(file(("v", Pickle.tensor([1])), (name, inner))) == ["v", name + ".w"])
  }

  @Test func whichWrapperCounts() throws {
    func inner(_ name: String) -> [UInt8] { Pickle.dictionary((name, Pickle.tensor([1]))) }
    #expect(try names(file(("module", inner("a")), ("model", inner("b")), ("state_dict", inner("c")))) == ["c"])
    #expect(try names(file(("model", Pickle.int(1)), ("module", inner("a")))) == ["a"])
    // Python keeps the last of equal keys.
    #expect(try names(file(("model", inner("a")), ("model", inner("b")))) == ["b"])
    #expect(try names(file(("state_dict", Pickle.dictionary()))).isEmpty)
  }

  @Test func namesAreJoined() throws {
    let layers = Pickle.dictionary([]) + Pickle.int(0) + Pickle.dictionary(("w", Pickle.tensor([1]))) + Array("s".utf8)
    let found = try names(file(("x", Pickle.tensor([1])), ("layers", layers), ("", Pickle.tensor([1]))))
    #expect(found == ["x", "layers.0.w", ""])
  }

  @Test func countersAreLeftAlone() throws {
    let plain: [(key: String, value: [UInt8])] = [
      ("none", Array("N".utf8)), ("bool", [0x88]), ("int", Pickle.int(-1)), ("float", Array("G12345678".utf8)),
      ("text", Pickle.text("t")), ("tuple", Pickle.tuple(numbers: [1, 2])),
      ("list", Pickle.list(Pickle.text("t"), Pickle.int(1))),
      ("empty", Pickle.list()),
    ]
    #expect(try names(file(Pickle.dictionary(plain + [("w", Pickle.tensor([1]))]))) == ["w"])
  }

  @Test func whatWouldBeLost() {
    let tensor = Pickle.tensor([1])
    let lost: [([UInt8], String)] = [
      (Pickle.call("a", "B"), "\"a B\""), (Pickle.global("torch", "float32"), "\"torch float32\""),
      (Pickle.list(tensor), "list"), (Pickle.tuple(Pickle.int(1), tensor), "list"),
      (Pickle.storage(), "storage"), (Array("U\u{1}a".utf8), "\"bytes\""),
      (Pickle.dictionary(("in", Pickle.call("a", "B"))), "x.in"),
    ]
    for (value, word) in lost { expectRefused(file(("w", tensor), ("x", value)), "\"x", word) }
  }

  @Test func whatIsNoStateDict() {
    for (value, words) in [
      (Pickle.int(1), "no dictionary"), (Pickle.tensor([1]), "no dictionary"),
      (Pickle.list(Pickle.tensor([1])), "no dictionary"),
      (Pickle.call("my_code", "Model"), "\"my_code Model\""), (Pickle.dictionary(), "model_state_dict"),
      (Pickle.dictionary(("epoch", Pickle.int(1)), ("loss", Pickle.int(2))), "\"epoch\", \"loss\""),
      (Pickle.dictionary(("state_dict", Pickle.tuple(numbers: [1]))), "\"state_dict\""),
    ] { expectRefused(file(value), words, "no state dict") }
    let oddKey = Pickle.dictionary(("w", Pickle.tensor([1]))) + Array("NNs".utf8)
    expectRefused(file(oddKey), "key", "no state dict", converts: false)
  }

  @Test func depthAndLoops() throws {
    func nested(_ depth: Int) -> [UInt8] {
      (0..<depth).reduce(Pickle.tensor([1])) { value, _ in Pickle.dictionary(("a", value)) }
    }
    func beside(_ value: [UInt8]) -> [UInt8] { file(("w", Pickle.tensor([1])), ("a", value)) }
    #expect(try names(beside(nested(16))).map(\.utf8.count) == [1, 33])
    expectRefused(beside(nested(17)), "nested", "16", converts: false)
    expectRefused(beside(nested(1000)), "nested", converts: false)
    expectRefused(beside(Array("}q\u{1}".utf8) + Pickle.text("me") + Array("h\u{1}s".utf8)), "nested", converts: false)
  }

  // MARK: - What little input must not make much of

  @Test(.enabled(if: isOptimised)) func dictionariesInManyPlaces() {
    // Each of 15 dictionaries has the one before it under four names: a thousand million entries.
    var value = Pickle.dictionary(("w", Pickle.int(1)))
    for level in 0..<15 {
      let again = Array("h".utf8) + [UInt8(level)]
      value += Array("q".utf8) + [UInt8(level)] + Array("0".utf8)
      value += Pickle.dictionary(("a", again), ("b", again), ("c", again), ("d", again))
    }
    expectRefused(file(("w", Pickle.tensor([1])), ("x", value)), "entries", converts: false)
  }

  @Test func oneListInManyPlaces() {
    let list = Pickle.list(Array(repeating: Array("K\u{1}".utf8), count: 2000).flatMap { $0 }) + Array("q\u{1}".utf8)
    let again = (0..<1001).map { (key: "\($0)", value: Array("h\u{1}".utf8)) }
    expectRefused(
      file(Pickle.dictionary([("w", Pickle.tensor([1])), ("x", list)] + again)), "entries", converts: false)
  }

  @Test func oneLongKeyOfManyTensors() {
    let inner = Pickle.dictionary((0..<300).map { ("\($0)", Pickle.int($0)) })
    let value = Pickle.dictionary(("w", Pickle.tensor([1])), (String(repeating: "k", count: 1 << 20), inner))
    expectRefused(file(value), "names", converts: false)
  }

  // MARK: - Archives

  @Test func otherFiles() {
    expectRefused([], "torch.save")
    expectRefused(Array("abc".utf8), "torch.save")
    expectRefused(Array("GGUF\u{3}\u{0}\u{0}\u{0}".utf8), "GGUF", converts: false)
    expectRefused(Array("version https://git-lfs.github.com/spec/v1".utf8), "git lfs pull", converts: false)
    expectRefused([0x80, 2, 0x8A, 10] + [UInt8](repeating: 7, count: 20), "1.6")
    expectRefused([0x50, 0x4B, 3, 4], "zip", "fetch it again", converts: false)
    expectRefused(Zip([Zip.Entry("readme", [])]).bytes, "none of torch.save", "no data.pkl")
    expectRefused(Zip([Zip.Entry("a/data.pkl", []), Zip.Entry("b/data.pkl", [])]).bytes, "none of torch.save", "several")
    let sound = Pickle.whole(Pickle.dictionary(("w", Pickle.tensor([1]))))
    expectRefused(Zip.torch(sound, storages: ["0": [0, 0, 0, 0]], byteorder: "big").bytes, "big-endian")
    expectRefused(Zip.torch([UInt8(ascii: "(")]).bytes, "data.pkl", "fetch it again", converts: false)
  }

  @Test func anyPrefix() throws {
    let pickle = Pickle.whole(Pickle.dictionary(("w", Pickle.tensor([1]))))
    for prefix in ["", "archive/", "a model/epoch=3/"] {
      for order in ["little", nil] {
        #expect(try names(Zip.torch(pickle, storages: ["0": [0, 0, 0, 0]], prefix: prefix, byteorder: order).bytes) == ["w"])
      }
    }
  }

  /// A file's name is somebody else's text, and the command is there to be pasted into a shell.
  @Test(arguments: ["$(rm x).pt", "`x`.pt", "a\"b.pt", "it's.pt", "a\\b.pt", "a\nb.pt", "!x.pt"])
  func theCommandNamesNoDangerousFile(_ name: String) {
    let command = TorchArchive.conversion(of: "/folder/" + name)
    #expect(!command.contains(name))
    #expect(command.contains("torch.load('FILE'"))
    #expect(TorchArchive.conversion(of: "/folder/a-b_c 1.pt").contains("torch.load('a-b_c 1.pt'"))
  }

  // MARK: - Damage

  private var sound: [UInt8] {
    file(
      ("state_dict", Pickle.dictionary(("a", Pickle.tensor([2, 3])), ("b", Pickle.tensor([2], dtype: "float8_e4m3fn")))),
      ("epoch", Pickle.int(3)))
  }

  private func survives(_ bytes: [UInt8]) -> Bool {
    do throws(Failure) {
      for record in try tensors(bytes) {
        #expect(record.offset >= 0 && record.byteCount >= 0 && record.offset + record.byteCount <= bytes.count)
        #expect(record.byteCount == record.count * record.dtype.size && record.count == record.shape.reduce(1, *))
      }
      return true
    } catch {
      #expect(error.status == .format && error.message.contains(folder("x.pt")))
      return false
    }
  }

  @Test func cutAtEveryByte() throws {
    let sound = sound
    #expect(try names(sound) == ["a", "b"])
    for count in 0..<sound.count {
      if survives(Array(sound[..<count])) { Issue.record("\(count) bytes of \(sound.count) were accepted") }
    }
  }

  @Test func everyByteChanged() {
    let sound = sound
    var refused = 0
    for place in sound.indices {
      for value in [sound[place] ^ 0xFF, sound[place] ^ 1] {
        var bytes = sound
        bytes[place] = value
        if !survives(bytes) { refused += 1 }
      }
    }
    #expect(refused > sound.count / 2)
  }

  @Test func randomDamage() {
    let sound = sound
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<700 { _ = survives(damaged(sound, using: &generator)) }
  }
}
