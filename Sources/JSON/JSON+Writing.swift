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
    return String(decoding: writer.bytes, as: UTF8.self)
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
      append(UInt8(ascii: "["))
      for index in elements.indices {
        if index > 0 { append(UInt8(ascii: ",")) }
        breakLine(level: level + 1)
        write(elements[index], level: level + 1)
      }
      if !elements.isEmpty { breakLine(level: level) }
      append(UInt8(ascii: "]"))
    case .object(let members):
      append(UInt8(ascii: "{"))
      for index in members.indices {
        if index > 0 { append(UInt8(ascii: ",")) }
        breakLine(level: level + 1)
        writeString(members[index].key)
        append(UInt8(ascii: ":"))
        if indent > 0 { append(UInt8(ascii: " ")) }
        write(members[index].value, level: level + 1)
      }
      if !members.isEmpty { breakLine(level: level) }
      append(UInt8(ascii: "}"))
    }
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
