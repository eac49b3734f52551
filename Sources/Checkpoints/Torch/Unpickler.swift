import Platform

/// Reads a pickle without running anything: plain values are rebuilt, what `torch.save` makes of tensors is recognised, and every
/// other object stays a name. No function or class is ever called, so a pickle can do nothing here but be refused.
///
/// Protocols 2 to 4, as far as torch.save uses them. Memory and time are linear in the pickle's length: values refer to one another
/// by number, so nothing is copied, and nothing nested is ever freed by recursion.
struct Unpickler {
  enum Value {
    case none
    case bool(Bool)
    case int(Int)
    case double
    case text(String)
    case tuple(Int)
    case list(Int)
    case dictionary(Int)
    /// A function or class, "module name".
    case global(String)
    case storage(Int)
    case tensor(Int)
    /// Something made by a function or class that is not known here.
    case object(String)
  }

  struct Storage {
    /// "torch FloatStorage".
    let type: String
    /// Name of the entry that holds its bytes.
    let key: String
    let count: Int
  }

  struct Tensor {
    let storage: Storage
    /// In elements.
    let offset: Int
    let shape: [Int]
    let strides: [Int]
    /// "torch float8_e4m3fn" where the storage has no type.
    let dtype: String?
  }

  /// Contents of tuples, lists and dictionaries; a dictionary's are keys and values by turns.
  private(set) var items: [[Value]] = []
  private(set) var tensors: [Tensor] = []
  private var storages: [Storage] = []
  private var stack: [Value] = []
  private var marks: [Int] = []
  private var memo: [Int: Value] = [:]
  private let bytes: [UInt8]
  private var position = 0
  private let source: String
  private let mostValues: Int
  /// Of a module's and a function's name together, in bytes; the names in a pickle may be one text, recalled again and again.
  private static let longestName = 255
  /// PyTorch allows no more.
  private static let mostDimensions = 64

  /// - Parameters:
  ///   - source: what the pickle is, for messages.
  ///   - mostValues: containers, and values on the stack and in the memo, each. One byte can make one of some hundred bytes; the
  ///     default does for several hundred thousand tensors.
  init(_ bytes: [UInt8], source: String, mostValues: Int = 4 << 20) {
    self.bytes = bytes
    self.source = source
    self.mostValues = mostValues
  }

  private func damaged() -> Failure {
    Failure(.format, "\(source) is no sound pickle at byte \(position): the file is damaged; fetch it again")
  }

  // MARK: - Reading

  private mutating func take(_ count: Int) throws(Failure) -> ArraySlice<UInt8> {
    guard count >= 0, count <= bytes.count - position else { throw damaged() }
    defer { position += count }
    return bytes[position..<(position + count)]
  }

  private mutating func number(_ count: Int) throws(Failure) -> Int {
    var value: UInt64 = 0
    for byte in try take(count).reversed() { value = value << 8 | UInt64(byte) }
    guard value <= UInt64(Int.max) else { throw damaged() }
    return Int(value)
  }

  private mutating func text(_ count: Int) throws(Failure) -> String { String(decoding: try take(count), as: UTF8.self) }

  private mutating func line() throws(Failure) -> String {
    guard let end = bytes[position...].firstIndex(of: 10) else { throw damaged() }
    let line = try text(end - position)
    position += 1
    return line
  }

  private mutating func pop() throws(Failure) -> Value {
    guard stack.count > (marks.last ?? 0), let value = stack.popLast() else { throw damaged() }
    return value
  }

  private mutating func popToMark() throws(Failure) -> [Value] {
    guard let mark = marks.popLast(), mark <= stack.count else { throw damaged() }
    defer { stack.removeSubrange(mark...) }
    return Array(stack[mark...])
  }

  private mutating func add(_ values: [Value]) -> Int {
    items.append(values)
    return items.count - 1
  }

  private func top() throws(Failure) -> Value {
    guard stack.count > (marks.last ?? 0), let value = stack.last else { throw damaged() }
    return value
  }

  // MARK: - The machine

