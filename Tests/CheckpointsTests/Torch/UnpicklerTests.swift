import Platform
import Testing

@testable import Checkpoints

@Suite struct UnpicklerTests {
  private typealias Loaded = (machine: Unpickler, value: Unpickler.Value)

  private func load(_ pickle: [UInt8]) throws(Failure) -> Loaded {
    var machine = Unpickler(pickle, source: "here")
    let value = try machine.load()
    return (machine, value)
  }

  /// A value as Python would print it; what is not a plain value is in angle brackets.
  private func shown(_ value: Unpickler.Value, _ machine: Unpickler) -> String {
    func all(_ index: Int) -> [String] { machine.items[index].map { shown($0, machine) } }
    switch value {
    case .none: return "None"
    case .bool(let value): return value ? "True" : "False"
    case .int(let value): return String(value)
    case .double: return "<float>"
    case .text(let text): return "'\(text)'"
    case .tuple(let index): return "(\(all(index).joined(separator: ", ")))"
    case .list(let index): return "[\(all(index).joined(separator: ", "))]"
    case .dictionary(let index):
      let words = all(index)
      let pairs = stride(from: 0, to: words.count, by: 2).map { words[$0] + ": " + words[$0 + 1] }
      return "{\(pairs.joined(separator: ", "))}"
    case .global(let name): return "<global \(name)>"
    case .storage: return "<storage>"
    case .tensor(let index): return "<tensor \(machine.tensors[index].shape)>"
    case .object(let name): return "<object \(name)>"
    }
  }

  private func shown(_ pickle: [UInt8]) throws -> String {
    let (machine, value) = try load(pickle)
    return shown(value, machine)
  }

  private func expectDamaged(_ pickle: [UInt8], at location: SourceLocation = #_sourceLocation) {
    expectFailure(.format, "here", "fetch it again", at: location) { () throws(Failure) in _ = try load(pickle) }
  }

  // MARK: - Plain values

  @Test(arguments: [
    ("N", "None"), ("\u{88}", "True"), ("\u{89}", "False"), ("K\u{FF}", "255"), ("M\u{01}\u{02}", "513"),
    ("J\u{FE}\u{FF}\u{FF}\u{FF}", "-2"), ("J\u{00}\u{00}\u{00}\u{80}", "-2147483648"), ("\u{8A}\u{00}", "0"),
    ("\u{8A}\u{01}\u{FF}", "-1"), ("\u{8A}\u{02}\u{FF}\u{00}", "255"), ("\u{8A}\u{09}123456789", "<object int>"),
    ("G12345678", "<float>"), ("X\u{03}\u{00}\u{00}\u{00}a\nb", "'a\nb'"), ("\u{8C}\u{02}\u{C3}\u{A9}", "'é'"),
    ("\u{8D}\u{01}\u{00}\u{00}\u{00}\u{00}\u{00}\u{00}\u{00}z", "'z'"), ("U\u{02}ab", "<object bytes>"),
    ("C\u{01}a", "<object bytes>"), ("T\u{01}\u{00}\u{00}\u{00}a", "<object bytes>"),
    ("B\u{00}\u{00}\u{00}\u{00}", "<object bytes>"), ("cargparse\nNamespace\n", "<global argparse Namespace>"),
    ("\u{8C}\u{01}m\u{8C}\u{01}f\u{93}", "<global m f>"),
    // Containers: empty ones, tuples of one to three and of a mark's, and what is added to the others.
    (")", "()"), ("]", "[]"), ("}", "{}"), ("\u{8F}", "[]"), ("K\u{01}\u{85}", "(1)"), ("K\u{01}K\u{02}\u{86}", "(1, 2)"),
    ("K\u{01}K\u{02}K\u{03}\u{87}", "(1, 2, 3)"), ("(K\u{01}(K\u{02}ttK\u{03}0", "(1, (2))"), ("]K\u{01}aNa", "[1, None]"),
    ("](K\u{01}K\u{02}eNa", "[1, 2, None]"), ("\u{8F}(K\u{01}K\u{02}\u{90}", "[1, 2]"),
    ("}K\u{01}K\u{02}s(NK\u{03}\u{88}]u", "{1: 2, None: 3, True: []}"),
    // The stack and the memo.
    ("K\u{01}2\u{86}", "(1, 1)"), ("K\u{01}(NN1", "1"), ("K\u{07}q\u{05}h\u{05}\u{86}", "(7, 7)"),
    ("K\u{07}r\u{00}\u{01}\u{00}\u{00}j\u{00}\u{01}\u{00}\u{00}\u{86}", "(7, 7)"),
    ("K\u{01}\u{94}K\u{02}\u{94}h\u{00}h\u{01}\u{86}\u{87}", "(1, 2, (1, 2))"),
    ("\u{95}\u{05}\u{00}\u{00}\u{00}\u{00}\u{00}\u{00}\u{00}K\u{01}", "1"),
  ])
  func plainValues(_ opcodes: String, _ expected: String) throws {
    // Each scalar of the literal is one byte.
    #expect(try shown(Pickle.whole(opcodes.unicodeScalars.map { UInt8($0.value) })) == expected)
  }

