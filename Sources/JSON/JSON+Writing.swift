// Written here rather than by Jansson for three reasons: Jansson 2.14 prints 0.1 as 0.10000000000000001, it would need a second
// copy of the whole tree, and the header of a safetensors file is to have the very bytes of the reference writer.

import Platform

extension JSON {
  /// The value as JSON text: UTF-8 kept as it is, members in order, numbers with the fewest digits that read back to the same
  /// value, NaN and infinities as null.
  /// - Parameter indent: spaces per level; 0 gives one line without any space.
  public func serialized(indent: Int = 2) -> String {
    var writer = Writer(indent: max(indent, 0))
    writer.write(self, level: 0)
    return writer.text
  }

  /// The text of an object whose last member is a long array, of which one element at a time and worker is in memory.
  /// - Parameters:
  ///   - members: of the object; the value of the last one is replaced.
  ///   - workers: make parts of the text side by side; it is the same for any number.
  ///   - element: of the array, by its number.
  public static func text(
    _ members: [Member], indent: Int = 2, count: Int, workers: Int, element: @escaping (Int) -> JSON
  ) -> String {
    let indent = max(indent, 0)
    var head = Writer(indent: indent)
    var tail = Writer(indent: indent)
    head.writeBegin(members, level: 0)
    tail.writeEnd(count, level: 1)
    let part = max(512, (count + 2 * workers - 1) / max(1, 2 * workers))
    let parts = WorkerPool.map((count + part - 1) / part, workers: workers) { number in
      var writer = Writer(indent: indent)
      for index in number * part..<min((number + 1) * part, count) {
        writer.writeItem(index, level: 1) { $0.write(element(index), level: 2) }
      }
      return writer.bytes
    }
    let pieces = [head.bytes] + parts + [tail.bytes]
    return String(unsafeUninitializedCapacity: pieces.reduce(0) { $0 + $1.count }) { place in
      var end = 0
      for piece in pieces { end = place[end...].initialize(fromContentsOf: piece) }
      return end
    }
  }
}

private struct Writer {
  let indent: Int
  var bytes: [UInt8] = []

  mutating func write(_ value: JSON, level: Int) {
    switch value {
    case .null: append("null")
    case .bool(let value): append(value ? "true" : "false")
    case .int(let value): writeInteger(value)
    case .double(let value): if value.isFinite { append(value.description) } else { append("null") }
    case .string(let value): writeString(value)
    case .array(let elements):
      writeList(elements.count, ("[", "]"), level: level) { $0.write(elements[$1], level: level + 1) }
    case .object(let members):
      writeList(members.count, ("{", "}"), level: level) {
        $0.writeKey(members[$1].key)
        $0.write(members[$1].value, level: level + 1)
      }
    }
  }

  var text: String { String(decoding: bytes, as: UTF8.self) }

  mutating func writeKey(_ key: String) {
    writeString(key)
    append(UInt8(ascii: ":"))
    if indent > 0 { append(UInt8(ascii: " ")) }
  }

  @inline(__always)
  mutating func writeList(
    _ count: Int, _ marks: (Unicode.Scalar, Unicode.Scalar), level: Int, _ item: (inout Writer, Int) -> Void
  ) {
    append(UInt8(ascii: marks.0))
    for index in 0..<count { writeItem(index, level: level) { item(&$0, index) } }
    if count > 0 { breakLine(level: level) }
    append(UInt8(ascii: marks.1))
  }

  @inline(__always)
  mutating func writeItem(_ index: Int, level: Int, _ item: (inout Writer) -> Void) {
    if index > 0 { append(UInt8(ascii: ",")) }
    breakLine(level: level + 1)
    item(&self)
  }

  /// An object up to the bracket that opens the array of its last member.
  mutating func writeBegin(_ members: [JSON.Member], level: Int) {
    append(UInt8(ascii: "{"))
    for index in members.indices {
      writeItem(index, level: level) { writer in
        writer.writeKey(members[index].key)
        if index < members.count - 1 { writer.write(members[index].value, level: level + 1) }
      }
    }
    append(UInt8(ascii: "["))
  }

  /// What closes such an array of `count` elements, and its object.
  mutating func writeEnd(_ count: Int, level: Int) {
    if count > 0 { breakLine(level: level) }
    append(UInt8(ascii: "]"))
    breakLine(level: level - 1)
    append(UInt8(ascii: "}"))
  }

  private mutating func breakLine(level: Int) {
    guard indent > 0 else { return }
    append(UInt8(ascii: "\n"))
    for _ in 0..<indent * level { append(UInt8(ascii: " ")) }
  }

  private mutating func writeString(_ text: String) {
    append(UInt8(ascii: "\""))
    text.withBytes { text in
      // What needs no escape is most often all of it, and goes in one piece.
      var start = 0
      for place in text.indices
      where text[place] < 0x20 || text[place] == UInt8(ascii: "\"") || text[place] == UInt8(ascii: "\\") {
        bytes.append(contentsOf: text[start..<place])
        writeEscaped(text[place])
        start = place + 1
      }
      bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[start...]))
    }
    append(UInt8(ascii: "\""))
  }

  private mutating func writeEscaped(_ byte: UInt8) {
    switch byte {
    case UInt8(ascii: "\""): append("\\\"")
    case UInt8(ascii: "\\"): append("\\\\")
    case 0x08: append("\\b")
    case 0x09: append("\\t")
    case 0x0A: append("\\n")
    case 0x0C: append("\\f")
    case 0x0D: append("\\r")
    default:
      append(byte < 0x10 ? "\\u000" : "\\u00")
      append(String(byte, radix: 16))
    }
  }

  private mutating func writeInteger(_ value: Int) {
    if (0...9).contains(value) { append(UInt8(ascii: "0") + UInt8(value)) } else { append(String(value)) }
  }

  private mutating func append(_ byte: UInt8) { bytes.append(byte) }
  private mutating func append(_ text: String) { text.withBytes { bytes.append(contentsOf: $0) } }
}
