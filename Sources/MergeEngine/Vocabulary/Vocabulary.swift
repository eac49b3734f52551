import JSON
import Platform

/// The recipe's `vocabulary`: which row of whose embedding is which row of the output's. Plain JSON, so that it can be written
/// without any tokenizer library (docs/recipes.md); the Python package makes it from `tokenizer_source` and `tokenizer`.
struct Vocabulary {
  /// Consecutive rows of a model: output rows from `output` on are its rows from `stored` on.
  struct Run: Equatable {
    let output: Int
    let stored: Int
    let count: Int
  }

  /// What models without a row of their own get: the mean of these rows, each list's next row for the next output row. One is
  /// that row, none is zeros.
  struct Fill: Equatable {
    let output: Int
    let count: Int
    let from: [(model: String, row: Int)]
    /// Also for models that have a row of their own.
    let isForced: Bool

    static func == (a: Fill, b: Fill) -> Bool {
      a.output == b.output && a.count == b.count && a.isForced == b.isForced && a.from.elementsEqual(b.from, by: ==)
    }
  }

  /// Rows of every output embedding, padding included.
  let size: Int
  /// So many rows at the end are the mean of the rows before them.
  let padding: Int
  /// Names of the tensors whose rows these are; nil: `VocabularyTensors` finds them.
  let tensors: [String]?
  /// By model reference, ordered by output row. A model that is not named keeps its rows in their places.
  let rows: [(model: String, runs: [Run])]
  /// Ordered by output row.
  let fills: [Fill]
  /// A folder with tokenizer files that are written in place of the donor's.
  let files: String?

  /// What its author has to say of it; the plan's warnings.
  let notes: [String]
  /// As given, but for the folder, which may be another one tomorrow.
  let json: JSON

  private static let keys = ["size", "padding", "tensors", "rows", "fill", "files", "notes"]

  /// The vocabulary of a recipe; nil: embeddings are merged as they are stored.
  static func section(of recipe: JSON) throws(Failure) -> Vocabulary? {
    if let section = optional(recipe["vocabulary"]) { return try Vocabulary(section) }
    if let key = ["tokenizer_source", "tokenizer"].first(where: { optional(recipe[$0]) != nil }) {
      throw Failure(
        .recipe,
        "the recipe uses '\(key)', for which the Python package reads the tokenizers: run it with the command stockpot or with "
          + "stockpot.merge, or give 'vocabulary' in its place (docs/recipes.md)")
    }
    return nil
  }

  /// A recipe without the vocabulary that was made from its tokenizer section: it would be long, and can be made again.
  static func withoutMade(_ recipe: JSON) -> JSON {
    guard let members = recipe.members, optional(recipe["tokenizer_source"]) ?? optional(recipe["tokenizer"]) != nil else {
      return recipe
    }
    return .object(members.filter { $0.key != "vocabulary" })
  }

  /// - Throws: `.recipe` with the place, for anything that is not of this form or contradicts itself.
  init(_ json: JSON) throws(Failure) {
    guard let members = json.members else { throw Self.wrong("vocabulary", json, "an object with size, rows and fill") }
    for member in members where !Self.keys.contains(member.key) {
      throw Failure(
        .recipe, "vocabulary has the unknown key '\(member.key)': it takes \(Self.keys.joined(separator: ", "))")
    }
    guard let size = json["size"]?.int, size > 0, size < 1 << 40 else {
      throw Self.wrong("vocabulary.size", json["size"] ?? .null, "the number of rows of the output's embeddings")
    }
    self.size = size
    self.json = .object(members.filter { $0.key != "files" })
    notes = json["notes"]?.array?.compactMap(\.string) ?? []
    padding =
      try Self.optional(json["padding"]).map { (value) throws(Failure) in
        guard let count = value.int, (0..<size).contains(count) else {
          throw Self.wrong(
            "vocabulary.padding", value, "how many of the \(size) rows at the end are padding, from 0 to \(size - 1)")
        }
        return count
      } ?? 0
    let real = size - padding
    tensors = try Self.optional(json["tensors"]).map { (value) throws(Failure) in
      let names = value.array?.compactMap(\.string) ?? []
      guard !names.isEmpty, names.count == value.array?.count else {
        throw Self.wrong("vocabulary.tensors", value, "a list of tensor names")
      }
      return names
    }
    files = try Self.optional(json["files"]).map { (value) throws(Failure) in
      guard let path = value.string, !path.isEmpty else {
        throw Self.wrong("vocabulary.files", value, "the path of a folder with tokenizer files")
      }
      return path
    }
    var rows: [(model: String, runs: [Run])] = []
    if let value = Self.optional(json["rows"]) {
      guard let models = value.members else { throw Self.wrong("vocabulary.rows", value, "an object from models to runs") }
      for model in models { rows.append((model.key, try Self.runs(model.value, "vocabulary.rows of \(model.key)", real))) }
    }
    self.rows = rows
    var fills: [Fill] = []
    if let value = Self.optional(json["fill"]) {
      guard let list = value.array else { throw Self.wrong("vocabulary.fill", value, "a list of {row, count, from, force}") }
      fills = try list.enumerated().map { (item) throws(Failure) in try Self.fill(item.element, item.offset, real) }
    }
    self.fills = fills.sorted { $0.output < $1.output }
    for (one, next) in zip(self.fills, self.fills.dropFirst()) where one.output + one.count > next.output {
      throw Failure(.recipe, "vocabulary.fill names row \(next.output) twice: leave one of them out")
    }
  }

