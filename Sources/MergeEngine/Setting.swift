import JSON
import Platform

/// The value of a parameter in a recipe, which may depend on the tensor.
///
/// The grammar is mergekit's: a value; a list of numbers, a gradient over the layers; or a list of conditions {filter, value},
/// of which the first whose filter is absent, "*" or a part of the tensor's name counts.
enum Setting {
  case value(JSON)
  case gradient([Double])
  case conditions([Condition])

  struct Condition {
    let filter: String?
    let setting: Setting
  }

  /// - Parameter place: where it stands, for messages: "parameters.weight".
  init(_ json: JSON, place: String) throws(Failure) {
    if json["value"] != nil {
      self = .conditions([try Self.condition(json, place)])
    } else if let list = json.array, list.contains(where: { $0.members != nil }) {
      var conditions: [Condition] = []
      for element in list { conditions.append(try Self.condition(element, place)) }
      self = .conditions(conditions)
    } else if let list = json.array, !list.isEmpty, list.allSatisfy({ Self.number($0) != nil }) {
      self = .gradient(list.map { Self.number($0)! })
    } else if json.members != nil {
      throw Failure(.recipe, "\(place) is an object without 'value': give a value, a list of numbers, or {filter, value}")
    } else if json.isNull {
      throw Failure(.recipe, "\(place) has no value: give one, or remove it")
    } else if json.string != nil, let number = Self.number(json) {
      self = .value(.double(number))
    } else {
      self = .value(json)
    }
  }

  /// mergekit reads true as 1, and a quoted number as a number.
  private static func number(_ json: JSON) -> Double? {
    if let number = json.double ?? json.bool.map({ $0 ? 1 : 0 }) { return number }
    return json.string.flatMap { Double($0) }.flatMap { $0.isFinite ? $0 : nil }
  }

  /// Is it the same for all tensors?
  var isConstant: Bool { if case .value = self { true } else { false } }

  /// Is it, or holds a condition, a list without an element?
  var isEmptyList: Bool {
    switch self {
    case .value(let value): value.array?.isEmpty == true
    case .gradient: false
    case .conditions(let conditions): conditions.contains { $0.setting.isEmptyList }
    }
  }

  private static func condition(_ json: JSON, _ place: String) throws(Failure) -> Condition {
    guard let value = json["value"] else {
      throw Failure(.recipe, "\(place) mixes conditions and values: every entry of the list needs a 'value'")
    }
    guard json["filter"] == nil || json["filter"]!.isNull || json["filter"]!.string != nil else {
      throw Failure(.recipe, "\(place) has a filter that is not text: give a part of the tensor names it is meant for")
    }
    return Condition(filter: json["filter"]?.string, setting: try Setting(value, place: place))
  }

  /// - Parameters:
  ///   - name: of the tensor.
  ///   - position: of its layer in the stack, 0 for the first and 1 for the last; 0 outside.
  /// - Returns: nil when no condition holds.
  func value(name: String, position: Double) -> JSON? {
    switch self {
    case .value(let value): return value
    case .gradient(let points):
      let scaled = position * Double(points.count - 1)
      let index = min(Int(scaled), points.count - 1)
      let fraction = scaled - Double(index)
      return .double((1 - fraction) * points[index] + fraction * points[min(index + 1, points.count - 1)])
    case .conditions(let conditions):
      let match = conditions.first { condition in
        guard let filter = condition.filter, filter != "*" else { return true }
        return name.containsText(filter)
      }
      return match?.setting.value(name: name, position: position)
    }
  }
}