  @Test func integersOfEveryLength() throws {
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<500 {
      let value = Int.random(in: .min ... .max, using: &generator) >> Int.random(in: 0..<64, using: &generator)
      // The fewest bytes whose sign extension is the value.
      let length = (1...8).first { value >> ($0 * 8 - 1) == 0 || value >> ($0 * 8 - 1) == -1 }!
      let digits = Pickle.number(UInt64(bitPattern: Int64(value)), bytes: length)
      #expect(try shown(Pickle.whole([0x8A, UInt8(length)] + digits)) == String(value))
    }
  }

  @Test func objectsAreSharedAndNotCopied() throws {
    // The list is remembered, recalled, and changed at one of its two places.
    let pickle = Pickle.whole(Array("]q\u{0}h\u{0}K\u{1}a".utf8) + [0x86])
    #expect(try shown(pickle) == "([1], [1])")
  }

  // MARK: - What torch.save writes

  @Test func tensors() throws {
    let storage = Pickle.storage("HalfStorage", key: "17", count: 99)
    let (machine, value) = try load(
      Pickle.whole(
        Pickle.list(
          Pickle.tensor([2, 3], in: storage, offset: 5), Pickle.tensor([], in: storage, dtype: "float8_e5m2"),
          Pickle.call(
            "torch._utils", "_rebuild_tensor", storage, Pickle.int(1), Pickle.tuple(numbers: [4]), Pickle.tuple(numbers: [7])),
          Pickle.call("torch._utils", "_rebuild_parameter", Pickle.tensor([8], in: storage), [0x88], Pickle.dictionary()))))
    #expect(shown(value, machine) == "[<tensor [2, 3]>, <tensor []>, <tensor [4]>, <tensor [8]>]")
    #expect(machine.tensors.map(\.offset) == [5, 0, 1, 0])
    #expect(machine.tensors.map(\.strides) == [[3, 1], [], [7], [1]])
    #expect(machine.tensors.map(\.dtype) == [nil, "torch float8_e5m2", nil, nil])
    #expect(machine.tensors.allSatisfy { $0.storage.type == "torch HalfStorage" })
    #expect(machine.tensors.allSatisfy { $0.storage.key == "17" && $0.storage.count == 99 })
  }

  @Test func aShapeMayBeASize() throws {
    let size = Pickle.call("torch", "Size", Pickle.list(Pickle.int(2), Pickle.int(2)))
    let pickle = Pickle.call(
      "torch._utils", "_rebuild_tensor_v2", Pickle.storage(), Pickle.int(0), size, Pickle.tuple(numbers: [2, 1]))
    #expect(try shown(Pickle.whole(pickle)) == "<tensor [2, 2]>")
  }

