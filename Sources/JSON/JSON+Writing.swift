// Written here rather than by Jansson for three reasons: Jansson 2.14 prints 0.1 as 0.10000000000000001, it would need a second
// copy of the whole tree, and the header of a safetensors file is to have the very bytes of the reference writer.

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
    case .int(let value): append(String(value))
    case .double(let value): append(value.isFinite ? value.description : "null")
    case .string(let value): writeString(value)
    case .array(let elements):
      writeList(elements, between: ("[", "]"), level: level) { writer, element in writer.write(element, level: level + 1) }
    case .object(let members):
      writeList(members, between: ("{", "}"), level: level) { writer, member in
        writer.writeString(member.key)
        writer.append(writer.indent > 0 ? ": " : ":")
        writer.write(member.value, level: level + 1)
      }
    }
  }

  private mutating func writeList<Item>(
    _ items: [Item], between marks: (String, String), level: Int, _ writeItem: (inout Writer, Item) -> Void
  ) {
    append(marks.0)
    for (index, item) in items.enumerated() {
      if index > 0 { append(",") }
      breakLine(level: level + 1)
      writeItem(&self, item)
    }
    if !items.isEmpty { breakLine(level: level) }
    append(marks.1)
  }

  private mutating func breakLine(level: Int) {
    guard indent > 0 else { return }
    append("\n")
    bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: indent * level))
  }

  private mutating func writeString(_ text: String) {
    append("\"")
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""): append("\\\"")
      case UInt8(ascii: "\\"): append("\\\\")
      case 0x08: append("\\b")
      case 0x09: append("\\t")
      case 0x0A: append("\\n")
      case 0x0C: append("\\f")
      case 0x0D: append("\\r")
      case 0..<0x20:
        append(byte < 0x10 ? "\\u000" : "\\u00")
        append(String(byte, radix: 16))
      default: bytes.append(byte)
      }
    }
    append("\"")
  }

  private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }
}
