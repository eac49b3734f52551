import Checkpoints
import JSON
import Platform

/// A recipe's vocabulary, applied to opened inputs: which tensors it concerns, and their row maps.
///
/// A tensor is indexed by the vocabulary when the recipe names it, or else when the part of its name before ".weight" or ".bias"
/// is one that embeddings and output heads have, and it is as high as the highest of those.
struct PlannedVocabulary {
  static let names: Set = [
    "emb", "embed", "embed_in", "embed_out", "embed_tokens", "embed_tokens_per_layer", "embeddings", "head", "lm_head",
    "output",
    "output_layer", "shared", "tok_embeddings", "tokens_embed", "word_embedding", "word_embeddings", "wte",
  ]

  let vocabulary: Vocabulary
  /// Names of the tensors, in the order of the checkpoint that gives the names.
  let tensors: [String]
  private(set) var warnings: [String] = []
  private let applied: Set<String>
  private let opened: PlanInputs

  init(_ vocabulary: Vocabulary, _ opened: PlanInputs) throws(Failure) {
    self.vocabulary = vocabulary
    self.opened = opened
    let source = opened.inputs[opened.names].checkpoint
    if let named = vocabulary.tensors {
      for name in named {
        guard let record = opened.inputs.lazy.compactMap({ $0.checkpoint.tensor(named: name) }).first else {
          throw Failure(.recipe, "vocabulary.tensors names '\(name)', which no input has: correct the name")
        }
        guard !record.shape.isEmpty, record.dtype.isFloat else {
          throw Failure(.recipe, "vocabulary.tensors names '\(name)', which has no rows of floats: leave it out")
        }
      }
      tensors = named
    } else {
      let known = source.tensors.filter { Self.isKnown($0.name) && (1...2).contains($0.shape.count) && $0.dtype.isFloat }
      let height = known.map { $0.shape[0] }.max() ?? 0
      guard height > 0 else {
        throw Failure(
          .recipe, "no tensor of \(source.path) is known by name as an embedding: name those in vocabulary.tensors")
      }
      tensors = known.filter { $0.shape[0] == height }.map(\.name)
      for record in known where record.shape[0] != height {
        warnings.append(
          "'\(record.name)' has \(record.shape[0]) rows and not the \(height) of '\(tensors[0])', so it is not re-indexed: name it in "
            + "vocabulary.tensors if it should be")
      }
      warnings += Self.lookalikes(source, height)
    }
    applied = Set(tensors)
    warnings += vocabulary.notes
    warnings += try Self.silentConfig(opened.inputs[opened.donor])
    for (model, _) in vocabulary.rows where index(of: model) == nil {
      throw Failure(.recipe, "vocabulary.rows names \(model), which is not one of the recipe's models: list it there")
    }
  }

  /// A config that is carried along, but has no number to rewrite.
  private static func silentConfig(_ donor: Plan.Input) throws(Failure) -> [String] {
    guard let folder = donor.checkpoint.folder, FileSystem.kind(folder + "/config.json") == .file else { return [] }
    let path = folder + "/config.json"
    guard ConfigText.vocabularySize(of: try JSON.parse(try FileSystem.read(path), source: path)) == nil else { return [] }
    return ["\(path) states no vocab_size, so the output's config states none: check what the model's code reads"]
  }

  static func isKnown(_ name: String) -> Bool {
    (name.component(before: "weight") ?? name.component(before: "bias")).map(names.contains) ?? false
  }

  /// Matrices as high as the vocabulary whose names say nothing; a height that is also some width is a coincidence.
  private static func lookalikes(_ source: Checkpoint, _ height: Int) -> [String] {
    guard !source.tensors.contains(where: { $0.shape.count == 2 && $0.shape[1] == height }) else { return [] }
    return source.tensors.filter { $0.shape.count == 2 && $0.shape[0] == height && !isKnown($0.name) }.map {
      "'\($0.name)' has as many rows as the vocabulary, but its name is not known as an embedding's, so it is not re-indexed: name "
        + "all embeddings in vocabulary.tensors if it should be"
    }
  }

  private func index(of model: String) -> Int? { opened.inputs.firstIndex { $0.path == model } }

  func applies(to name: String) -> Bool { applied.contains(name) }

  /// The shape that a stored tensor has once it is re-indexed.
  func shape(_ record: TensorRecord) -> [Int] {
    applies(to: record.name) && !record.shape.isEmpty ? [vocabulary.size] + record.shape.dropFirst() : record.shape
  }

  /// A planned tensor with the output's rows, if the vocabulary concerns it.
  func reindexed(_ tensor: Plan.Tensor) throws(Failure) -> Plan.Tensor {
    guard applies(to: tensor.name) else { return tensor }
    let records = opened.inputs.map { $0.checkpoint.tensor(named: tensor.name) }
    let heights = records.map { $0?.shape.first }
    let paths = opened.inputs.map(\.path)
    var maps: [RowMap] = []
    for input in tensor.inputs {
      if opened.inputs[input].isTaskVector, let base = opened.base, heights[input] != heights[base] {
        throw Failure(
          .shape,
          "'\(tensor.name)' has \(heights[input] ?? 0) rows in the task vector \(paths[input]) but \(heights[base] ?? 0) in its base "
            + "\(paths[base]): a task vector has the base's vocabulary")
      }
      let runs = vocabulary.rows.first { $0.model == paths[input] }?.runs
      let map = try RowMap(
        vocabulary, runs: runs, input: input, tensor: tensor.name, heights: heights, paths: paths, find: index)
      for other in map.inputs where records[other]!.shape.dropFirst() != tensor.shape.dropFirst() {
        throw Failure(
          .shape,
          "'\(tensor.name)' has rows of \(tensor.shape.dropFirst().reduce(1, *)) elements in \(paths[input]) but of "
            + "\(records[other]!.shape.dropFirst().reduce(1, *)) in \(paths[other]): use models of the same width")
      }
      maps.append(map)
    }
    return Plan.Tensor(tensor, shape: [vocabulary.size] + tensor.shape.dropFirst(), rowMaps: maps)
  }

  /// What the plan says of it.
  func json(_ planned: [Plan.Tensor]) -> JSON {
    let paths = opened.inputs.map(\.path)
    var inputs: [JSON] = []
    if let tensor = planned.first(where: { $0.rowMaps != nil }) {
      for (input, map) in zip(tensor.inputs, tensor.rowMaps!) {
        let counts = map.counts(input: input)
        inputs.append([
          "path": .string(paths[input]), "own": .int(counts.own), "filled": .int(counts.filled), "zero": .int(counts.zero),
        ])
      }
    }
    return [
      "size": .int(vocabulary.size), "padding": .int(vocabulary.padding), "tensors": .array(tensors.map { .string($0) }),
      "inputs": .array(inputs),
    ]
  }
}
