import JSON
import Platform
import Testing

@testable import Checkpoints

@Suite struct AdapterConfigTests {
  private func config(_ members: [JSON.Member]) throws -> AdapterConfig {
    let folder = try TemporaryFolder()
    let standard: [JSON.Member] = [.init(key: "r", value: 4), .init(key: "lora_alpha", value: 6)]
    let path = folder("adapter_config.json")
    try FileSystem.write(JSON.object(standard + members).serialized(), to: path)
    return try AdapterConfig(path: path)
  }

  @Test func theScaleIsAlphaByRank() throws {
    #expect(try config([]).scale(of: "a.q_proj", rank: 4) == 1.5)
    #expect(try config([.init(key: "use_rslora", value: true)]).scale(of: "a.q_proj", rank: 4) == 3)
    let patterns = try config([
      .init(key: "rank_pattern", value: ["q_proj": 8, "a\\..*": 2]), .init(key: "alpha_pattern", value: ["k_proj": 10]),
    ])
    #expect(try patterns.scale(of: "a.q_proj", rank: 8) == 0.75)
    #expect(try patterns.scale(of: "a.k_proj", rank: 2) == 5)
    #expect(try patterns.scale(of: "b.v_proj", rank: 4) == 1.5)
  }

  @Test(arguments: [(8.0, "8"), (0, "0"), (-4, "-4"), (4.5, "4.5"), (1e19, "1e+19"), (-1e300, "-1e+300")])
  func factorsOfAnotherRankAreRefused(rank: Double, text: String) throws {
    let config = try config([.init(key: "rank_pattern", value: ["q_proj": .double(rank)])])
    let failure = #expect(throws: Failure.self) { try config.scale(of: "a.q_proj", rank: 4) }
    #expect(failure?.status == .format)
    for words in ["a.q_proj", "rank 4", "adapter_config.json says \(text):"] {
      #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
    }
  }
}