  /// Nothing is called, whatever the function, and what is done to its result is forgotten.
  @Test func unknownFunctionsStayNames() throws {
    let attack = Pickle.call("os", "system", Pickle.text("touch pwned"))
    #expect(try shown(Pickle.whole(attack)) == "<object os system>")
    #expect(try shown(Pickle.whole(attack + Pickle.dictionary() + Array("b".utf8))) == "<object os system>")
    #expect(try shown(Pickle.whole(attack + Array("NNsNa(NNu(Ne".utf8))) == "<object os system>")
    #expect(try shown(Pickle.whole(attack + Array(")R".utf8))) == "<object os system>")
    #expect(try shown(Pickle.whole(Pickle.global("a", "B") + Array(")".utf8) + [0x81])) == "<object a B>")
    let filled = Pickle.call("collections", "OrderedDict", Pickle.list(Pickle.tuple(numbers: [1, 2])))
    #expect(try shown(Pickle.whole(filled)) == "<object collections OrderedDict>")
    let ordered = Pickle.call("collections", "OrderedDict") + Array("K\u{1}Ns}b".utf8)
    #expect(try shown(Pickle.whole(ordered)) == "{1: None}")
  }

  // MARK: - What is refused

  @Test(arguments: [
    "", "(", "(N", "NN", ".", "0", "1", "2", "(0", "(2", "N(0", "N(2", "(Nq\u{0}", "q\u{0}", "h\u{0}", "Nq\u{1}h\u{0}",
    "Na", "NNa", "](Ns", "]NNs", "}Na", "}(Nu", "}(Ne", "](Nu", "\u{7F}", "t", "e", "u", "R", ")R", "K\u{1})R", "NR",
    "ca\nb\nR", "ca\nb\n]R", "ca\nb", "ca", "Q", ")Q", "NQ", "b", "Nb", "I1\n", "(d", "S'a'\n", "F1.5\n", "L1L\n", "(i",
    "X\u{1}\u{0}\u{0}\u{0}", "U\u{1}", "G1234567", "J123", "M1", "K",
  ])
  func opcodesThatDoNotFit(_ opcodes: String) {
    for bytes in [Array(opcodes.utf8), Pickle.whole(Array(opcodes.utf8))] { expectDamaged(bytes) }
  }

  @Test func lengthsBeyondTheEnd() {
    let lengths: [UInt64] = [3, 127, 128, 255, 1 << 31 - 1, 1 << 31, 1 << 32 - 1, 1 << 62, 1 << 63 - 1, 1 << 63, .max]
    for length in lengths {
      for (opcodes, count) in [("XTB", 4), ("UC\u{8C}\u{8A}", 1), ("\u{8D}", 8)]
      where length.leadingZeroBitCount >= 64 - 8 * count {
        for opcode in opcodes.unicodeScalars {
          expectDamaged([UInt8(opcode.value)] + Pickle.number(length, bytes: count) + Array("N.".utf8))
        }
      }
    }
  }

  @Test func whatIsNoStorageAndNoTensor() {
    let (text, int, type) = (Pickle.text("storage"), Pickle.int(1), Pickle.global("torch", "FloatStorage"))
    for id in [
      Pickle.tuple(), Pickle.tuple(text, type, text, text), Pickle.tuple(text, text, text, text, int),
      Pickle.tuple(Pickle.text("other"), type, text, text, int), Pickle.tuple(text, type, int, text, int),
      Pickle.tuple(text, type, text, text, text), Pickle.tuple(text, type, text, text, Pickle.int(-1)),
      Pickle.list(text, type, text, text, int),
    ] { expectDamaged(Pickle.whole(id + Array("Q".utf8))) }

    let (storage, shape) = (Pickle.storage(), Pickle.tuple(numbers: [2]))
    let arguments: [[[UInt8]]] = [
      [], [storage], [storage, int, shape], [int, int, shape, shape], [storage, text, shape, shape],
      [storage, Pickle.int(-1), shape, shape], [storage, Pickle.int(.min), shape, shape], [storage, int, int, shape],
      [storage, int, shape, Pickle.tuple(numbers: [2, 1])], [storage, int, Pickle.tuple(numbers: [-2]), shape],
      [storage, int, Pickle.tuple(text), shape], [storage, int, shape, Pickle.tuple(numbers: [Int.min])],
    ]
    for name in ["_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"] {
      for given in arguments {
        expectDamaged(Pickle.whole(Pickle.global("torch._utils", name) + Pickle.tuple(given) + Array("R".utf8)))
      }
    }
    // The third kind of tensor has its type last.
    expectDamaged(Pickle.whole(Pickle.call("torch._utils", "_rebuild_tensor_v3", storage, int, shape, shape, int, int)))
    expectDamaged(Pickle.whole(Pickle.call("torch._utils", "_rebuild_parameter")))
    expectDamaged(Pickle.whole(Pickle.call("torch", "Size")))
    expectDamaged(Pickle.whole(Pickle.call("torch", "Size", int, int)))
  }

