import Checkpoints
import JSON
import Platform

/// Output heads that are the input embedding, stored once: the output has such a tie exactly as the model that gives the names.
///
/// Where that model stores a head and another one ties it, the other's embedding is read for both. Where that model ties it and
/// another one stores a head, the head is left out: written, it would stand beside the tie, and loaders differ in what they
/// take then. A model ties its head when it stores none, has one known embedding, and its config does not deny it.
struct TiedWeights {
  static let heads: Set = ["lm_head", "embed_out", "output_layer", "output", "head"]
  static let embeddings: Set = [
    "emb", "embed", "embed_in", "embed_tokens", "embeddings", "shared", "tok_embeddings", "tokens_embed", "word_embeddings",
    "wte",
  ]

  /// Names of heads that the output has not, because its model ties them.
  private(set) var left: Set<String> = []
  private(set) var warnings: [String] = []

  /// - Parameters:
  ///   - inputs: their checkpoints answer for tied heads afterwards.
  ///   - names: index of the one that gives the names.
  init(_ inputs: inout [Plan.Input], names: Int) throws(Failure) {
    let source = inputs[names].checkpoint
    let sourceHead = Self.head(of: source)
    let sourceDenies = try Self.deniesTie(source)
    let sourceIsTied = sourceHead == nil && Self.embedding(of: source) != nil && !sourceDenies
    for (index, input) in inputs.enumerated() where index != names {
      let own = Self.head(of: input.checkpoint)
      if let sourceHead, own == nil, let embedding = Self.embedding(of: input.checkpoint) {
        guard try !Self.deniesTie(input.checkpoint) else { continue }
        inputs[index].checkpoint = input.checkpoint.answering(to: sourceHead, with: embedding)
        warnings.append(
          "\(input.path) stores no '\(sourceHead)': its head is tied to '\(embedding)', which is read for both")
      } else if sourceIsTied, let own, source.tensor(named: own) == nil {
        left.insert(own)
        warnings.append(
          "\(input.path) stores '\(own)', but \(source.path) ties its head to its embedding: it is left out, and the tie stays as it is"
        )
      }
    }
  }

  /// A head that could be a copy of the embedding: of its shape, unlike a classifier's.
  private static func head(of checkpoint: Checkpoint) -> String? {
    guard let head = name(in: checkpoint, among: heads), let embedding = embedding(of: checkpoint) else { return nil }
    return checkpoint.tensor(named: head)?.shape == checkpoint.tensor(named: embedding)?.shape ? head : nil
  }

  private static func embedding(of checkpoint: Checkpoint) -> String? { name(in: checkpoint, among: embeddings) }

  /// The one matrix of such a name; nil when there is none, or more than one.
  private static func name(in checkpoint: Checkpoint, among known: Set<String>) -> String? {
    let found = checkpoint.tensors.indices.filter { index in
      checkpoint.tensors[index].shape.count == 2
        && checkpoint.tensors[index].name.component(before: "weight").map(known.contains) ?? false
    }
    return found.count == 1 ? checkpoint.tensors[found[0]].name : nil
  }

  /// Does the config say that the head is no copy of the embedding? One that says nothing leaves it to the class of the model.
  private static func deniesTie(_ checkpoint: Checkpoint) throws(Failure) -> Bool {
    guard let path = checkpoint.folder.map({ $0 + "/config.json" }), FileSystem.kind(path) == .file else { return false }
    let config = try JSON.parse(try FileSystem.read(path), source: path)
    let value = config["tie_word_embeddings"] ?? config["text_config"]?["tie_word_embeddings"]
    return value?.bool == false
  }
}
