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

  /// The text of an object with a long array, of which one element at a time is in memory.
  /// - Parameters:
  ///   - members: of the object; the value of `key` is replaced.
  ///   - key: the array's.
  ///   - element: of the array, by its number.
  public static func text(
    _ members: [Member], indent: Int = 2, key: String, count: Int, element: (Int) -> JSON
  ) -> String {
    var writer = Writer(indent: max(indent, 0))
    writer.writeList(members.count, ("{", "}"), level: 0) { writer, index in
      writer.writeKey(members[index].key)
      guard members[index].key == key else { return writer.write(members[index].value, level: 1) }
      writer.writeList(count, ("[", "]"), level: 1) { writer, index in writer.write(element(index), level: 2) }
    }
    return writer.text
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
    for index in 0..<count {
      if index > 0 { append(UInt8(ascii: ",")) }
      breakLine(level: level + 1)
      item(&self, index)
    }
    if count > 0 { breakLine(level: level) }
    append(UInt8(ascii: marks.1))
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
