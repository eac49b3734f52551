import Checkpoints
import JSON
import Platform
import Synchronization
import TensorKernels
import Testing

@testable import MergeEngine

/// A model of one tensor and an adapter of rank r for it, in files.
struct AdaptedModel {
  let folder = TemporaryFolder()
  let name: String
  let model: Checkpoint
  let adapter: Adapter
  let tensor: AdaptedTensor

  /// - Parameters:
  ///   - weights: W.
  ///   - factors: PEFT's A and B, under the module's name.
  init(_ weights: Stored, _ factors: [Stored], config: [JSON.Member]) throws {
    name = weights.name
    try MergeEngineTests.write([weights], to: folder("model"))
    try FileSystem.makeFolder(folder("lora"))
    try MergeEngineTests.write(factors, to: folder("lora/adapter_model.safetensors"))
    let text = JSON.object([.init(key: "peft_type", value: "LORA")] + config)
    try FileSystem.write(text.serialized(indent: 2), to: folder("lora/adapter_config.json"))
    model = try Checkpoint(path: folder("model"))
    adapter = try Adapter(path: folder("lora"), of: model)
    let record = try #require(model.tensor(named: name))
    let update = try #require(adapter.updates[name])
    tensor = AdaptedTensor(.stored(model, record), shape: record.shape, update, of: adapter.checkpoint)
  }

  func read(_ start: Int, _ count: Int) throws(Failure) -> [Double] {
    var values = [Double](repeating: .nan, count: count + 1)
    let failure: Failure? = values.withUnsafeMutableBufferPointer { buffer in
      do throws(Failure) { try tensor.read(start, count, into: buffer.baseAddress!) } catch { return error }
      return nil
    }
    if let failure { throw failure }
    // Nothing is written behind the end.
    #expect(values[count].isNaN)
    return Array(values[..<count])
  }
}

/// W + s B A, element by element.
@Suite struct AdaptedTensorTests {
  /// Whole numbers from -8 to 8: all sums and products of them are exact.
  private static func whole(_ count: Int, _ seed: UInt64) -> [Float] {
    var generator = Generator(seed)
    return (0..<count).map { _ in Float((generator.next() * 8).rounded()) }
  }

  private static let module = "base_model.model.layers.0.q_proj"

  /// A linear layer's matrix, with A [r, n] and B [m, r].
  private func linear(
    _ m: Int, _ n: Int, rank: Int, dtype: DType = .f32, factors: DType = .f32, config: [JSON.Member] = []
  ) throws -> (AdaptedModel, w: [Float], a: [Float], b: [Float]) {
    let (w, a, b) = (Self.whole(m * n, 1), Self.whole(rank * n, 2), Self.whole(m * rank, 3))
    let standard: [JSON.Member] = [.init(key: "r", value: .int(rank)), .init(key: "lora_alpha", value: .int(2 * rank))]
    let model = try AdaptedModel(
      Stored(name: "layers.0.q_proj.weight", shape: [m, n], values: w, dtype: dtype),
      [
        Stored(name: Self.module + ".lora_A.weight", shape: [rank, n], values: a, dtype: factors),
        Stored(name: Self.module + ".lora_B.weight", shape: [m, rank], values: b, dtype: factors),
      ], config: config.isEmpty ? standard : config)
    return (model, w, a, b)
  }

  private func sum(_ w: [Float], _ a: [Float], _ b: [Float], _ m: Int, _ n: Int, rank: Int, scale: Double) -> [Double] {
    (0..<m * n).map { place in
      let (i, j) = place.quotientAndRemainder(dividingBy: n)
      return Double(w[place]) + scale * (0..<rank).reduce(0.0) { $0 + Double(b[i * rank + $1]) * Double(a[$1 * n + j]) }
    }
  }

  // MARK: - The sum

  @Test(arguments: [
    (1, 1, 1), (1, 9, 1), (9, 1, 2), (4, 8, 3), (5, 7, 1), (13, 20, 4), (3, 5, 5), (8, 33, 2), (2, 3, 11),
  ])
  func itIsTheWeightsPlusTheScaledProduct(m: Int, n: Int, rank: Int) throws {
    let (model, w, a, b) = try linear(m, n, rank: rank)
    let expected = sum(w, a, b, m, n, rank: rank, scale: 2)
    #expect(try model.read(0, m * n) == expected)
    for start in 0..<m * n {
      let count = min(m * n - start, 1 + (7 * start) % (5 * n))
      #expect(try model.read(start, count) == Array(expected[start..<start + count]), "\(count) from \(start)")
    }
    #expect(try model.read(m * n, 0) == [])
  }

  @Test(arguments: [DType.f64, .f32, .f16, .bf16], [DType.f64, .f32, .f16, .bf16])
  func anyFloatTypesAreAdded(dtype: DType, factors: DType) throws {
    let (model, w, a, b) = try linear(6, 11, rank: 3, dtype: dtype, factors: factors)
    #expect(try model.read(0, 66) == sum(w, a, b, 6, 11, rank: 3, scale: 2))
  }

