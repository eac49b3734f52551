import CJansson
import Platform

/// A parsed document in Jansson's own memory, for walking headers of tens of thousands of entries without a second copy.
///
/// Duplicate keys, NUL characters in keys and strings, numbers that do not fit and nesting beyond 2048 levels are refused.
public final class JSONDocument: @unchecked Sendable {
  // @unchecked: nothing changes the tree once it is parsed, and Jansson's readers share no state.
  fileprivate let tree: UnsafeMutablePointer<json_t>

  /// Parse UTF-8 text of one value of any kind.
  /// - Parameter source: what the text is, for the message: a path, or "the recipe".
  /// - Throws: `.format`, naming the source, the line and what Jansson says.
  public init(_ bytes: UnsafeRawBufferPointer, source: String) throws(Failure) {
    var error = json_error_t()
    var nothing: CChar = 0
    let flags = Int(JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)
    let parsed =
      bytes.isEmpty
      ? json_loadb(&nothing, 0, flags, &error)
      : json_loadb(bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count, flags, &error)
    guard let parsed else {
      let text = withUnsafeBytes(of: error.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      throw Failure(.format, "\(source) is not valid JSON, see line \(max(error.line, 1)): \(printable(text))")
    }
    tree = parsed
  }

  deinit { stockpot_json_release(tree) }

  public var root: JSONNode { JSONNode(document: self, value: tree) }
}

/// A value inside a `JSONDocument`, which it keeps alive. The accessors are those of `JSON`.
public struct JSONNode {
  fileprivate let document: JSONDocument
  private let value: UnsafeMutablePointer<json_t>

  fileprivate init(document: JSONDocument, value: UnsafeMutablePointer<json_t>) {
    self.document = document
    self.value = value
  }

  /// Every use of the pointer goes through here: the optimiser may let go of the document after its own last use.
  fileprivate func reading<Result>(_ body: (UnsafeMutablePointer<json_t>) -> Result) -> Result {
    withExtendedLifetime(document) { body(value) }
  }

  private var type: json_type { reading { json_type(UInt32(stockpot_json_type($0))) } }

  public var isNull: Bool { type == JSON_NULL }
  public var isArray: Bool { type == JSON_ARRAY }
  public var isObject: Bool { type == JSON_OBJECT }

  public var bool: Bool? {
    switch type {
    case JSON_TRUE: true
    case JSON_FALSE: false
    default: nil
    }
  }

  /// The integer; nil for 1.0, which is written as a real number.
  public var int: Int? { type == JSON_INTEGER ? reading { Int(json_integer_value($0)) } : nil }

  /// The number, integers included.
  public var double: Double? { type == JSON_REAL || type == JSON_INTEGER ? reading { json_number_value($0) } : nil }

  public var string: String? {
    reading { node in json_string_value(node).map { text($0, json_string_length(node)) } }
  }

  /// Elements of an array or members of an object; 0 for anything else.
  public var count: Int { reading { json_array_size($0) + json_object_size($0) } }

  /// Element `index` of an array; nil past its end, or when this is no array.
  public subscript(index: Int) -> JSONNode? {
    guard index >= 0, let element = reading({ json_array_get($0, index) }) else { return nil }
    return JSONNode(document: document, value: element)
  }

  /// The value of `key`; nil when there is none, or when this is no object.
  public subscript(key: String) -> JSONNode? {
    var key = key
    let found = key.withUTF8 { bytes in
      bytes.withMemoryRebound(to: CChar.self) { name in reading { json_object_getn($0, name.baseAddress, name.count) } }
    }
    return found.map { JSONNode(document: document, value: $0) }
  }

  /// The elements of an array, in order; none for anything else.
  public var elements: some Sequence<JSONNode> { (0..<(isArray ? count : 0)).lazy.compactMap { self[$0] } }

  /// The members of an object, in the order of the text; none for anything else.
  public var members: some Sequence<(key: String, value: JSONNode)> {
    sequence(state: reading { json_object_iter($0) }) { place in
      guard let here = place else { return nil }
      return reading { node in
        guard let key = json_object_iter_key(here), let value = json_object_iter_value(here) else { return nil }
        place = json_object_iter_next(node, here)
        return (text(key, json_object_iter_key_len(here)), JSONNode(document: document, value: value))
      }
    }
  }
}

extension JSON {
  /// Parse UTF-8 text of one value of any kind.
  /// - Parameter source: what the text is, for the message: a path, or "the recipe".
  /// - Throws: `.format`, naming the source, the line and what Jansson says.
  public static func parse(_ bytes: UnsafeRawBufferPointer, source: String) throws(Failure) -> JSON {
    JSON(try JSONDocument(bytes, source: source).root)
  }

  public static func parse(_ bytes: [UInt8], source: String) throws(Failure) -> JSON {
    let result = bytes.withUnsafeBytes { raw in
      Result { () throws(Failure) -> JSON in try parse(raw, source: source) }
    }
    return try result.get()
  }

  public static func parse(_ text: String, source: String) throws(Failure) -> JSON {
    try parse(Array(text.utf8), source: source)
  }

  /// A copy of a part of a document.
  public init(_ node: JSONNode) {
    if node.isObject {
      self = .object(node.members.map { Member(key: $0.key, value: JSON($0.value)) })
    } else if node.isArray {
      self = .array(node.elements.map { JSON($0) })
    } else if let value = node.string {
      self = .string(value)
    } else if let value = node.int {
      self = .int(value)
    } else if let value = node.double {
      self = .double(value)
    } else if let value = node.bool {
      self = .bool(value)
    } else {
      self = .null
    }
  }
}

/// Text in Jansson's memory. It has checked that it is UTF-8.
private func text(_ start: UnsafePointer<CChar>, _ length: Int) -> String {
  String(decoding: UnsafeRawBufferPointer(start: start, count: length), as: UTF8.self)
}

/// Jansson quotes the text it stumbled over, which may hold anything.
private func printable(_ text: String) -> String {
  String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? " " : $0 }))
}
