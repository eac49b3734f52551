import JSON
import Platform
import Testing

@testable import MergeMethods

@Suite struct ParametersTests {
  /// One parameter of every kind.
  private static let schema = MethodSchema(
    name: "example", title: "Example", summary: "For tests.", family: "gram", citation: "none", base: .donor,
    parameters: [
      ParameterSchema("need", .number, default: nil, minimum: 0, maximum: 1, summary: "It is required."),
      ParameterSchema("weight", .number, default: 1.0, minimum: 0, perModel: true, summary: ""),
      ParameterSchema("steps", .integer, default: 10, minimum: 1, summary: ""),
      ParameterSchema("limit", .number, default: 0.5, maximum: 2.5, summary: ""),
      ParameterSchema("flag", .boolean, default: false, summary: ""),
      ParameterSchema("mode", .choice(["fast", "good"]), default: "fast", summary: ""),
      ParameterSchema("keys", .strings, default: [], summary: ""),
      ParameterSchema("d", .vectors, default: nil, isOptional: true, summary: ""),
      ParameterSchema("anchor", .model, default: 0, summary: ""),
      ParameterSchema("maybe", .choice(["x", "y"]), default: nil, isOptional: true, summary: ""),
      ParameterSchema(
        "rescale", .choice(["l1", "none"]), default: nil, isOptional: true,
        aliases: ["true": "l1", "false": "none", "taxicab": "l1"], summary: ""),
    ],
    reports: [])

  private enum Mode: String { case fast, good }

  private func parameters(_ given: JSON) throws(Failure) -> Parameters {
    try Parameters(Self.schema, members(given))
  }

  private func with(_ name: String, _ value: JSON) throws(Failure) -> Parameters {
    try Parameters(Self.schema, [.init(key: "need", value: 0.5), .init(key: name, value: value)])
  }

  @Test func defaultsAreFilledIn() throws {
    let p = try parameters(["need": 0.25])
    #expect(p.number("need") == 0.25 && p.number("weight") == 1 && p.integer("steps") == 10 && p.number("limit") == 0.5)
    #expect(!p.boolean("flag") && p.choice("mode") == "fast" && p.choice("mode", as: Mode.self) == .fast)
    #expect(p.strings("keys") == [] && p.value("anchor") == 0)
    #expect(p.choice("on_non_finite") == "error")
    #expect(!p.has("maybe") && p.value("maybe") == nil && p.has("flag"))
  }

  @Test func givenValuesReplaceDefaults() throws {
    let p = try parameters([
      "need": 1, "weight": [0.5, 2], "steps": 3, "limit": -1e9, "flag": true, "mode": "good", "keys": ["a", "b*"], "anchor": 2,
      "maybe": "y", "on_non_finite": "warn",
    ])
    #expect(p.number("need") == 1 && p.integer("steps") == 3 && p.number("limit") == -1e9 && p.boolean("flag"))
    #expect(p.choice("mode", as: Mode.self) == .good && p.strings("keys") == ["a", "b*"] && p.value("anchor") == 2)
    #expect(p.has("maybe") && p.choice("maybe") == "y" && p.choice("on_non_finite") == "warn")
    #expect(try p.perModel("weight", count: 2) == [0.5, 2])
  }

  @Test func anUnknownNameGetsASuggestion() {
    expectFailure(.parameter, "example", "'wieght'", "did you mean 'weight'?") { _ = try with("wieght", 1) }
    expectFailure(.parameter, "'Mode'", "did you mean 'mode'?") { _ = try with("Mode", "fast") }
    // Nothing near: all there are, the common ones too.
    expectFailure(.parameter, "'temperature'", "need, weight", "on_non_finite") { _ = try with("temperature", 1) }
    expectFailure(.parameter, "'output'") { _ = try with("output", "weights") }
  }

  @Test func aMissingRequiredParameterIsNamed() {
    expectFailure(.parameter, "example needs the parameter 'need'", "It is required.") { _ = try parameters([:]) }
    expectFailure(.parameter, "'need'") { _ = try parameters(["need": nil]) }
  }

  private static let wrong: [(String, JSON, String)] = [
    ("need", "0.5", "not a number"), ("need", [0.5], "not a number"), ("weight", "big", "not a number"),
    ("weight", [1, "x"], "\"x\""), ("weight", [1, nil], "null"), ("weight", [[1]], "not a number"),
    ("need", .double(.nan), "not a number"),
    ("limit", .double(-.infinity), "not a number"), ("steps", 2.5, "not a whole number"), ("steps", "3", "not a whole number"),
    ("steps", true, "not a whole number"), ("steps", 1e300, "not a whole number"), ("flag", "true", "not true or false"),
    ("flag", 2, "not true or false"), ("mode", "best", "not one of fast, good"), ("mode", 1, "not one of"),
    ("mode", ["fast"], "not one of"), ("keys", 3, "not a list of names"), ("keys", ["a", 3], "not a list of names"),
    ("anchor", -1, "the number of a model"), ("anchor", 1.5, "the number of a model"), ("anchor", [1], "the number of a model"),
    ("maybe", "z", "not one of x, y"),
  ]

