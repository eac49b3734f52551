import Checkpoints
import Platform
import Testing

@testable import MergeEngine

@Suite struct TiedWeightsTests {
  private let folder = TemporaryFolder()

  private func input(_ name: String, head: Bool, config: String? = nil, headRows: Int = 3) throws -> Plan.Input {
    var tensors = [Stored(name: "embed_tokens.weight", shape: [3, 2], values: [1, 2, 3, 4, 5, 6])]
    if head {
      let values = [Float](repeating: 7, count: headRows * 2)
      tensors.append(Stored(name: "lm_head.weight", shape: [headRows, 2], values: values))
    }
    try write(tensors, to: folder(name))
    if let config { try FileSystem.write(config, to: folder(name) + "/config.json") }
    return Plan.Input(path: name, isBase: false, checkpoint: try Checkpoint(path: folder(name)), parameters: [])
  }

  @Test func aTiedModelAnswersWithItsEmbedding() throws {
    var inputs = [try input("a", head: true), try input("b", head: false, config: "{}")]
    let ties = try TiedWeights(&inputs, names: 0)
    #expect(inputs[1].checkpoint.tensor(named: "lm_head.weight") == inputs[1].checkpoint.tensor(named: "embed_tokens.weight"))
    #expect(inputs[1].checkpoint.tensors.count == 1)
    #expect(inputs[1].checkpoint.index(of: "embed_tokens.weight") == 0)
    #expect(ties.warnings.count == 1)
    #expect(ties.left.isEmpty)
  }

  @Test func aConfigThatDeniesTheTieIsBelieved() throws {
    var inputs = [try input("a", head: true), try input("b", head: false, config: #"{"tie_word_embeddings": false}"#)]
    let ties = try TiedWeights(&inputs, names: 0)
    #expect(inputs[1].checkpoint.tensor(named: "lm_head.weight") == nil)
    #expect(ties.warnings.isEmpty)
  }

  @Test func theTieOfTheNamesStays() throws {
    var inputs = [try input("a", head: false), try input("b", head: true)]
    #expect(try TiedWeights(&inputs, names: 0).left == ["lm_head.weight"])
    var denied = [try input("c", head: false, config: #"{"tie_word_embeddings": false}"#), inputs[1]]
    #expect(try TiedWeights(&denied, names: 0).left.isEmpty)
  }

  @Test func aHeadOfAnotherShapeIsNoEmbedding() throws {
    var inputs = [try input("a", head: true, headRows: 2), try input("b", head: false)]
    let ties = try TiedWeights(&inputs, names: 0)
    #expect(inputs[1].checkpoint.tensor(named: "lm_head.weight") == nil)
    #expect(ties.warnings.isEmpty)
  }
}
