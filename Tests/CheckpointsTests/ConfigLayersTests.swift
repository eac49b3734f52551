import Checkpoints
import JSON
import Testing

@Suite struct ConfigLayersTests {
  private func changes(_ config: JSON, depth: Int, layers: [Int]) -> [ConfigLayers.Change] {
    ConfigLayers.changes(config, depth: depth, layers: layers.map { (config: nil, layer: $0) })
  }

  @Test func countsOfTheTopComeFirstThenTheTexts() {
    let config: JSON = [
      "vision_config": ["depth": 24], "text_config": ["num_hidden_layers": 32], "n_layer": 3, "other": ["n_layer": 9],
    ]
    #expect(ConfigLayers.counts(config).map(\.count) == [3, 32, 24])
    #expect(ConfigLayers.counts(config)[1].path == ["text_config", "num_hidden_layers"])
  }

  @Test(arguments: ["num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth"])
  func theCountFollowsUnderEachOfItsNames(key: String) {
    let found = changes(.object([.init(key: key, value: 4)]), depth: 4, layers: [0, 1, 2, 3, 2, 3])
    #expect(found == [ConfigLayers.Change(path: [key], value: 6)])
    #expect(changes(.object([.init(key: key, value: 5)]), depth: 4, layers: [0]).isEmpty)
  }

  @Test func listsFollowTheLayers() {
    let config: JSON = [
      "n_layer": 3, "layer_types": ["a", "b", "c"], "no_rope_layers": [1, 0, 1], "mlp_only_layers": [0, 2],
      "eos_token_id": [7, 8, 9], "architectures": ["X", "Y", "Z"], "max_window_layers": 3, "sizes": [1, 2],
    ]
    let found = changes(config, depth: 3, layers: [2, 0, 2, 1])
    func value(_ key: String) -> JSON? { found.first { $0.path == [key] }?.value }
    #expect(value("layer_types") == ["c", "a", "c", "b"])
    #expect(value("no_rope_layers") == [1, 1, 1, 0])
    #expect(value("mlp_only_layers") == [0, 1, 2])
    #expect(value("n_layer") == 4 && value("max_window_layers") == 4)
    #expect(found.count == 5)
  }

  @Test func anEntryIsThatOfTheModelTheLayerComesFrom() {
    let config: JSON = ["n_layer": 2, "layer_types": ["a", "b"]]
    let other: JSON = ["n_layer": 3, "layer_types": ["x", "y", "z"]]
    let found = ConfigLayers.changes(config, depth: 2, layers: [(config, 1), (other, 2), (["n_layer": 1], 0)])
    #expect(found.contains(ConfigLayers.Change(path: ["layer_types"], value: ["b", "z", "a"])))
  }

  @Test func theSameStackChangesNothing() {
    #expect(changes(["n_layer": 2, "layer_types": ["a", "b"]], depth: 2, layers: [0, 1]).isEmpty)
  }
}