  // MARK: - Hostile pickles

  /// All that is read, in one pickle.
  private var sound: [UInt8] {
    let plain = Array(
      "(NK\u{7F}M\u{1}\u{2}J\u{1}\u{2}\u{3}\u{4}G12345678U\u{2}abT\u{1}\u{0}\u{0}\u{0}aC\u{1}aB\u{0}\u{0}\u{0}\u{0}t".utf8)
    let names =
      [0x8D] + Pickle.number(1, bytes: 8) + Array("za".utf8) + [0x8C, 1] + Array("m".utf8) + [0x94, 0x8C, 1] + Array("f".utf8)
      + [0x94, 0x93]
    let more = [0x88, 0x89, 0x86] + Array("q\u{9}0h\u{9}r\u{9}\u{9}\u{0}\u{0}0j\u{9}\u{9}\u{0}\u{0}".utf8)
    let state = Array("]Na(NNe2(NN1]".utf8) + [0x85, 0x87] + Array("0".utf8)
    return Pickle.whole(
      Array("]".utf8) + plain + Array("a".utf8) + names + Array("a".utf8) + more + Array("a".utf8)
        + state + Pickle.dictionary(("a", Pickle.tensor([2, 3])), ("b", Pickle.tensor([2], dtype: "float8_e4m3fn")))
        + Array("a}NNsa".utf8) + Pickle.global("a", "B") + Array(")".utf8) + [0x81] + Array("a".utf8)
        + Pickle.call("a", "B", Pickle.text("c")) + Array("}ba".utf8)
        + [0x95] + Pickle.number(7, bytes: 8) + [0x8F] + Array("(NN".utf8) + [0x90] + Array("a)a".utf8))
  }

  @Test func cutAtEveryByte() throws {
    _ = try load(sound)
    for count in 0..<sound.count { expectDamaged(Array(sound[..<count])) }
  }

  /// Each is read or refused by name; and what is read refers to nothing that is not there.
  private func survives(_ pickle: [UInt8]) -> Bool {
    do throws(Failure) {
      let (machine, value) = try load(pickle)
      for value in [value] + machine.items.joined() {
        switch value {
        case .tuple(let index), .list(let index), .dictionary(let index): #expect(machine.items.indices.contains(index))
        case .tensor(let index): #expect(machine.tensors.indices.contains(index))
        default: break
        }
      }
      #expect(machine.tensors.allSatisfy { $0.shape.count == $0.strides.count && $0.offset >= 0 })
      #expect(machine.tensors.allSatisfy { !$0.shape.contains { $0 < 0 } && !$0.strides.contains { $0 < 0 } })
      return true
    } catch {
      #expect(error.status == .format && error.message.contains("here"))
      return false
    }
  }

  @Test func everyBitFlipped() {
    let sound = sound
    var read = 0
    for place in sound.indices {
      for bit in 0..<8 {
        var pickle = sound
        pickle[place] ^= 1 << bit
        if survives(pickle) { read += 1 }
      }
    }
    // Flips in texts and numbers harm nothing; flips of opcodes do.
    #expect(read > sound.count && read < sound.count * 7)
  }