  /// The one value that the pickle stands for.
  mutating func load() throws(Failure) -> Value {
    while true {
      guard max(items.count, stack.count, marks.count, memo.count) <= mostValues else {
        throw Failure(.format, "\(source) has more than \(mostValues) values: save the state dict alone, in several files")
      }
      let code = try take(1).first!
      switch code {
      case 0x80: _ = try take(1)
      case 0x95: _ = try take(8)
      case UInt8(ascii: "."):
        guard stack.count == 1, marks.isEmpty else { throw damaged() }
        return stack[0]
      case UInt8(ascii: "("): marks.append(stack.count)
      case UInt8(ascii: "0"): _ = try pop()
      case UInt8(ascii: "1"): _ = try popToMark()
      case UInt8(ascii: "2"): stack.append(try top())
      case UInt8(ascii: "N"): stack.append(.none)
      case 0x88: stack.append(.bool(true))
      case 0x89: stack.append(.bool(false))
      case UInt8(ascii: "J"): stack.append(.int(Int(Int32(truncatingIfNeeded: try number(4)))))
      case UInt8(ascii: "K"): stack.append(.int(try number(1)))
      case UInt8(ascii: "M"): stack.append(.int(try number(2)))
      case 0x8A: stack.append(try long())
      case UInt8(ascii: "G"):
        _ = try take(8)
        stack.append(.double)
      case UInt8(ascii: "X"): stack.append(.text(try text(try number(4))))
      case 0x8C: stack.append(.text(try text(try number(1))))
      case 0x8D: stack.append(.text(try text(try number(8))))
      case UInt8(ascii: "U"), UInt8(ascii: "C"):
        _ = try take(try number(1))
        stack.append(.object("bytes"))
      case UInt8(ascii: "T"), UInt8(ascii: "B"):
        _ = try take(try number(4))
        stack.append(.object("bytes"))
      case UInt8(ascii: "q"): memo[try number(1)] = try top()
      case UInt8(ascii: "r"): memo[try number(4)] = try top()
      case 0x94: memo[memo.count] = try top()
      case UInt8(ascii: "h"): try recall(try number(1))
      case UInt8(ascii: "j"): try recall(try number(4))
      case UInt8(ascii: "c"):
        let module = try line()
        stack.append(.global("\(module) \(try line())"))
      case 0x93:
        guard case .text(let name) = try pop(), case .text(let module) = try pop(),
          module.utf8.count + name.utf8.count <= Self.longestName
        else { throw damaged() }
        stack.append(.global("\(module) \(name)"))
      case UInt8(ascii: ")"): stack.append(.tuple(add([])))
      case 0x85, 0x86, 0x87:
        var values: [Value] = []
        for _ in 0..<(code - 0x84) { values.append(try pop()) }
        stack.append(.tuple(add(values.reversed())))
      case UInt8(ascii: "t"): stack.append(.tuple(add(try popToMark())))
      case UInt8(ascii: "]"), 0x8F: stack.append(.list(add([])))
      case UInt8(ascii: "}"): stack.append(.dictionary(add([])))
      case UInt8(ascii: "a"): try extend([try pop()])
      case UInt8(ascii: "e"), 0x90: try extend(try popToMark())
      case UInt8(ascii: "s"):
        let value = try pop()
        try extend([try pop(), value], pairs: true)
      case UInt8(ascii: "u"): try extend(try popToMark(), pairs: true)
      case UInt8(ascii: "Q"): stack.append(try persistent(try pop()))
      case UInt8(ascii: "R"), 0x81:
        let arguments = try pop()
        stack.append(try call(try pop(), arguments))
      case UInt8(ascii: "b"):
        // State of an object: OrderedDict's own attributes, or of something that stays a name.
        _ = try pop()
        _ = try top()
      default: throw damaged()
      }
    }
  }

  private mutating func long() throws(Failure) -> Value {
    let digits = Array(try take(try number(1)))
    guard digits.count <= 8 else { return .object("int") }
    let isNegative = digits.last.map { $0 >= 0x80 } ?? false
    var value: UInt64 = isNegative ? .max : 0
    for byte in digits.reversed() { value = value << 8 | UInt64(byte) }
    return .int(Int(Int64(bitPattern: value)))
  }

  private mutating func recall(_ index: Int) throws(Failure) {
    guard let value = memo[index] else { throw damaged() }
    stack.append(value)
  }

  /// Add to the list or dictionary on top of the stack. What is added to an unknown object is forgotten with it.
  private mutating func extend(_ values: [Value], pairs: Bool = false) throws(Failure) {
    switch try top() {
    case .list(let index) where !pairs: items[index] += values
    case .dictionary(let index) where pairs && values.count % 2 == 0: items[index] += values
    case .object: break
    default: throw damaged()
    }
  }

  // MARK: - What torch.save writes

  private mutating func persistent(_ id: Value) throws(Failure) -> Value {
    guard case .tuple(let index) = id, items[index].count >= 5, case .text("storage") = items[index][0],
      case .global(let type) = items[index][1], case .text(let key) = items[index][2], case .int(let count) = items[index][4],
      count >= 0
    else { throw damaged() }
    storages.append(Storage(type: type, key: key, count: count))
    return .storage(storages.count - 1)
  }

  private mutating func call(_ function: Value, _ arguments: Value) throws(Failure) -> Value {
    guard case .tuple(let index) = arguments else { throw damaged() }
    guard case .global(let name) = function else {
      if case .object(let name) = function { return .object(name) }
      throw damaged()
    }
    let given = items[index]
    switch name {
    case "collections OrderedDict" where given.isEmpty: return .dictionary(add([]))
    case "torch Size":
      guard given.count == 1 else { throw damaged() }
      return given[0]
    case "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3":
      return try tensor(given, typed: name.hasSuffix("_v3"))
    case "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state":
      guard let inner = given.first else { throw damaged() }
      return inner
    default: return .object(name)
    }
  }

  private mutating func tensor(_ given: [Value], typed: Bool) throws(Failure) -> Value {
    guard given.count >= (typed ? 7 : 4), case .storage(let storage) = given[0], case .int(let offset) = given[1],
      let shape = numbers(given[2]), let strides = numbers(given[3]), shape.count == strides.count, offset >= 0
    else { throw damaged() }
    var dtype: String?
    if typed, case .global(let name) = given[6] { dtype = name }
    tensors.append(Tensor(storage: storages[storage], offset: offset, shape: shape, strides: strides, dtype: dtype))
    return .tensor(tensors.count - 1)
  }

  private func numbers(_ value: Value) -> [Int]? {
    let index: Int
    switch value {
    case .tuple(let found), .list(let found): index = found
    default: return nil
    }
    guard items[index].count <= Self.mostDimensions else { return nil }
    var numbers: [Int] = []
    for item in items[index] {
      guard case .int(let number) = item, number >= 0 else { return nil }
      numbers.append(number)
    }
    return numbers
  }
}
