import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TallMaskTests {
  private func merge(
    _ parameters: JSON, _ models: [[Double]] = Example.models, base: [Double] = Example.base, _ runner: Runner = Runner()
  ) throws -> (merged: Merged, masks: [[Bool]], bytes: [[UInt8]]) {
    let method = try make("tall_mask", parameters)
    let tensor = TensorContext(name: "w", shape: [base.count], modelCount: models.count, hasBase: true)
    let store = ArtifactStore(method.artifacts(tensor, dtype: runner.dtype).map(\.byteCount))
    let merged = try runner.merge(method, models, base: base, artifacts: store)
    // docs/masks.md: bit j of byte b is element 8 b + j.
    let masks = store.bytes.map { bytes in base.indices.map { bytes[$0 / 8] >> UInt8($0 % 8) & 1 == 1 } }
    return (merged, masks, store.bytes)
  }

  @Test func theExampleHasItsCounts() throws {
    let (merged, masks, _) = try merge([:])
    #expect((0..<12).map { i in masks.filter { $0[i] }.count } == [2, 2, 1, 2, 2, 2, 3, 2, 2, 3, 2, 3])
    #expect(merged.decision.numbers("mask_kept") == masks.map { Double($0.filter { $0 }.count) / 12 })
    #expect(distance(merged.values, zip(Example.base, Plain.sum(Example.deltas)).map { $0 + $1 }) <= 1e-15)
    #expect(merged.sweeps == 1)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func masksAreThoseOfAPlainReference(dtype: DType) throws {
    var random = SplitMix64(state: 241)
    for count in [1, 8, 9, 1023, 1025, longTensor] {
      let d = (0..<3).map { _ in quarters(count, &random) }
      let tau = Plain.sum(d)
      let (_, masks, bytes) = try merge(
        ["tall_mask_lambda": [0.25, 0.5, 1]], d, base: d[0].map { _ in 0 }, Runner(dtype: dtype))
      for (k, lambda) in [0.25, 0.5, 1].enumerated() {
        let expected = (0..<count).map { d[k][$0].magnitude > lambda * (tau[$0] - d[k][$0]).magnitude }
        #expect(masks[k].indices.first { masks[k][$0] != expected[$0] } == nil, "\(count) of \(dtype), model \(k)")
        // Bits past the end are 0.
        #expect(count % 8 == 0 || bytes[k].last! >> UInt8(count % 8) == 0)
      }
    }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func bytesAreTheSameForEveryBlockSize(dtype: DType) throws {
    var random = SplitMix64(state: 242)
    let models = (0..<3).map { _ in random.values(5000) }
    let base = random.values(5000)
    for parameters in [[:], ["use_ties": true]] as [JSON] {
      let whole = try merge(parameters, models, base: base, Runner(dtype: dtype, block: 1 << 20)).bytes
      for block in [1024, 3072] {
        #expect(try merge(parameters, models, base: base, Runner(dtype: dtype, block: block)).bytes == whole)
      }
    }
  }

  @Test func aModelComesBackWhereItIsAlone() throws {
    // Each element changed by one model: base + mask * (merged - base) / lambda is that model.
    let base = Example.base
    let models = (0..<3).map { k in base.indices.map { $0 % 3 == k ? base[$0] + 0.5 : base[$0] } }
    let (merged, masks, _) = try merge(["lambda": 0.25], models)
    for k in 0..<3 {
      let rebuilt = base.indices.map { base[$0] + (masks[k][$0] ? (merged.values[$0] - base[$0]) / 0.25 : 0) }
      #expect(distance(rebuilt, models[k]) <= 4e-15)
    }
  }

  @Test func artifactsAreOneBitPerElementAndModel() throws {
    for (shape, bytes) in [([4, 3], 2), ([16], 2), ([], 1), ([3, 0], 0)] {
      let tensor = TensorContext(name: "w", shape: shape, modelCount: 2, hasBase: true)
      let artifacts = try make("tall_mask").artifacts(tensor, dtype: .bf16)
      #expect(artifacts.map(\.collection) == ["masks", "masks"] && artifacts.map(\.model) == [0, 1])
      #expect(artifacts.allSatisfy { $0.dtype == .u8 && $0.shape == [bytes] && $0.suffix == "" && $0.byteCount == bytes })
    }
    #expect(try TallMask.artifactFormat == "tall_mask" && make("tall_mask").makesMerged)
  }

  @Test func withoutASinkItOnlyMerges() throws {
    let alone = try Runner().merge(make("tall_mask"), Example.models, base: Example.base)
    #expect(try alone.values == merge([:]).merged.values)
  }

  @Test func theTaskVectorHasTheSameMasks() throws {
    let (merged, masks, _) = try merge(["output": "task_vector", "lambda": 0.5])
    #expect(distance(merged.values, Plain.sum(Example.deltas).map { 0.5 * $0 }) <= 1e-15)
    #expect(try masks == merge([:]).masks)
  }
}
