/// A JSON value. Objects keep the order of the file; numbers are integers when they are written as integers.
public enum JSON: Equatable, Sendable {
  case null
  case bool(Bool)
  case int(Int)
  case double(Double)
  case string(String)
  case array([JSON])
  case object([Member])

  /// One key and its value.
  public struct Member: Equatable, Sendable {
    public var key: String
    public var value: JSON

    public init(key: String, value: JSON) {
      self.key = key
      self.value = value
    }
  }
}

// MARK: - Reading

extension JSON {
  /// The value of `key`; nil when there is none, or when this is no object. Keys are compared by their bytes.
  public subscript(key: String) -> JSON? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.key.utf8.elementsEqual(key.utf8) }?.value
  }

  public var isNull: Bool { self == .null }

  /// nil for null: where a member that is null counts as absent.
  public var unlessNull: JSON? { isNull ? Optional.none : .some(self) }

  public var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The integer; nil for 1.0, which is written as a real number.
  public var int: Int? {
    if case .int(let value) = self { value } else { nil }
  }

  /// The number, integers included.
  public var double: Double? {
    switch self {
    case .double(let value): value
    case .int(let value): Double(value)
    default: nil
    }
  }

  public var string: String? {
    if case .string(let value) = self { value } else { nil }
  }

  public var array: [JSON]? {
    if case .array(let value) = self { value } else { nil }
  }

  public var members: [Member]? {
    if case .object(let value) = self { value } else { nil }
  }
}

// MARK: - Literals

extension JSON: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral {
  public init(nilLiteral: ()) { self = .null }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(integerLiteral value: Int) { self = .int(value) }
  public init(floatLiteral value: Double) { self = .double(value) }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral {
  public init(stringLiteral value: String) { self = .string(value) }
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, JSON)...) {
    self = .object(elements.map { Member(key: $0.0, value: $0.1) })
  }
}