  @Test(arguments: wrong) func aWrongTypeIsRefused(name: String, value: JSON, words: String) {
    expectFailure(.parameter, "'\(name)' of example is ", words) { _ = try with(name, value) }
  }

  private static let outside: [(String, JSON, String)] = [
    ("need", -0.001, "between 0 and 1"), ("need", 1.5, "between 0 and 1"), ("weight", -1, "at least 0"),
    ("weight", [1, -2], "at least 0"), ("steps", 0, "at least 1"), ("limit", 2.51, "at most 2.5"),
  ]

  @Test(arguments: outside) func aValueOutOfRangeIsRefused(name: String, value: JSON, range: String) {
    expectFailure(.parameter, "'\(name)' of example is ", "out of range: it must be \(range)") { _ = try with(name, value) }
  }

  @Test func theEndsOfARangeAreInside() throws {
    #expect(try parameters(["need": 0]).number("need") == 0)
    #expect(try parameters(["need": 1]).number("need") == 1)
    #expect(try with("limit", 2.5).number("limit") == 2.5)
    #expect(try with("weight", [0, 0]).perModel("weight", count: 2) == [0, 0])
  }

  @Test func valuesWithOneMeaningAreTaken() throws {
    #expect(try with("steps", 3.0).integer("steps") == 3)
    #expect(try with("flag", 1).boolean("flag") && !(try with("flag", 0.0).boolean("flag")))
    #expect(try with("limit", true).number("limit") == 1)
    #expect(try with("keys", "one").strings("keys") == ["one"])
    #expect(try with("anchor", 2.0).value("anchor") == 2)
    #expect(try with("anchor", "models/a").value("anchor") == "models/a")
    // null stands for the default.
    #expect(try with("steps", nil).integer("steps") == 10)
    #expect(try !with("maybe", nil).has("maybe"))
  }

  @Test func onePerModelOrOneForAll() throws {
    #expect(try with("weight", 0.25).perModel("weight", count: 3) == [0.25, 0.25, 0.25])
    #expect(try with("weight", [1, 2, 3]).perModel("weight", count: 3) == [1, 2, 3])
    for list in [[], [1], [1, 2, 3, 4]] as [[JSON]] {
      expectFailure(.parameter, "'weight' of example has \(list.count) values for 3 models") {
        _ = try with("weight", .array(list)).perModel("weight", count: 3)
      }
    }
    // Only for parameters that say so.
    expectFailure(.parameter, "'limit'") { _ = try with("limit", [1, 2]) }
  }

  @Test func jsonHasAllValuesInTheOrderOfTheSchema() throws {
    let p = try parameters(["mode": "good", "need": 1])
    #expect(
      p.json == [
        "need": 1.0, "weight": 1.0, "steps": 10, "limit": 0.5, "flag": false, "mode": "good", "keys": [], "anchor": 0,
        "on_non_finite": "error",
      ])
  }

  @Test func vectorsAreOneListOrOnePerModel() throws {
    #expect(try parameters(["need": 1]).vectors("d", count: 3).isEmpty)
    #expect(try with("d", .null).vectors("d", count: 3).isEmpty)
    #expect(try with("d", [1, 2.5]).vectors("d", count: 2) == [[1, 2.5], [1, 2.5]])
    #expect(try with("d", [[1, 2], nil]).vectors("d", count: 2) == [[1, 2], nil])
    #expect(try with("d", [nil, nil]).vectors("d", count: 2) == [nil, nil])
    let three = try with("d", [[1], [2], nil])
    expectFailure(.parameter, "'d'", "3 lists", "2 models") { _ = try three.vectors("d", count: 2) }
    for wrong in [5, "x", [1, "x"], [[1], 2], [[1, nil]], [[[1]]], ["a": 1]] as [JSON] {
      expectFailure(.parameter, "'d'", "per model") { _ = try with("d", wrong) }
    }
  }

  @Test func otherSpellingsOfAChoiceAreTaken() throws {
    for (given, name) in [
      (true, "l1"), (false, "none"), ("true", "l1"), ("false", "none"), ("taxicab", "l1"), ("l1", "l1"), ("none", "none"),
    ] as [(JSON, String)] {
      let parameters = try with("rescale", given)
      #expect(parameters.choice("rescale") == name && parameters.value("rescale") == .string(name))
    }
    for wrong in [1, 0, "True", "l2", ["l1"]] as [JSON] {
      expectFailure(.parameter, "'rescale'", "not one of l1, none") { _ = try with("rescale", wrong) }
    }
    // Only for choices that say so.
    for flag in [true, false] {
      expectFailure(.parameter, "'mode'", "not one of fast, good") { _ = try with("mode", .bool(flag)) }
    }
  }

  @Test func whatWasGivenIsToldFromDefaults() throws {
    let p = try parameters(["need": 0.5, "steps": 10, "maybe": nil, "limit": nil])
    // Given, even where it says what the default says; null stands for the default, and is not given.
    #expect(p.isGiven("need") && p.isGiven("steps"))
    #expect(!p.isGiven("maybe") && !p.isGiven("limit") && !p.isGiven("weight") && !p.isGiven("no such parameter"))
    #expect(p.integer("steps") == 10 && p.number("limit") == 0.5)
  }
}
