import JSON
import Platform
import Testing

@testable import MergeEngine

@Suite struct PlannedVocabularyTests {
  @Test(
    arguments: [
      ("model.embed_tokens.weight", true), ("lm_head.weight", true), ("lm_head.bias", true), ("transformer.wte.weight", true),
      ("bert.embeddings.word_embeddings.weight", true), ("bert.embeddings.position_embeddings.weight", false),
      ("transformer.wpe.weight", false), ("model.embed_positions.weight", false), ("lm_head", false), ("weight", false),
      ("model.layers.0.mlp.up_proj.weight", false), ("model.embed_tokens.weight.absmax", false),
    ])
  func knowsEmbeddingsAndHeadsByName(name: String, isKnown: Bool) {
    #expect(PlannedVocabulary.isKnown(name) == isKnown)
  }

  @Test func aMergeHasTheOutputsRows() throws {
    let family = try Family(models: 1)
    let height = Family.large[0]
    let columns = Family.large[1]
    let vocabulary: JSON = [
      "size": .int(height + 2), "padding": 1,
      "rows": .object([.init(key: family.folder("model-0"), value: [[0, 1, .int(height - 1)]])]),
      "fill": [["row": .int(height - 1), "count": 2, "from": [[.string(family.folder("base")), 0]]]],
    ]
    let recipe = family.recipe("linear", adding: [.init(key: "vocabulary", value: vocabulary)])
    let job = try family.merge(recipe, to: "out")
    let plan = try JSON.parse(job.planText, source: "plan")
    #expect(plan["vocabulary"]?["tensors"]?.array == ["embed.weight"])
    let merged = try floats(of: "embed.weight", in: family.folder("out"))
    let model = try floats(of: "embed.weight", in: family.folder("model-0"))
    let base = try floats(of: "embed.weight", in: family.folder("base"))
    let rows = Array(model[columns...]) + base[..<(2 * columns)]
    #expect(Array(merged[..<rows.count]) == rows)
    for column in stride(from: 0, to: columns, by: 13) {
      let mean = stride(from: column, to: rows.count, by: columns).reduce(0.0) { $0 + Double(rows[$1]) } / Double(height + 1)
      #expect(merged[rows.count + column] == Float(mean))
    }
  }
}