  @Test func factorsOfManyBlocksAreReadWhole() throws {
    // 3 * 40,000 elements of A, where a block has 65,536.
    let (model, w, a, b) = try linear(2, 40_000, rank: 3)
    #expect(try model.read(0, 80_000) == sum(w, a, b, 2, 40_000, rank: 3, scale: 2))
    let (tall, v, c, d) = try linear(40_000, 2, rank: 3)
    #expect(try tall.read(0, 80_000) == sum(v, c, d, 40_000, 2, rank: 3, scale: 2))
  }

  @Test(arguments: [
    ([JSON.Member(key: "lora_alpha", value: 6)], 1.5), ([.init(key: "lora_alpha", value: 0)], 0),
    ([.init(key: "lora_alpha", value: -8.0)], -2),
    ([.init(key: "lora_alpha", value: 6), .init(key: "use_rslora", value: true)], 3),
    ([.init(key: "lora_alpha", value: 6), .init(key: "alpha_pattern", value: ["q_proj": 10])], 2.5),
    ([.init(key: "lora_alpha", value: 6), .init(key: "alpha_pattern", value: ["k_proj": 10])], 1.5),
  ])
  func theConfigSaysTheScale(config: [JSON.Member], scale: Double) throws {
    let (model, w, a, b) = try linear(5, 9, rank: 4, config: [.init(key: "r", value: 4)] + config)
    #expect(try model.read(0, 45) == sum(w, a, b, 5, 9, rank: 4, scale: scale))
  }

  @Test func aRankOfItsOwnCountsForTheScale() throws {
    let config: [JSON.Member] = [
      .init(key: "r", value: 16), .init(key: "lora_alpha", value: 8), .init(key: "rank_pattern", value: ["layers\\.0.*": 2]),
    ]
    let (model, w, a, b) = try linear(5, 9, rank: 2, config: config)
    #expect(try model.read(0, 45) == sum(w, a, b, 5, 9, rank: 2, scale: 4))
  }

  @Test func theSumIsNotRounded() throws {
    let model = try AdaptedModel(
      Stored(name: "q.weight", shape: [1, 1], values: [1], dtype: .bf16),
      [
        Stored(name: "q.lora_A.weight", shape: [1, 1], values: [0x1p-20], dtype: .bf16),
        Stored(name: "q.lora_B.weight", shape: [1, 1], values: [0x1p-20], dtype: .bf16),
      ], config: [.init(key: "r", value: 1), .init(key: "lora_alpha", value: 1)])
    #expect(try model.read(0, 1) == [1 + 0x1p-40])
  }

  @Test func bitsDependOnNoCut() throws {
    let (m, n, rank) = (11, 37, 5)
    var generator = Generator(9)
    let model = try AdaptedModel(
      Stored(name: "q.weight", shape: [m, n], values: generator.floats(m * n)),
      [
        Stored(name: "q.lora_A.weight", shape: [rank, n], values: generator.floats(rank * n)),
        Stored(name: "q.lora_B.weight", shape: [m, rank], values: generator.floats(m * rank)),
      ], config: [.init(key: "r", value: .int(rank)), .init(key: "lora_alpha", value: 0.3)])
    let whole = try model.read(0, m * n)
    for length in [1, 2, 7, 8, 36, 37, 38, 4 * 37, 4 * 37 + 1, 200] {
      var pieces: [Double] = []
      for start in stride(from: 0, to: m * n, by: length) { pieces += try model.read(start, min(length, m * n - start)) }
      #expect(pieces.map(\.bitPattern) == whole.map(\.bitPattern), "\(length)")
    }
  }

  // MARK: - Other layers than linear ones

  @Test func aMatrixWithItsInputsFirstGetsTheTransposedProduct() throws {
    let (inputs, outputs, rank) = (7, 10, 2)
    let (w, a, b) = (Self.whole(inputs * outputs, 1), Self.whole(rank * inputs, 2), Self.whole(outputs * rank, 3))
    let model = try AdaptedModel(
      Stored(name: "h.0.c_fc.weight", shape: [inputs, outputs], values: w),
      [
        Stored(name: "h.0.c_fc.lora_A.weight", shape: [rank, inputs], values: a),
        Stored(name: "h.0.c_fc.lora_B.weight", shape: [outputs, rank], values: b),
      ], config: [.init(key: "r", value: 2), .init(key: "lora_alpha", value: 2), .init(key: "fan_in_fan_out", value: true)])
    let expected = (0..<inputs * outputs).map { place in
      let (input, output) = place.quotientAndRemainder(dividingBy: outputs)
      return Double(w[place])
        + (0..<rank).reduce(0.0) { $0 + Double(b[output * rank + $1]) * Double(a[$1 * inputs + input]) }
    }
    #expect(try model.read(0, expected.count) == expected)
  }

