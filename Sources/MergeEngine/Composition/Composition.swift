import JSON
import MergeMethods
import Platform

/// What a recipe merges, in one form for `models`, `slices` and `modules`: modules of slices of sources.
///
/// `models` is one module with one slice that takes its sources whole; `slices` is one module; `modules` has either in each.
struct Composition {
  typealias Settings = [(name: String, setting: Setting)]

  /// A model, or some of its layers.
  struct Source {
    let model: Recipe.Model
    /// nil: the whole model.
    let layers: Range<Int>?
  }

  /// Layers of the output, each made of the layers of all sources that stand at the same place.
  struct Slice {
    /// Where it stands in the recipe, for messages: "slices[2]".
    let place: String
    let sources: [Source]
    /// Its own base; nil: the recipe's.
    let base: String?
    let parameters: Settings
    /// Does it take whole models?
    var isWhole: Bool { sources.allSatisfy { $0.layers == nil } }
  }

  /// A part of the output with a stack of layers of its own.
  struct Module {
    /// nil: the recipe has no modules, so it is all of the model.
    let name: String?
    let slices: [Slice]
    let parameters: Settings
  }

  let modules: [Module]

  var sources: [Source] { modules.flatMap { $0.slices.flatMap(\.sources) } }
}

/// Reads a composition from a recipe's JSON.
struct CompositionReader {
  let schema: MethodSchema
  let strict: Bool
  /// Statistics of all models that have none of their own.
  let statistics: String?
  private(set) var warnings: [String] = []

  init(schema: MethodSchema, strict: Bool, statistics: String?) {
    (self.schema, self.strict, self.statistics) = (schema, strict, statistics)
  }

  mutating func read(_ json: JSON) throws(Failure) -> Composition {
    let given = ["models", "slices", "modules"].filter { json[$0] != nil && !isEmpty(json[$0]!) }
    guard let kind = given.first else {
      throw Failure(.recipe, "the recipe has no 'models': list at least one {model: PATH}, or give slices or modules")
    }
    guard given.count == 1 else {
      throw Failure(.recipe, "the recipe has \(given.joined(separator: " and ")): give exactly one of them")
    }
    guard kind == "modules" else { return Composition(modules: [try module(json, name: nil, place: "")]) }
    guard let members = json["modules"]?.members else {
      throw Failure(.recipe, "'modules' must be an object of names, each with models or slices")
    }
    var modules: [Composition.Module] = []
    for member in members {
      let place = "modules.\(member.key)"
      try refuseUnknown(member.value, ["models", "slices", "parameters"], place)
      modules.append(try module(member.value, name: member.key, place: place + "."))
    }
    return Composition(modules: modules)
  }

  /// An object with models or slices.
  private mutating func module(_ json: JSON, name: String?, place: String) throws(Failure) -> Composition.Module {
    let given = ["models", "slices"].filter { json[$0] != nil && !isEmpty(json[$0]!) }
    guard given.count == 1, let list = json[given[0]]?.array else {
      throw Failure(.recipe, "\(name.map { "modules.\($0)" } ?? "the recipe") needs a list, either of models or of slices")
    }
    let own = name == nil ? [] : try settings(json["parameters"], place + "parameters")
    if given[0] == "models" {
      var sources: [Composition.Source] = []
      for (i, entry) in list.enumerated() {
        sources.append(Composition.Source(model: try model(entry, "\(place)models[\(i)]", []), layers: nil))
      }
      let slice = Composition.Slice(place: "\(place)models", sources: sources, base: nil, parameters: [])
      return Composition.Module(name: name, slices: [slice], parameters: own)
    }
    var slices: [Composition.Slice] = []
    for (i, entry) in list.enumerated() { slices.append(try slice(entry, "\(place)slices[\(i)]")) }
    guard slices.contains(where: { !$0.sources[0].layers!.isEmpty }) else {
      throw Failure(.recipe, "\(place)slices have no layers: give at least one layer_range that is not empty")
    }
    return Composition.Module(name: name, slices: slices, parameters: own)
  }

  private mutating func slice(_ json: JSON, _ place: String) throws(Failure) -> Composition.Slice {
    guard json.members != nil, let list = json["sources"]?.array, !list.isEmpty else {
      throw Failure(.recipe, "\(place) has no 'sources': list at least one {model: PATH, layer_range: [0, 8]}")
    }
    try refuseUnknown(json, ["sources", "base_model", "parameters", "residual_weight"], place)
    if let value = json["residual_weight"], !value.isNull {
      warnings.append("\(place) has a residual_weight, which has no effect, as in mergekit")
    }
    var sources: [Composition.Source] = []
    for (i, entry) in list.enumerated() {
      let here = "\(place).sources[\(i)]"
      let range = try layers(entry["layer_range"], here)
      sources.append(Composition.Source(model: try model(entry, here, ["layer_range"]), layers: range))
    }
    if let odd = sources.first(where: { $0.layers!.count != sources[0].layers!.count }) {
      throw Failure(
        .recipe,
        "\(place) has sources of \(sources[0].layers!.count) and of \(odd.layers!.count) layers: give ranges of equal length")
    }
    let base = json["base_model"]?.unlessNull
    return Composition.Slice(
      place: place, sources: sources, base: try base.map { (json) throws(Failure) in try Recipe.reference(json) },
      parameters: try settings(json["parameters"], place + ".parameters"))
  }

  /// [first, end): the end is not taken.
  private func layers(_ json: JSON?, _ place: String) throws(Failure) -> Range<Int> {
    guard let pair = json?.array, pair.count == 2, let first = pair[0].int, let end = pair[1].int else {
      throw Failure(.recipe, "\(place) has no 'layer_range': give the first layer and the one after the last, such as [0, 8]")
    }
    guard first >= 0, first <= end else {
      throw Failure(.recipe, "\(place) has the layer_range [\(first), \(end)]: it must not begin below 0 or after its end")
    }
    return first..<end
  }

  /// - Parameter further: keys that are read elsewhere.
  private mutating func model(_ entry: JSON, _ place: String, _ further: [String]) throws(Failure) -> Recipe.Model {
    let path = try Recipe.reference(entry.members != nil ? entry["model"] ?? .null : entry)
    try refuseUnknown(entry, ["model", "parameters", "statistics"] + further, place)
    let settings = try settings(entry["parameters"], "\(place).parameters")
    for (name, _) in settings where schema.parameter(name)?.perModel == false {
      warnings.append("\(place) sets '\(name)', which is no per-model parameter: move it to the recipe's 'parameters'")
    }
    if entry["statistics"] != nil, schema.parameter("statistics") == nil {
      warnings.append("\(place) has statistics, of which \(schema.name) makes no use")
    }
    let own = try Recipe.statistics(in: entry, place)
    return Recipe.Model(path: path, statistics: own ?? statistics, parameters: settings)
  }

  private mutating func settings(_ json: JSON?, _ place: String) throws(Failure) -> Composition.Settings {
    try Recipe.settings(json, place, schema, strict, &warnings)
  }

  private mutating func refuseUnknown(_ json: JSON, _ known: [String], _ place: String) throws(Failure) {
    for member in json.members ?? [] where !known.contains(member.key) {
      let hint = Suggestion.nearest(to: member.key, among: known).map { ": did you mean '\($0)'?" } ?? ""
      let text = "\(place) has the unknown key '\(member.key)', which has no effect\(hint)"
      if strict { throw Failure(.recipe, text) }
      warnings.append(text)
    }
  }

  private func isEmpty(_ json: JSON) -> Bool {
    json.isNull || json.array?.isEmpty == true || json.members?.isEmpty == true
  }
}
