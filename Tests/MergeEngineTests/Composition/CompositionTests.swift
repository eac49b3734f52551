import JSON
import MergeMethods
import Platform
import Testing

@testable import MergeEngine

/// `models`, `slices` and `modules` of a recipe, in one form.
@Suite struct CompositionTests {
  private func read(
    _ text: String, method: String = "linear", strict: Bool = false, statistics: String? = nil
  ) throws -> (composition: Composition, warnings: [String]) {
    let json = try JSON.parse(Array(text.utf8), source: "recipe")
    var reader = CompositionReader(
      schema: try Registry.method(named: method).schema, strict: strict, statistics: statistics)
    return (try reader.read(json), reader.warnings)
  }

  // MARK: - One form

  @Test func modelsAreOneSliceOfWholeModels() throws {
    let found = try read(#"{"models": [{"model": "a"}, "b", {"model": "c", "parameters": {"weight": 2}}]}"#)
    #expect(found.warnings.isEmpty && found.composition.modules.count == 1)
    let module = found.composition.modules[0]
    #expect(module.name == nil && module.slices.count == 1 && module.parameters.isEmpty)
    let slice = module.slices[0]
    #expect(slice.isWhole && slice.base == nil && slice.place == "models")
    #expect(slice.sources.map(\.model.path) == ["a", "b", "c"])
    #expect(slice.sources.map(\.model.parameters.count) == [0, 0, 1])
    #expect(slice.sources[2].model.parameters[0].setting.value(name: "w", position: 0) == 2)
  }

  @Test func slicesTakeLayersUpToTheirEnd() throws {
    let found = try read(
      #"""
      {"slices": [
        {"sources": [{"model": "a", "layer_range": [0, 3]}, {"model": "b", "layer_range": [5, 8]}], "base_model": "b"},
        {"sources": [{"model": "c", "layer_range": [2, 2]}], "base_model": null, "parameters": {"weight": 0.5}}
      ]}
      """#)
    let slices = found.composition.modules[0].slices
    #expect(slices.map(\.place) == ["slices[0]", "slices[1]"])
    #expect(slices[0].sources.map(\.layers) == [0..<3, 5..<8] && slices[1].sources.map(\.layers) == [2..<2])
    #expect(slices.map(\.base) == ["b", nil] && slices.allSatisfy { !$0.isWhole })
    #expect(slices[0].parameters.isEmpty && slices[1].parameters.map(\.name) == ["weight"])
    #expect(found.composition.sources.map(\.model.path) == ["a", "b", "c"])
  }

  @Test func modulesKeepTheirOrderAndTheirParameters() throws {
    let found = try read(
      #"""
      {"modules": {
        "vision": {"slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]},
        "text": {"models": ["a", "b"], "parameters": {"weight": 3}}
      }}
      """#)
    let modules = found.composition.modules
    #expect(modules.map(\.name) == ["vision", "text"])
    #expect(modules[0].slices[0].place == "modules.vision.slices[0]" && modules[1].slices[0].place == "modules.text.models")
    #expect(!modules[0].slices[0].isWhole && modules[1].slices[0].isWhole)
    #expect(modules[0].parameters.isEmpty && modules[1].parameters.map(\.name) == ["weight"])
  }

  @Test func whatIsEmptyCountsAsMissing() throws {
    let found = try read(#"{"models": ["a"], "slices": [], "modules": {}}"#)
    #expect(found.composition.sources.count == 1 && found.warnings.isEmpty)
    #expect(
      try read(#"{"models": null, "slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]}"#).composition
        .sources.count == 1)
  }

  @Test func aSourcesOwnStatisticsComeBeforeTheRecipes() throws {
    let text =
      #"{"models": [{"model": "a", "statistics": "own"}, {"model": "b"}, {"model": "c", "parameters": {"statistics": "own"}}]}"#
    let method = try #require(Registry.methods.first { $0.schema.parameter("statistics") != nil }).schema.name
    let found = try read(text, method: method, statistics: "common")
    #expect(found.composition.sources.map(\.model.statistics) == ["own", "common", "own"])
    #expect(found.warnings.isEmpty)
    // A method that has no use for them says so.
    #expect(try read(text).warnings.contains { $0.contains("models[0]") && $0.contains("statistics") })
  }

  // MARK: - What has no effect

  static let notes: [(String, [String])] = [
    (#"{"models": [{"model": "a", "wieght": 1}]}"#, ["models[0]", "'wieght'"]),
    (#"{"models": [{"model": "a", "parametres": {}}]}"#, ["models[0]", "did you mean 'parameters'"]),
    (#"{"models": [{"model": "a", "layer_range": [0, 1]}]}"#, ["models[0]", "'layer_range'"]),
    (
      #"{"slices": [{"source": 1, "sources": [{"model": "a", "layer_range": [0, 1]}]}]}"#,
      ["slices[0]", "did you mean 'sources'"]
    ),
    (
      #"{"slices": [{"sources": [{"model": "a", "layer_range": [0, 1], "density": 1}]}]}"#,
      ["slices[0].sources[0]", "'density'"]
    ),
    (#"{"modules": {"x": {"models": ["a"], "base_model": "b"}}}"#, ["modules.x", "'base_model'"]),
    (#"{"models": [{"model": "a", "parameters": {"wait": 1}}]}"#, ["'wait'"]),
  ]

  @Test(arguments: notes.indices) func unknownKeysAreToldOrRefused(number: Int) throws {
    let (text, words) = Self.notes[number]
    let warnings = try read(text).warnings
    #expect(warnings.count == 1)
    let failure = #expect(throws: Failure.self) { try read(text, strict: true) }
    for word in words {
      #expect(warnings.first?.contains(word) == true && failure?.message.contains(word) == true, "\(warnings)")
    }
  }

  @Test func aParameterInTheWrongPlaceIsTold() throws {
    let found = try read(#"{"models": [{"model": "a", "parameters": {"normalize": false}}]}"#)
    #expect(found.warnings.count == 1 && found.warnings[0].contains("models[0]") && found.warnings[0].contains("'normalize'"))
    let residual = #"{"slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}], "residual_weight": 0.5}]}"#
    // mergekit accepts it, so strict does as well.
    #expect(try read(residual, strict: true).warnings.count { $0.contains("slices[0]") && $0.contains("residual_weight") } == 1)
  }

  // MARK: - What is refused

  private static func slice(_ range: String) -> String {
    #"{"slices": [{"sources": [{"model": "a", "layer_range": \#(range)}]}]}"#
  }

  static let refused: [(String, [String])] = [
    ("{}", ["'models'", "slices", "modules"]), (#"{"models": []}"#, ["'models'"]), ("5", ["'models'"]),
    (#"{"models": ["a"], "slices": [1]}"#, ["models", "slices", "exactly one"]),
    (#"{"models": ["a"], "modules": {"x": 1}}"#, ["models", "modules", "exactly one"]),
    (#"{"models": {"model": "a"}}"#, ["list"]), (#"{"models": "a"}"#, ["list"]), (#"{"slices": 5}"#, ["list"]),
    (#"{"modules": ["a"]}"#, ["'modules'", "object"]), (#"{"modules": "a"}"#, ["'modules'", "object"]),
    (#"{"modules": {"x": {}}}"#, ["modules.x", "models", "slices"]), (#"{"modules": {"x": null}}"#, ["modules.x"]),
    (#"{"modules": {"x": {"models": ["a"], "slices": [1]}}}"#, ["modules.x", "either"]),
    (#"{"models": [{"parameters": {}}]}"#, ["model"]), (#"{"models": [5]}"#, ["model"]), (#"{"models": [""]}"#, ["model"]),
    (#"{"models": [null]}"#, ["model"]), (#"{"slices": [5]}"#, ["slices[0]", "'sources'"]),
    (#"{"slices": [{"sources": []}]}"#, ["slices[0]", "'sources'"]),
    (#"{"slices": [{"sources": {"model": "a"}}]}"#, ["slices[0]", "'sources'"]),
    (#"{"slices": [{"sources": ["a"]}]}"#, ["slices[0].sources[0]", "'layer_range'"]),
    (slice("[0]"), ["slices[0].sources[0]", "'layer_range'"]), (slice("[0, 1, 2]"), ["'layer_range'"]),
    (slice("8"), ["'layer_range'"]), (slice("[0, 1.5]"), ["'layer_range'"]), (slice(#"["0", "1"]"#), ["'layer_range'"]),
    (slice("[0, null]"), ["'layer_range'"]), (slice("[-1, 2]"), ["slices[0].sources[0]", "[-1, 2]"]),
    (slice("[3, 2]"), ["slices[0].sources[0]", "[3, 2]"]), (slice("[4, 4]"), ["slices", "layer_range"]),
    (
      #"{"slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}, {"model": "b", "layer_range": [0, 3]}]}]}"#,
      ["slices[0]", "2", "3", "equal length"]
    ),
    (
      #"{"modules": {"x": {"slices": [{"sources": [{"model": "a", "layer_range": [1, 1]}]}]}}}"#,
      ["modules.x.slices", "layer_range"]
    ),
    (#"{"models": [{"model": "a", "parameters": 5}]}"#, ["models[0].parameters", "object"]),
    (#"{"models": [{"model": "a", "parameters": {"weight": []}}]}"#, ["models[0].parameters.weight", "empty"]),
    (#"{"models": [{"model": "a", "statistics": 5}]}"#, ["models[0]", "statistics"]),
    (#"{"slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}], "base_model": 5}]}"#, ["model"]),
  ]

  @Test(arguments: refused.indices) func whatCannotBeIsRefused(number: Int) {
    let (text, words) = Self.refused[number]
    let failure = #expect(throws: Failure.self) { try read(text) }
    for word in words { #expect(failure?.message.contains(word) == true, "\(failure?.message ?? "")") }
  }

  @Test func aRangeUpToTheLastIntegerIsRead() throws {
    let found = try read(Self.slice("[0, 9223372036854775807]"))
    #expect(found.composition.sources[0].layers?.upperBound == .max)
  }

  /// Any value, with keys and values that a recipe has among them.
  private func value(_ generator: inout Generator, depth: Int) -> JSON {
    func draw(_ count: Int) -> Int { min(count - 1, Int((generator.next() + 1) / 2 * Double(count))) }
    let plain: [JSON] = [nil, true, 0, 1, 8, -1, 0.5, "", "a", "base", [0, 2], [1, 3], [2, 0], [], [:]]
    guard depth > 0 else { return plain[draw(plain.count)] }
    let keys = [
      "models", "slices", "modules", "sources", "model", "layer_range", "parameters", "weight", "base_model", "statistics", "x",
    ]
    switch draw(5) {
    case 0: return plain[draw(plain.count)]
    case 1: return .array((0..<draw(3)).map { _ in value(&generator, depth: depth - 1) })
    default:
      let chosen = Set((0...draw(4)).map { _ in keys[draw(keys.count)] }).sorted()
      return .object(chosen.map { .init(key: $0, value: value(&generator, depth: depth - 1)) })
    }
  }

  @Test func whatIsReadHasSourcesAndTheirLayers() throws {
    var generator = Generator(1)
    let schema = try Registry.method(named: "linear").schema
    var readable = 0
    for _ in 0..<5000 {
      let kind = ["models", "slices", "modules"][min(2, Int((generator.next() + 1) * 1.5))]
      let entry = value(&generator, depth: 3)
      let json: JSON = kind == "modules" ? ["modules": ["x": entry]] : .object([.init(key: kind, value: [entry])])
      var reader = CompositionReader(schema: schema, strict: false, statistics: nil)
      do throws(Failure) {
        for slice in try reader.read(json).modules.flatMap(\.slices) {
          #expect(!slice.sources.isEmpty && slice.sources.allSatisfy { !$0.model.path.isEmpty })
          #expect(Set(slice.sources.map { $0.layers?.count ?? -1 }).count == 1)
        }
        readable += 1
      } catch {
        #expect([.recipe, .parameter, .argument].contains(error.status), "\(error)")
      }
    }
    #expect(readable > 50)
  }
}
