import Checkpoints
import JSON
import Platform
import TensorKernels

/// One tensor of the output, before it is decided what becomes of it: what its sources call it.
struct OutputTensor {
  let name: String
  /// In the input that gives the names, and its position among the tensors there.
  let record: TensorRecord
  let index: Int
  /// Index of that input.
  let owner: Int
  /// Per source of the slice, its name there; nil: the record's own everywhere.
  var stored: [String]?
  let storedInBase: String?
  let slice: PlanInputs.Slice
  /// Of its layer in the slice, from 0 to 1; 0 outside the layers.
  let position: Double

  /// What the slice's source at a place calls it.
  func stored(_ source: Int) -> String { stored?[source] ?? record.name }
}

/// The stack of one module, as the plan shows it.
struct PlannedStack {
  let module: String?
  /// The stack's name in the output; "" where the module has no layers.
  let name: String
  /// Per layer of the output: the input that gives the names, and its layer.
  let layers: [(input: Int, layer: Int)]
  let isRestacked: Bool
}

/// Lists the tensors of the output, module by module and slice by slice, renumbering layers as they are stacked.
struct OutputTensors {
  private let opened: PlanInputs
  private var parts: [Int: ModelParts] = [:]
  private(set) var tensors: [OutputTensor] = []
  private(set) var stacks: [PlannedStack] = []
  private(set) var warnings: [String] = []
  /// Tensors of sources that no output has: the input, and the output's name they would have.
  private(set) var extras: [(input: Int, record: TensorRecord, name: String)] = []
  /// Of modules that the recipe does not list.
  private(set) var unlisted: [(input: Int, record: TensorRecord)] = []
  /// What restacking changes in the donor's config.
  private(set) var configChanges: [ConfigLayers.Change] = []
  private var configs: [Int: JSON] = [:]

  init(_ opened: PlanInputs) throws(Failure) {
    self.opened = opened
    if opened.modules.count == 1, opened.modules[0].name == nil, opened.modules[0].isWhole {
      whole(opened.modules[0].slices[0], names: nil)
      describeWhole()
      return
    }
    for module in opened.modules { try add(module) }
    try listUnlisted()
  }

  // MARK: - Whole models

  /// All tensors of a slice of whole models, or those with these names.
  private mutating func whole(_ slice: PlanInputs.Slice, names wanted: Set<String>?) {
    let owner = slice.names.input
    let source = opened.inputs[owner].checkpoint
    let index = modelParts(owner).index
    for place in source.positionsInFiles {
      let record = source.tensors[place]
      guard wanted?.contains(record.name) ?? true else { continue }
      tensors.append(
        OutputTensor(
          name: record.name, record: record, index: place, owner: owner, storedInBase: record.name, slice: slice,
          position: index.position(record.name)))
    }
    var seen: Set<String> = []
    for model in slice.sources where model.input != owner {
      let others = opened.inputs[model.input].checkpoint.tensors
      for place in others.indices where source.index(of: others[place].name, near: place) == nil {
        let record = others[place]
        if let wanted, !wanted.contains(record.name) { continue }
        if seen.insert(record.name).inserted { extras.append((model.input, record, record.name)) }
      }
    }
  }

  private mutating func describeWhole() {
    let owner = opened.modules[0].slices[0].names.input
    let found = modelParts(owner)
    for part in found.parts where part.depth > 0 {
      stacks.append(
        PlannedStack(module: nil, name: part.stack, layers: (0..<part.depth).map { (owner, $0) }, isRestacked: false))
    }
    checkCounts(owner)
  }

  // MARK: - Modules and slices

  private mutating func add(_ module: PlanInputs.Module) throws(Failure) {
    let isOnly = opened.modules.count == 1
    if module.isWhole {
      let owner = module.slices[0].names.input
      let found = modelParts(owner)
      let part = found.parts[try found.part(module.name, isOnly: isOnly)]
      whole(module.slices[0], names: Set(part.layers.joined() + part.others))
      stacks.append(
        PlannedStack(module: module.name, name: part.stack, layers: (0..<part.depth).map { (owner, $0) }, isRestacked: false))
      return
    }
    var layers: [(input: Int, layer: Int)] = []
    var first: ModelParts.Part?
    for (number, slice) in module.slices.enumerated() {
      let places = try slice.sources.map { (source) throws(Failure) in try self.part(source, module, isOnly, slice) }
      let base = try slice.base.map { (source) throws(Failure) in try self.part(source, module, isOnly, slice) }
      let owner = try part(slice.names, module, isOnly, slice)
      let output = first ?? owner
      first = output
      if number == 0 { outside(slice, owner.others.filter(ModelParts.isBefore)) }
      let range = slice.names.layers!
      for i in 0..<range.count {
        let layer = range.lowerBound + i
        let own = output.beginning(layers.count)
        let beginnings = zip(places, slice.sources).map { $0.beginning($1.layers!.lowerBound + i) }
        let below = base.map { $0.beginning(slice.base!.layers!.lowerBound + i) }
        for name in owner.layers[layer] {
          let rest = owner.rest(of: name)
          tensors.append(
            OutputTensor(
              name: own + rest, record: record(name, slice.names.input), index: index(name, slice.names.input),
              owner: slice.names.input, stored: beginnings.map { $0 + rest }, storedInBase: below.map { $0 + rest },
              slice: slice, position: LayerIndex.position(i, of: range.count)))
        }
        for (place, source) in zip(places, slice.sources) where source.input != slice.names.input {
          let known = Set(owner.layers[layer].map { owner.rest(of: $0) })
          for name in place.layers[source.layers!.lowerBound + i] {
            let rest = place.rest(of: name)
            if !known.contains(rest) { extras.append((source.input, record(name, source.input), own + rest)) }
          }
        }
        layers.append((slice.names.input, layer))
      }
      if number == module.slices.count - 1 { outside(slice, owner.others.filter { !ModelParts.isBefore($0) }) }
    }
    stacks.append(PlannedStack(module: module.name, name: first?.stack ?? "", layers: layers, isRestacked: true))
    changeConfig(module, layers, isOnly)
  }