  @Test func randomDamage() {
    let sound = sound
    var generator = SeededGenerator(seed: 2)
    for _ in 0..<1500 { _ = survives(damaged(sound, using: &generator)) }
  }

  @Test func randomOpcodes() {
    let opcodes =
      Array("(012NJKMGXUTCBqrhjc)t]}aesuQRb.".utf8) + [
        0x80, 0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x8F, 0x90, 0x93, 0x94,
      ]
    var generator = SeededGenerator(seed: 3)
    for _ in 0..<3000 {
      let count = Int.random(in: 1...40, using: &generator)
      _ = survives(
        (0..<count).flatMap { _ in [opcodes.randomElement(using: &generator)!, UInt8.random(in: 0...2, using: &generator)] })
    }
  }

  /// Each is small, and would be large if nested values were copied, freed by recursion, or written out.
  @Test func whatWouldGrowOrRecurse() throws {
    let count = 50_000
    func many(_ text: String, _ count: Int) -> [UInt8] { Array(repeatElement(Array(text.utf8), count: count).joined()) }
    expectDamaged(many("(", count))
    expectDamaged(many("(", count) + Array(".".utf8))
    _ = try load(many("(", count) + many("t", count) + Array(".".utf8))
    _ = try load(many("]", count) + many("a", count - 1) + Array(".".utf8))
    _ = try load(many("}N", count) + Array("}".utf8) + many("s", count) + Array(".".utf8))
    _ = try load([UInt8](repeating: UInt8(ascii: ")"), count: 1) + [UInt8](repeating: 0x85, count: count) + Array(".".utf8))
    // A list in itself; a tower of lists, each twice in the next.
    let loop = try load(Array("]q\u{0}h\u{0}a.".utf8))
    #expect(loop.machine.items.map(\.count) == [1])
    let tower = try load(
      Array("]".utf8) + (0..<100).flatMap { [0x71, $0] + Array("0](".utf8) + [0x68, $0, 0x68, $0, 0x65] } + Array(".".utf8))
    #expect(tower.machine.items.count == 101)
  }

  /// A byte each, and a hundred in memory.
  @Test(arguments: [("N", ""), (")", ""), ("(", ""), ("\u{85}", ")"), ("\u{94}", "N"), ("]0", "")])
  func valuesAreCounted(_ again: String, _ first: String) throws {
    func pickle(_ count: Int) -> [UInt8] {
      (first + String(repeating: again, count: count)).unicodeScalars.map { UInt8($0.value) }
    }
    func load(_ count: Int) throws(Failure) {
      var machine = Unpickler(pickle(count), source: "here", mostValues: 50)
      _ = try machine.load()
    }
    // So many are read to the end, where the value is missing.
    expectFailure(.format, "here", "damaged") { () throws(Failure) in try load(49) }
    expectFailure(.format, "here", "more than 50 values") { () throws(Failure) in try load(51) }
  }

  /// One long text that is named again and again must not become that many long names.
  @Test func namesAreNotMultiplied() {
    let long = Pickle.text(String(repeating: "a", count: 20_000))
    expectDamaged(
      long + Array("q\u{0}0]".utf8) + Array(repeatElement(Array("h\u{0}h\u{0}".utf8) + [0x93, 0x61], count: 3).joined())
        + Array(".".utf8))
  }

  /// One long shape that many tensors have must not become that many lists of numbers.
  @Test func shapesAreNotMultiplied() throws {
    func tensor(dimensions: Int) -> [UInt8] { Pickle.whole(Pickle.tensor(Array(repeating: 1, count: dimensions))) }
    #expect(try load(tensor(dimensions: 64)).machine.tensors.map(\.shape.count) == [64])
    expectDamaged(tensor(dimensions: 65))
    expectDamaged(tensor(dimensions: 500))
  }
}
