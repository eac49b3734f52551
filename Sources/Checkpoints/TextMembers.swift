import JSON
import Platform

/// The members of the outermost object of a JSON text, and where their values stand: to change one value and not a byte besides.
///
/// Tokenizer configs hold integers beyond 64 bits (a model_max_length of 10^30), which `JSON` refuses; here only the shape of
/// the text matters.
struct TextMembers {
  struct Member {
    let key: String
    let value: Range<Int>
  }

  private let text: [UInt8]
  private(set) var members: [Member] = []
  /// Behind the last member, or behind the opening brace.
  private var end = 0

  /// - Throws: `.format` when the text is no JSON object.
  init(_ text: [UInt8], source: String) throws(Failure) {
    self.text = text
    var position = 0
    skipSpace(&position)
    guard position < text.count, text[position] == UInt8(ascii: "{") else { throw Self.broken(source) }
    position += 1
    end = position
    skipSpace(&position)
    while position < text.count, text[position] != UInt8(ascii: "}") {
      let start = position
      guard let keyEnd = pastString(position), let key = string(start..<keyEnd) else { throw Self.broken(source) }
      position = keyEnd
      skipSpace(&position)
      guard position < text.count, text[position] == UInt8(ascii: ":") else { throw Self.broken(source) }
      position += 1
      skipSpace(&position)
      guard let valueEnd = pastValue(position), valueEnd > position else { throw Self.broken(source) }
      members.append(Member(key: key, value: position..<valueEnd))
      end = valueEnd
      position = valueEnd
      skipSpace(&position)
      if position < text.count, text[position] == UInt8(ascii: ",") {
        position += 1
        skipSpace(&position)
      }
    }
    guard position < text.count else { throw Self.broken(source) }
  }

  private static func broken(_ source: String) -> Failure {
    Failure(.format, "\(source) is not a JSON object: correct or remove it")
  }

  /// The value of a key; nil when there is none, or when it holds a number beyond what `JSON` takes.
  func value(_ key: String) -> JSON? {
    guard let member = members.first(where: { $0.key == key }) else { return nil }
    return try? JSON.parse(Array(text[member.value]), source: key)
  }

  func has(_ key: String) -> Bool { members.contains { $0.key == key } }

  /// The text with a value set, in its place or as the last member.
  func setting(_ key: String, to value: JSON) -> [UInt8] {
    let new = Array(value.serialized(indent: 0).utf8)
    if let member = members.first(where: { $0.key == key }) {
      return text[..<member.value.lowerBound] + new + text[member.value.upperBound...]
    }
    let name = JSON.string(key).serialized(indent: 0)
    let separator = members.isEmpty ? "\n  " : ",\n  "
    return text[..<end] + Array("\(separator)\(name): ".utf8) + new + (members.isEmpty ? [0x0A] : []) + text[end...]
  }

  // MARK: - Scanning

  private func skipSpace(_ position: inout Int) {
    while position < text.count, [0x20, 0x09, 0x0A, 0x0D].contains(text[position]) { position += 1 }
  }

  /// Past the string that begins here; nil when none does, or it has no end.
  private func pastString(_ start: Int) -> Int? {
    guard start < text.count, text[start] == UInt8(ascii: "\"") else { return nil }
    var position = start + 1
    while position < text.count {
      if text[position] == UInt8(ascii: "\"") { return position + 1 }
      position += text[position] == UInt8(ascii: "\\") ? 2 : 1
    }
    return nil
  }

  /// Past a value: up to the comma or brace that ends it.
  private func pastValue(_ start: Int) -> Int? {
    var position = start
    var depth = 0
    while position < text.count {
      switch text[position] {
      case UInt8(ascii: "\""):
        guard let next = pastString(position) else { return nil }
        position = next
        if depth == 0 { return position }
        continue
      case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        if depth == 0 { return trimmed(start, position) }
        depth -= 1
        if depth == 0 { return position + 1 }
      case UInt8(ascii: ","):
        if depth == 0 { return trimmed(start, position) }
      default: break
      }
      position += 1
    }
    return nil
  }

  private func trimmed(_ start: Int, _ end: Int) -> Int {
    var end = end
    while end > start, [0x20, 0x09, 0x0A, 0x0D].contains(text[end - 1]) { end -= 1 }
    return end
  }

  private func string(_ range: Range<Int>) -> String? {
    (try? JSON.parse(Array(text[range]), source: "a key"))?.string
  }
}
