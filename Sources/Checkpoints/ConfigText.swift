import JSON
import Platform
import TensorKernels

/// Edits config.json as text: the few values that a merge changes, and not a byte besides. Reading and writing it again would
/// reorder, reformat and re-round what other tools compare.
public enum ConfigText {
  /// - Parameters:
  ///   - bytes: the text of config.json.
  ///   - dtype: PyTorch's name of the output's element type ("bfloat16"). It replaces `torch_dtype` and `dtype`, at the top and
  ///     in objects whose key ends in "_config", where they are strings that name an element type or "auto". They are not added
  ///     where they are absent. Nil changes none.
  ///   - vocabularySize: rows of the output's embeddings. It replaces `vocab_size` at the top and in objects whose key ends in
  ///     "_config", where it is what `vocabularySize(of:)` says; another part's own vocabulary stays. Nil changes none.
  ///   - source: the path, for messages.
  /// - Returns: the text with these values replaced, and without a top-level `_name_or_path`.
  /// - Throws: `.format` when the text is not one JSON object.
  public static func edited(
    _ bytes: [UInt8], dtype: String?, vocabularySize: Int? = nil, source: String
  ) throws(Failure) -> [UInt8] {
    let config = try JSON.parse(bytes, source: source)
    guard config.members != nil else {
      throw Failure(.format, "\(source) is not a JSON object, so it cannot be a model's config")
    }
    var scanner = Scanner(text: bytes, dtype: dtype)
    if let vocabularySize, let current = Self.vocabularySize(of: config) { scanner.vocabulary = (current, vocabularySize) }
    scanner.scan()
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    var copied = 0
    for edit in scanner.edits {
      result += bytes[copied..<edit.range.lowerBound]
      result += edit.replacement
      copied = edit.range.upperBound
    }
    return result + bytes[copied...]
  }

  /// The vocabulary that a config states: `vocab_size` of its own, or of the nested config of the text model, or of the first
  /// nested config that has one.
  public static func vocabularySize(of config: JSON) -> Int? {
    if let size = config["vocab_size"]?.int ?? config["text_config"]?["vocab_size"]?.int { return size }
    return config.members?.lazy.filter { $0.key.hasSuffix("_config") }.compactMap { vocabularySize(of: $0.value) }.first
  }
}

/// Walks over JSON text that Jansson has accepted, so that the rules of the grammar may be relied on. Every loop ends with the
/// text all the same.
private struct Scanner {
  struct Edit {
    let range: Range<Int>
    let replacement: [UInt8]
  }

  let text: [UInt8]
  let dtype: String?
  /// From this number to that.
  var vocabulary: (current: Int, new: Int)?
  var edits: [Edit] = []
  private var position = 0

  init(text: [UInt8], dtype: String?) {
    self.text = text
    self.dtype = dtype
  }

  mutating func scan() {
    skipSpace()
    scanObject(level: 0, isConfig: true)
  }

  /// - Parameter isConfig: are its dtypes ours to set?
  private mutating func scanObject(level: Int, isConfig: Bool) {
    advance()
    var previousComma: Int?
    skipSpace()
    while position < text.count, here != UInt8(ascii: "}") {
      let member = position
      let key = scanString()
      skipSpace()
      advance()  // the colon
      skipSpace()
      let value = position
      scanValue(level: level + 1, isConfig: isConfig && key.hasSuffix("_config"))
      let end = position
      skipSpace()
      let comma = here == UInt8(ascii: ",") ? position : nil
      if comma != nil {
        advance()
        skipSpace()
      }
      if level == 0, key == "_name_or_path" {
        // With the comma after it and the space up to the next member, else with the comma before it.
        let start = comma == nil ? previousComma ?? member : member
        remove(start..<(comma == nil ? end : position))
      } else {
        previousComma = comma
        if isConfig, key == "torch_dtype" || key == "dtype" { setType(value..<end) }
        if isConfig, key == "vocab_size" { setVocabulary(value..<end) }
      }
    }
    advance()
  }

  private mutating func scanValue(level: Int, isConfig: Bool) {
    switch here {
    case UInt8(ascii: "{"):
      scanObject(level: level, isConfig: isConfig)
    case UInt8(ascii: "["):
      advance()
      skipSpace()
      while position < text.count, here != UInt8(ascii: "]") {
        scanValue(level: level + 1, isConfig: false)
        skipSpace()
        if here == UInt8(ascii: ",") { advance() }
        skipSpace()
      }
      advance()
    case UInt8(ascii: "\""):
      _ = scanString()
    default:
      advance()
      while position < text.count, !isSpace(here), ![UInt8(ascii: ","), UInt8(ascii: "}"), UInt8(ascii: "]")].contains(here) {
        advance()
      }
    }
  }

  /// Past a string; its value, with escapes resolved.
  private mutating func scanString() -> String {
    let start = position
    advance()
    while position < text.count, here != UInt8(ascii: "\"") { advance(here == UInt8(ascii: "\\") ? 2 : 1) }
    advance()
    return string(start..<position)
  }

  /// The value of the string literal in a range; "" when something else is there.
  private func string(_ range: Range<Int>) -> String {
    (try? JSON.parse(Array(text[range]), source: "config.json"))?.string ?? ""
  }

  private mutating func setType(_ range: Range<Int>) {
    guard let dtype, text[range].first == UInt8(ascii: "\"") else { return }
    let current = string(range)
    guard current == "auto" || DType(recipeName: current) != nil else { return }
    edits.append(Edit(range: range, replacement: Array(JSON.string(dtype).serialized(indent: 0).utf8)))
  }

  private mutating func setVocabulary(_ range: Range<Int>) {
    guard let vocabulary, (try? JSON.parse(Array(text[range]), source: "config.json"))?.int == vocabulary.current else {
      return
    }
    edits.append(Edit(range: range, replacement: Array(String(vocabulary.new).utf8)))
  }

  private mutating func remove(_ range: Range<Int>) {
    edits.append(Edit(range: range, replacement: []))
  }

  private mutating func advance(_ count: Int = 1) { position = min(position + count, text.count) }

  private mutating func skipSpace() {
    while position < text.count, isSpace(here) { advance() }
  }

  /// The byte at the position; 0 past the end, where valid text has nothing left to ask for.
  private var here: UInt8 { position < text.count ? text[position] : 0 }

  private func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }
}
