import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct ConsensusTiesTests {
  private func tau(_ parameters: JSON, _ d: [[Double]]) throws -> Merged {
    try Runner().merge(make("consensus_ties", parameters), d, base: d[0].map { _ in 0 })
  }

  @Test func tiesVectorIsKeptWhereEnoughMasksWantIt() throws {
    var random = SplitMix64(state: 231)
    let d = (0..<4).map { _ in quarters(900, &random) }
    let trimmed = d.map { Plain.trimmedInclusive($0, density: 0.2) }
    let majority: Double = Plain.signs(trimmed, zero: 0).reduce(0, +) >= 0 ? 1 : -1
    let whole = Plain.merged(trimmed, Plain.signs(trimmed, zero: majority), "sum")
    for k in 0...5 {
      for lambda in [0.5, 1] {
        let merged = try tau(["k": .int(k), "tall_mask_lambda": .double(lambda)], d)
        let expected = whole.indices.map { i in
          d.filter { $0[i].magnitude > lambda * (whole[i] - $0[i]).magnitude }.count >= k ? whole[i] : 0
        }
        #expect(merged.values == expected, "\(k), \(lambda)")
        let share = Double(expected.filter { $0 != 0 }.count) / 900
        #expect(merged.decision["consensus_kept"]?.double == share)
      }
    }
  }

  @Test func withoutTiesItIsConsensusTa() throws {
    let plain = try Runner().merge(make("consensus_ta"), Example.models, base: Example.base)
    let without = try Runner().merge(make("consensus_ties", ["use_ties": false]), Example.models, base: Example.base)
    #expect(plain.values == without.values && plain.decision.entries == without.decision.entries)
    let ties = try Runner().merge(make("consensus_ta", ["use_ties": true]), Example.models, base: Example.base)
    #expect(try Runner().merge(make("consensus_ties"), Example.models, base: Example.base).values == ties.values)
  }

  @Test func aGroupIsTrimmedAsOneTensor() throws {
    var random = SplitMix64(state: 232)
    let d = (0..<3).map { _ in quarters(300, &random) }
    let method = try make("consensus_ties")
    let whole = try tau([:], d).values
    let parts = try Runner(dtype: .f32).mergeGroup(
      method,
      [0..<100, 100..<300].enumerated().map { i, range in
        ("part \(i)", [Double](repeating: 0, count: range.count), d.map { Array($0[range]) })
      })
    #expect(parts[0].values + parts[1].values == whole)
  }
}