  private static func runs(_ json: JSON, _ place: String, _ real: Int) throws(Failure) -> [Run] {
    guard let list = json.array else { throw wrong(place, json, "a list of [output row, stored row, count]") }
    var runs: [Run] = []
    runs.reserveCapacity(list.count)
    for item in list {
      let numbers = item.array?.compactMap(\.int) ?? []
      guard numbers.count == 3, item.array?.count == 3, numbers[2] > 0, numbers[1] >= 0, numbers[1] < 1 << 40 else {
        throw wrong(place, item, "[output row, stored row, count], whole numbers, the count at least 1")
      }
      guard numbers[0] >= 0, numbers[2] <= real, numbers[0] <= real - numbers[2] else {
        throw Failure(
          .recipe,
          "\(place) has the run \(item.serialized(indent: 0)), but the output's rows are 0 to \(real - 1): raise vocabulary.size, or "
            + "shorten the run")
      }
      runs.append(Run(output: numbers[0], stored: numbers[1], count: numbers[2]))
    }
    runs.sort { $0.output < $1.output }
    for (one, next) in zip(runs, runs.dropFirst()) where one.output + one.count > next.output {
      throw Failure(.recipe, "\(place) names output row \(next.output) twice: leave one of the runs out")
    }
    return runs
  }

  private static func fill(_ json: JSON, _ index: Int, _ real: Int) throws(Failure) -> Fill {
    let place = "vocabulary.fill[\(index)]"
    for member in json.members ?? [] where !["row", "count", "from", "force"].contains(member.key) {
      throw Failure(.recipe, "\(place) has the unknown key '\(member.key)': it takes row, count, from, force")
    }
    guard let row = json["row"]?.int, row >= 0 else { throw wrong(place, json, "{row, from}, with the output row") }
    guard let count = json["count"] == nil ? 1 : json["count"]!.int, count > 0 else {
      throw wrong(place + ".count", json["count"]!, "how many rows, at least 1")
    }
    guard count <= real, row <= real - count else {
      throw Failure(
        .recipe, "\(place) goes to output row \(row) and on for \(count), but the output's rows are 0 to \(real - 1)")
    }
    guard let force = json["force"] == nil ? false : json["force"]!.bool else {
      throw wrong(place + ".force", json["force"]!, "true or false")
    }
    guard let list = json["from"]?.array else {
      throw wrong(place, json, "{row, from}, with from a list of [model, row]; an empty list is zeros")
    }
    var from: [(model: String, row: Int)] = []
    for item in list {
      guard let pair = item.array, pair.count == 2, let model = pair[0].string, let row = pair[1].int, row >= 0, row < 1 << 40
      else { throw wrong(place + ".from", item, "[model, row]") }
      from.append((model, row))
    }
    return Fill(output: row, count: count, from: from, isForced: force)
  }

  /// A value that is there and not null. In `isNull ? nil : value` the nil would be JSON's own.
  private static func optional(_ json: JSON?) -> JSON? {
    guard let json, !json.isNull else { return nil }
    return json
  }

  private static func wrong(_ place: String, _ json: JSON, _ wanted: String) -> Failure {
    Failure(.recipe, "\(place) is \(json.serialized(indent: 0).prefix(60)): give \(wanted)")
  }
}