  @Test func anEmbeddingGetsTheTransposedProduct() throws {
    let (tokens, width, rank) = (9, 4, 3)
    let (w, a, b) = (Self.whole(tokens * width, 1), Self.whole(rank * tokens, 2), Self.whole(width * rank, 3))
    let model = try AdaptedModel(
      Stored(name: "embed.weight", shape: [tokens, width], values: w),
      [
        Stored(name: "embed.lora_embedding_A", shape: [rank, tokens], values: a),
        Stored(name: "embed.lora_embedding_B", shape: [width, rank], values: b),
      ], config: [.init(key: "r", value: 3), .init(key: "lora_alpha", value: 3)])
    let expected = (0..<tokens * width).map { place in
      let (token, column) = place.quotientAndRemainder(dividingBy: width)
      return Double(w[place]) + (0..<rank).reduce(0.0) { $0 + Double(a[$1 * tokens + token]) * Double(b[column * rank + $1]) }
    }
    #expect(try model.read(0, expected.count) == expected)
  }

  @Test func aConvolutionsKernelCountsAsColumns() throws {
    let (outputs, inner, rank) = (5, 3 * 2 * 2, 2)
    let (w, a, b) = (Self.whole(outputs * inner, 1), Self.whole(rank * inner, 2), Self.whole(outputs * rank, 3))
    let model = try AdaptedModel(
      Stored(name: "conv.weight", shape: [outputs, 3, 2, 2], values: w),
      [
        Stored(name: "conv.lora_A.weight", shape: [rank, 3, 2, 2], values: a),
        Stored(name: "conv.lora_B.weight", shape: [outputs, rank, 1, 1], values: b),
      ], config: [.init(key: "r", value: 2), .init(key: "lora_alpha", value: 1)])
    #expect(try model.read(0, outputs * inner) == sum(w, a, b, outputs, inner, rank: rank, scale: 0.5))
  }

  // MARK: - Values that are not finite

  @Test func aNaNReachesItsRowOrColumnAlone() throws {
    let (m, n) = (6, 19)
    var (a, b) = (Self.whole(2 * n, 2), Self.whole(m * 2, 3))
    a[17] = .nan
    b[4 * 2 + 1] = .infinity
    let model = try AdaptedModel(
      Stored(name: "q.weight", shape: [m, n], values: Self.whole(m * n, 1)),
      [
        Stored(name: "q.lora_A.weight", shape: [2, n], values: a), Stored(name: "q.lora_B.weight", shape: [m, 2], values: b),
      ], config: [.init(key: "r", value: 2), .init(key: "lora_alpha", value: 1)])
    for (place, value) in try model.read(0, m * n).enumerated() {
      #expect(value.isFinite == (place / n != 4 && place % n != 17), "\(place)")
    }
  }

  // MARK: - What is held

  @Test func releasedFactorsAreReadAgain() throws {
    let (model, w, a, b) = try linear(5, 9, rank: 3)
    let expected = sum(w, a, b, 5, 9, rank: 3, scale: 2)
    model.tensor.release()
    for _ in 0..<3 {
      #expect(try model.read(0, 45) == expected)
      model.tensor.release()
      model.tensor.release()
    }
  }

  @Test func theFactorsAreCountedAsScratch() throws {
    let (model, _, _, _) = try linear(50, 900, rank: 7)
    let update = try #require(model.adapter.updates[model.name])
    let (small, _, _, _) = try linear(50, 900, rank: 1)
    // Both read through the same block; beside it, each holds its factors in binary64.
    #expect(model.tensor.scratchBytes - small.tensor.scratchBytes == (50 + 900) * 6 * 8)
    #expect(model.tensor.scratchBytes > (update.first.count + update.second.count) * 8)
  }

  @Test func workersThatReadAtOnceSeeTheSame() throws {
    let (model, w, a, b) = try linear(64, 200, rank: 4)
    let expected = sum(w, a, b, 64, 200, rank: 4, scale: 2)
    let wrong = Atomic<Int>(0)
    WorkerPool.run(count: 4) { worker in
      for turn in 0..<16 {
        let start = (worker + 4 * turn) * 200
        let found = try? model.read(start, 200)
        if found != Array(expected[start..<start + 200]) { wrong.add(1, ordering: .relaxed) }
      }
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
  }

  @Test func anAdapterThatShrinksMeanwhileIsNamed() throws {
    let (model, _, _, _) = try linear(20, 30, rank: 2)
    try File(path: model.folder("lora/adapter_model.safetensors"), mode: .update).truncate(to: 400)
    for _ in 0..<2 {
      let failure = #expect(throws: Failure.self) { try model.read(0, 10) }
      #expect(failure?.message.contains(model.folder("lora/adapter_model.safetensors")) == true, "\(failure?.message ?? "")")
    }
  }
}
