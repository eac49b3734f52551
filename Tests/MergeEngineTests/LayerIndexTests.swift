import Testing

@testable import MergeEngine

@Suite struct LayerIndexTests {
  @Test func layersAreTheFirstWholeNumber() {
    #expect(LayerIndex.split("model.layers.12.mlp.experts.3.w")?.stack == "model.layers")
    #expect(LayerIndex.split("model.layers.12.mlp.experts.3.w")?.layer == 12)
    #expect(LayerIndex.split("h.3") ?? ("", 0) == ("h", 3))
    #expect(LayerIndex.split("lm_head.weight") == nil)
    #expect(LayerIndex.split("a.99999999999999999999.b") == nil)
    #expect(LayerIndex.layer("x.1.a") == LayerIndex.layer("x.1.b"))
    #expect(LayerIndex.layer("norm.a") != LayerIndex.layer("norm.b"))
  }

  @Test func positionsRunFromZeroToOne() {
    let index = LayerIndex(names: (0..<5).map { "layers.\($0).w" } + ["vision.0.w", "embed"])
    #expect(index.position("layers.0.w") == 0 && index.position("layers.2.w") == 0.5 && index.position("layers.4.b") == 1)
    #expect(index.position("vision.0.w") == 1)
    #expect(index.position("embed") == 0)
  }

  @Test func aCountOfTheConfigPicksTheNumber() {
    let names = (0..<2).flatMap { block in (0..<6).map { "towers.\(block).layers.\($0).w" } }
    #expect(LayerIndex(names: names).place(names[3])?.stack == "towers")
    let counted = LayerIndex(names: names, counts: [6])
    #expect(counted.place(names[3])?.stack == "towers.0.layers" && counted.place(names[3])?.layer == 3)
    #expect(counted.stacks.map(\.name) == ["towers.0.layers", "towers.1.layers"])
  }

  @Test func aNumberedListIsNoStackOfLayers() {
    let names = (0..<4).flatMap { ["h.\($0).a", "h.\($0).b"] } + ["score.0.weight", "score.2.weight"]
    let stacks = LayerIndex(names: names).stacks
    #expect(stacks.filter(\.isLayered).map(\.name) == ["h"])
    #expect(stacks.first { $0.name == "score" }?.depth == 3)
  }
}

@Suite struct PartitionTests {
  @Test(arguments: [0, 1, 65535, 65536, 65537, 1 << 24, 1 << 30], [1, 3, 1000, 70_000])
  func stretchesCoverTheTensorOnce(count: Int, granule: Int) {
    let whole = count / granule * granule
    let partition = Partition(count: whole, granule: granule)
    #expect(partition.stretches <= Partition.maximumStretches && partition.stretches >= 1)
    var next = 0
    for stretch in 0..<partition.stretches {
      let range = partition.range(stretch)
      #expect(range.lowerBound == next && range.lowerBound % granule == 0)
      next = range.upperBound
    }
    #expect(next == whole)
  }

  @Test func blocksFollowTheMemoryInWholeChunksOrRows() {
    let partition = Partition(count: 1 << 20, granule: 1)
    #expect(partition.block(bytesPerElement: 10, budget: .max / 2) == Partition.unit)
    #expect(partition.block(bytesPerElement: 10, budget: 50_000) == 4096)
    #expect(partition.block(bytesPerElement: 10, budget: 1) == 1024)
    let rows = Partition(count: 3000 * 100, granule: 3000)
    #expect(rows.block(bytesPerElement: 10, budget: 100_000) == 9000)
    #expect(rows.block(bytesPerElement: 10, budget: 1) == 3000)
  }
}
