import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TaskVectorProgramsTests {
  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func theThresholdIsThatOfSorting(dtype: DType) throws {
    var random = SplitMix64(state: 251)
    for count in [1, 17, 1025, 3000] {
      for (base, model) in [
        (quarters(count, &random), quarters(count, &random)),
        ([Double](repeating: 0, count: count), [Double](repeating: -0.5, count: count)),
        ([Double](repeating: 0, count: count), random.values(count)),
      ] {
        let d = Memory(model, dtype).values.enumerated().map { ($1 - Memory([base[$0]], dtype).values[0]).magnitude }
        let sorted = d.map { dtype == .f64 ? $0 : Double(Float($0)) }.sorted(by: >)
        for rank in Set([1, (count + 1) / 2, count]) {
          let program = ThresholdProgram(rank: rank)
          #expect(program.result == nil)
          _ = try Runner(dtype: dtype).merge(program, [model], base: base)
          let value = sorted[rank - 1]
          #expect(program.result?.threshold == value, "\(rank) of \(count), \(dtype)")
          #expect(program.result?.above == sorted.filter { $0 > value }.count)
          #expect(program.result?.equal == sorted.filter { $0 == value }.count)
        }
      }
    }
  }

  private func signs(_ d: [[Double]], _ rule: String, _ zeroSign: String, _ runner: Runner = Runner()) throws -> [Int8] {
    let signs = UnsafeMutablePointer<Int8>.allocate(capacity: d[0].count)
    defer { signs.deallocate() }
    signs.initialize(repeating: 77, count: d[0].count)
    let program = SignProgram(models: d.count, rule: SignProgram.rules[rule]!, zeroSign: zeroSign, into: signs)
    _ = try runner.merge(program, d, base: d[0].map { _ in 0 })
    return Array(UnsafeBufferPointer(start: signs, count: d[0].count))
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func signsAreThoseThatTiesElects(dtype: DType) throws {
    var random = SplitMix64(state: 252)
    let d = (0..<3).map { _ in quarters(1500, &random) }
    for rule in ["mass", "count", "normfrac", "normmass"] {
      for zeroSign in SignProgram.zeroSigns {
        for block in [1024, 4096] {
          let signs = try signs(d, rule, zeroSign, Runner(dtype: dtype, block: block))
          // The sum of what agrees has the elected sign, or is 0 where nobody agrees.
          let merged = try Runner(dtype: dtype).merge(
            make("ties", ["elect": .string(rule), "zero_sign": .string(zeroSign), "normalize": false]), d,
            base: d[0].map { _ in 0 }
          ).values
          let wrong = signs.indices.first { merged[$0] != 0 && Plain.sign(merged[$0]) != Double(signs[$0]) }
          #expect(wrong == nil && signs.allSatisfy { (-1...1).contains($0) }, "\(rule) \(zeroSign) \(dtype)")
        }
      }
    }
  }

  @Test func aVoteOfZeroBecomesWhatIsAskedFor() throws {
    let d: [[Double]] = [[1, -1, 2, 0], [-1, -1, 1, 0]]
    #expect(try signs(d, "mass", "plus") == [1, -1, 1, 1])
    #expect(try signs(d, "mass", "drop") == [0, -1, 1, 0])
    // As many plus as minus: plus.
    #expect(try signs(d, "mass", "majority") == [1, -1, 1, 1])
    #expect(try signs([[1, -1, -2, 0], [-1, -1, -1, 0]], "mass", "majority") == [-1, -1, -1, -1])
  }

  @Test func rulesAndZeroSignsAreThoseOfTies() throws {
    guard case .choice(let rules)? = Ties.schema.parameter("elect")?.kind,
      case .choice(let zeroSigns)? = Ties.schema.parameter("zero_sign")?.kind
    else {
      Issue.record("no choices")
      return
    }
    #expect(Set(rules) == Set(SignProgram.rules.keys).union(["none"]) && zeroSigns == SignProgram.zeroSigns)
  }
}
