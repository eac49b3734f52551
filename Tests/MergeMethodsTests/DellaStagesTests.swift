import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct DellaStagesTests {
  /// Which elements of a task vector of ascending magnitudes stay with chances from 0.02 to 0.98: nearly all of the upper half.
  private func kept(_ shape: [Int], _ parameters: [JSON.Member], magnitude: (Int) -> Double) throws -> [Bool] {
    let count = shape.reduce(1, *)
    let method = try Registry.method(named: "della_linear")
    let merged = try Runner().merge(
      Registry.make(method, members(["density": 0.5, "epsilon": 0.48, "rescale": "none"]) + parameters),
      [(0..<count).map(magnitude)], base: [Double](repeating: 0, count: count), shape: shape)
    return merged.values.map { $0 != 0 }
  }

  @Test func rowsHaveOneFirstIndexAndMergekitsRunAlongTheSecondAxis() throws {
    // Magnitudes grow along the second axis only; along the last axes they are the same but for the order.
    let shape = [40, 16, 5]
    let magnitude = { (e: Int) in 1 + Double(e / 5 % 16) + Double(e % 5) / 100 }
    for parameters in [[], members(["compat": "mergekit"])] {
      let kept = try kept(shape, parameters, magnitude: magnitude)
      let upper = kept.indices.filter { $0 / 5 % 16 >= 12 }
      let lower = kept.indices.filter { $0 / 5 % 16 < 4 }
      let rate = { (part: [Int]) in Double(part.filter { kept[$0] }.count) / Double(part.count) }
      // Mean chances 0.86 and 0.14 of 800 elements: five deviations are 0.06.
      #expect(rate(upper) > 0.79 && rate(lower) < 0.21)
    }
    // Growing along the last axis: mergekit ranks 16 elements that differ in nothing else, by their index.
    let last = try kept(shape, members(["compat": "mergekit"])) { 1 + Double($0 % 5) }
    let large = last.indices.filter { $0 % 5 == 4 }
    #expect((Double(large.filter { last[$0] }.count) / Double(large.count) - 0.5).magnitude < 0.1)
    let ours = try kept(shape, []) { 1 + Double($0 % 5) }
    #expect(Double(large.filter { ours[$0] }.count) / Double(large.count) > 0.8)
  }

  @Test func aVectorIsOneRow() throws {
    let kept = try kept([2000], []) { 1 + Double($0) }
    #expect(kept[1500...].filter { $0 }.count > 380 && kept[..<500].filter { $0 }.count < 120)
  }
}
