import JSON
import Platform

/// The parameters of one merge: checked against the schema, defaults filled in.
public struct Parameters: Sendable {
  public let schema: MethodSchema
  private var values: [String: JSON]
  private var given: Set<String> = []

  /// - Parameter given: an object of values by the schema's names. Per-model parameters take a number or a list.
  /// - Throws: `.parameter` for an unknown name, a wrong type, a value out of range, or a required one that is missing.
  public init(_ schema: MethodSchema, _ given: [JSON.Member]) throws(Failure) {
    self.schema = schema
    values = [:]
    for member in given {
      guard let parameter = schema.parameter(member.key) else {
        throw Failure(.parameter, Self.unknown(member.key, schema))
      }
      if member.value.isNull, parameter.isOptional || parameter.defaultValue != nil { continue }
      values[member.key] = try Self.checked(member.value, parameter, schema.name)
      self.given.insert(member.key)
    }
    for parameter in schema.allParameters where values[parameter.name] == nil {
      if let value = parameter.defaultValue {
        values[parameter.name] = value
      } else if parameter.isRequired {
        throw Failure(.parameter, "\(schema.name) needs the parameter '\(parameter.name)': \(parameter.summary)")
      }
    }
  }

  /// The sentence about a name that the method does not take.
  public static func unknown(_ name: String, _ schema: MethodSchema) -> String {
    let known = schema.allParameters.map(\.name)
    let hint =
      Suggestion.nearest(to: name, among: known).map { "did you mean '\($0)'?" }
      ?? "it takes \(known.joined(separator: ", "))"
    return "\(schema.name) does not take the parameter '\(name)': \(hint)"
  }

  // MARK: - Reading

  public func has(_ name: String) -> Bool { values[name] != nil }
  /// Did the caller set it, rather than the default?
  public func isGiven(_ name: String) -> Bool { given.contains(name) }
  public func number(_ name: String) -> Double { values[name]?.double ?? 0 }
  public func integer(_ name: String) -> Int { values[name]?.int ?? 0 }
  public func boolean(_ name: String) -> Bool { values[name]?.bool ?? false }
  public func choice(_ name: String) -> String { values[name]?.string ?? "" }
  public func strings(_ name: String) -> [String] { (values[name]?.array ?? []).compactMap(\.string) }
  public func value(_ name: String) -> JSON? { values[name] }

  public func choice<Value: RawRepresentable>(_ name: String, as type: Value.Type) -> Value where Value.RawValue == String {
    guard let value = Value(rawValue: choice(name)) else {
      preconditionFailure("the schema of \(schema.name) offers a \(name) that it does not implement")
    }
    return value
  }

  /// One value per model.
  public func perModel(_ name: String, count: Int) throws(Failure) -> [Double] {
    guard let list = values[name]?.array else { return [Double](repeating: number(name), count: count) }
    guard list.count == count else {
      throw Failure(
        .parameter,
        "'\(name)' of \(schema.name) has \(list.count) values for \(count) models: give one number, or one per model")
    }
    return list.map { $0.double ?? 0 }
  }

  /// One list of numbers per model, nil where a model has none; empty when the parameter was not given.
  public func vectors(_ name: String, count: Int) throws(Failure) -> [[Double]?] {
    guard let list = values[name]?.array else { return [] }
    guard list.contains(where: { $0.array != nil || $0.isNull }) else {
      return [[Double]?](repeating: list.map { $0.double ?? 0 }, count: count)
    }
    guard list.count == count else {
      throw Failure(
        .parameter, "'\(name)' of \(schema.name) has \(list.count) lists for \(count) models: give one list, or one per model")
    }
    return list.map { $0.array?.map { $0.double ?? 0 } }
  }

  /// All values in the order of the schema.
  public var json: JSON {
    .object(
      schema.allParameters.compactMap { parameter in
        values[parameter.name].map { JSON.Member(key: parameter.name, value: $0) }
      })
  }

  // MARK: - Checking

  private static func checked(_ value: JSON, _ parameter: ParameterSchema, _ method: String) throws(Failure) -> JSON {
    if parameter.perModel, let list = value.array {
      var checkedList: [JSON] = []
      for element in list { checkedList.append(try single(element, parameter, method)) }
      return .array(checkedList)
    }
    return try single(value, parameter, method)
  }

  private static func single(_ value: JSON, _ parameter: ParameterSchema, _ method: String) throws(Failure) -> JSON {
    func refuse(_ expected: String) -> Failure {
      Failure(.parameter, "'\(parameter.name)' of \(method) is \(value.serialized(indent: 0)), which is not \(expected)")
    }
    switch parameter.kind {
    case .number:
      guard let number = value.double ?? value.bool.map({ $0 ? 1 : 0 }), number.isFinite else { throw refuse("a number") }
      try checkRange(number, value, parameter, method)
      return .double(number)
    case .integer:
      var integer = value.int
      if integer == nil, let number = value.double, number == number.rounded(), number.magnitude < 1e15 {
        integer = Int(number)
      }
      guard let integer else { throw refuse("a whole number") }
      try checkRange(Double(integer), value, parameter, method)
      return .int(integer)
    case .boolean:
      if let flag = value.bool { return .bool(flag) }
      guard let number = value.double, number == 0 || number == 1 else { throw refuse("true or false") }
      return .bool(number == 1)
    case .choice(let choices):
      let text = value.bool.map { $0 ? "true" : "false" } ?? value.string ?? ""
      let name = parameter.aliases[text] ?? text
      guard choices.contains(name) else { throw refuse("one of \(choices.joined(separator: ", "))") }
      return .string(name)
    case .strings:
      let list = value.array ?? (value.string != nil ? [value] : [])
      guard value.array != nil || value.string != nil, list.allSatisfy({ $0.string != nil }) else {
        throw refuse("a list of names")
      }
      return .array(list)
    case .vectors:
      let isNumbers = { (json: JSON) in json.array?.allSatisfy { $0.double?.isFinite ?? false } ?? false }
      guard isNumbers(value) || value.array?.allSatisfy({ $0.isNull || isNumbers($0) }) ?? false else {
        throw refuse("a list of numbers, or one list (or null) per model")
      }
      return value
    case .model:
      if let text = value.string { return .string(text) }
      guard let number = value.double, number == number.rounded(), (0...1e6).contains(number) else {
        throw refuse("the number of a model (1 for the first, 0 for none) or its name")
      }
      return .int(Int(number))
    }
  }

  private static func checkRange(
    _ number: Double, _ value: JSON, _ parameter: ParameterSchema, _ method: String
  ) throws(Failure) {
    let (low, high) = (parameter.minimum, parameter.maximum)
    guard number < low ?? number || number > high ?? number else { return }
    let range: String
    switch (low, high) {
    case (let low?, let high?): range = "between \(short(low)) and \(short(high))"
    case (let low?, nil): range = "at least \(short(low))"
    default: range = "at most \(short(high ?? 0))"
    }
    throw Failure(
      .parameter,
      "'\(parameter.name)' of \(method) is \(value.serialized(indent: 0)), which is out of range: it must be \(range)")
  }

  private static func short(_ number: Double) -> String {
    number == number.rounded() && number.magnitude < 1e15 ? String(Int(number)) : String(number)
  }
}