  /// Tensors outside the layers, merged from a slice's sources.
  private mutating func outside(_ slice: PlanInputs.Slice, _ names: [String]) {
    for name in names {
      tensors.append(
        OutputTensor(
          name: name, record: record(name, slice.names.input), index: index(name, slice.names.input), owner: slice.names.input,
          storedInBase: name, slice: slice, position: 0))
    }
  }

  /// The part of a source that a module means, with the layers that the slice takes.
  private mutating func part(
    _ source: PlanInputs.Source, _ module: PlanInputs.Module, _ isOnly: Bool, _ slice: PlanInputs.Slice
  ) throws(Failure) -> ModelParts.Part {
    checkCounts(source.input)
    let found = modelParts(source.input)
    let part = found.parts[try found.part(module.name, isOnly: isOnly)]
    guard let range = source.layers, range.upperBound <= part.depth else {
      let what = part.depth == 0 ? "in which no layers were found" : "which has \(part.depth) layers (\(part.stack).0 and on)"
      throw Failure(
        .recipe,
        "\(slice.place) takes the layers \(source.layers ?? 0..<0) of \(opened.inputs[source.input].path), \(what): correct layer_range"
      )
    }
    return part
  }

  private func record(_ name: String, _ input: Int) -> TensorRecord {
    opened.inputs[input].checkpoint.tensors[index(name, input)]
  }

  private func index(_ name: String, _ input: Int) -> Int { opened.inputs[input].checkpoint.index(of: name)! }

  /// Tensors of the input that gives the names, in parts that no module of the recipe means. None may be meant by two.
  private mutating func listUnlisted() throws(Failure) {
    let owner = opened.names
    let checkpoint = opened.inputs[owner].checkpoint
    let found = modelParts(owner)
    var taken: [Int: String] = [:]
    for module in opened.modules {
      guard let part = try? found.part(module.name, isOnly: opened.modules.count == 1) else { continue }
      if let other = taken.updateValue(module.name ?? "", forKey: part) {
        throw Failure(
          .recipe,
          "modules.\(other) and modules.\(module.name ?? "") are both '\(found.parts[part].root)' of \(checkpoint.path): keep one of them"
        )
      }
    }
    for part in found.parts.indices where taken[part] == nil {
      let names = found.parts[part].layers.joined() + found.parts[part].others
      unlisted += names.map { (owner, checkpoint.tensor(named: $0)!) }
      warnings.append(
        "\(names.count) tensors of '\(found.parts[part].root)' are in no module of the recipe: copied from \(checkpoint.path)")
    }
  }

  // MARK: - Configs

  private mutating func modelParts(_ input: Int) -> ModelParts {
    if let known = parts[input] { return known }
    let found = ModelParts(opened.inputs[input].checkpoint, counts: ConfigLayers.counts(config(input)).map(\.count))
    parts[input] = found
    return found
  }

  /// The config of an input; null where it has none that can be read.
  private mutating func config(_ input: Int) -> JSON {
    if let known = configs[input] { return known }
    var found = JSON.null
    if let folder = opened.inputs[input].checkpoint.folder, let bytes = try? FileSystem.read(folder + "/config.json") {
      found = (try? JSON.parse(bytes, source: folder)) ?? .null
    }
    configs[input] = found
    return found
  }

  /// A count in the config that the names contradict.
  private mutating func checkCounts(_ input: Int) {
    let counts = ConfigLayers.counts(config(input))
    let found = modelParts(input)
    guard let first = counts.first, found.parts[found.main].depth > 0 else { return }
    let depth = found.parts[found.main].depth
    let further = config(input)["num_nextn_predict_layers"]?.int ?? 0
    guard !counts.contains(where: { $0.count == depth || $0.count + further == depth }) else { return }
    let text =
      "config.json of \(opened.inputs[input].path) has \(first.path.joined(separator: ".")) = \(first.count), but the tensors have "
      + "\(depth) layers (\(found.parts[found.main].stack)): correct one of them"
    if !warnings.contains(text) { warnings.append(text) }
  }

  private mutating func changeConfig(
    _ module: PlanInputs.Module, _ layers: [(input: Int, layer: Int)], _ isOnly: Bool
  ) {
    let donor = opened.donor
    let donorConfig = config(donor)
    let found = modelParts(donor)
    guard donorConfig.members != nil, let index = try? found.part(module.name, isOnly: isOnly) else { return }
    let part = found.parts[index]
    let kind = part.kind ?? (index == found.main ? .text : nil)
    let sources = layers.map { (config: Optional(config($0.input)), layer: $0.layer) }
    let changes = ConfigLayers.changes(donorConfig, depth: part.depth, layers: sources) { path in
      let kinds = path.compactMap { ModelParts.Kind($0) }
      return found.parts.count == 1 || kinds.isEmpty && kind == .text || kinds.contains { $0 == kind }
    }
    configChanges += changes
    let states = ConfigLayers.counts(donorConfig).contains { $0.count == part.depth }
    if !states {
      warnings.append(
        "config.json of \(opened.inputs[donor].path) states no count of \(part.depth) layers, so it is left as it is: correct the "
          + "output's for \(layers.count) layers")
    }
  }
}
