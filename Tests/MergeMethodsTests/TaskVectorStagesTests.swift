import JSON
import Platform
import Synchronization
import TensorKernels
import Testing

@testable import MergeMethods

/// Runs the stages of some settings, then writes, and notes what every sweep asks for.
private final class Chain: SweepProgram, @unchecked Sendable {
  // @unchecked: the runner has one thread.
  struct Note: Equatable {
    var sums: Int
    var writes = false
    var pools = false
    var wide = false
    var ranges: [Range<Int>]?
  }

  private let settings: TaskVectorSettings
  private(set) var notes: [Note] = []
  private(set) var stages: TaskVectorStages?

  init(_ settings: TaskVectorSettings) { self.settings = settings }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = TaskVectorStages(settings, tensor)
    self.stages = stages
    return noted(try stages.begin { () throws(Failure) in stages.write(lambda: 1, output: .weights) })
  }

  private func noted(_ step: Step) -> Step {
    guard case .sweep(var sweep) = step else { return step }
    notes.append(
      Note(sums: sweep.sums, writes: sweep.writes, pools: sweep.pools, wide: sweep.wide, ranges: sweep.ranges))
    let next = sweep.next
    sweep.next = { (sums) throws(Failure) in self.noted(try next(sums)) }
    return .sweep(sweep)
  }
}

@Suite struct TaskVectorStagesTests {
  private func settings(_ models: Int = 2, _ change: (inout TaskVectorSettings) -> Void = { _ in }) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: [Double](repeating: 1, count: models))
    change(&settings)
    return settings
  }

  private func run(
    _ settings: TaskVectorSettings, _ d: [[Double]], _ runner: Runner = Runner(), name: String = "w"
  ) throws -> (chain: Chain, merged: Merged) {
    let chain = Chain(settings)
    let base = d[0].map { _ in 0.0 }
    return (chain, try runner.merge(chain, d, base: base, name: name))
  }

  private let d: [[Double]] = [[1, -2, 3, -4, 5, 0], [-1, 2, 0.5, 4, 1, -3]]

  // MARK: - Which sweeps

  private static let write = Chain.Note(sums: 4, writes: true)

  @Test func withoutAnyStageThereIsOneSweep() throws {
    let (chain, merged) = try run(settings(), d)
    #expect(chain.notes == [Self.write] && merged.values == Plain.sum(d))
    #expect(merged.decision.entries.map(\.key) == ["kept", "conflicts"])
    #expect(merged.decision.numbers("kept") == [5.0 / 6, 1] && merged.decision["conflicts"]?.double == 3.0 / 6)
  }

  @Test func aTrimTakesASampleAndTiesOneMoreSweep() throws {
    // The sample of a small tensor is all of it.
    let sample = Chain.Note(sums: 1)
    let trim = settings { $0.density = [0.5, 0.5] }
    let plain = try run(trim, d, Runner(dtype: .f32)).chain
    #expect(plain.notes == [sample, Self.write])
    #expect(try run(trim, d, Runner(dtype: .f64)).chain.notes == [sample, Self.write])
    // Three of six equal magnitudes stay: the sample has counted them, and the last one is looked for in the only cell.
    let equal: [[Double]] = [[1, -1, 1, 1, -1, 1], d[1]]
    let tied = try run(trim, equal, Runner(dtype: .f32))
    #expect(tied.chain.notes == [sample, .init(sums: 1, ranges: [0..<65536]), Self.write])
    #expect(tied.merged.values == Plain.sum([[1, -1, 1, 0, 0, 0], [0, 2, 0, 4, 0, -3]]))
    // All ties stay, or none: nothing to look for.
    let inclusive = settings {
      $0.density = [0.5, 0.5]
      $0.trim = .inclusive
    }
    #expect(try run(inclusive, equal, Runner(dtype: .f32)).chain.notes.count == 2)
  }

  @Test func densitiesOfZeroAndOneNeedNoThreshold() throws {
    let none = settings { $0.density = [0, 0.5] }
    let (chain, merged) = try run(none, d, Runner(dtype: .f32))
    #expect(merged.values == [0, 2, 0, 4, 0, -3] && chain.notes.count == 2)
    #expect(merged.decision["thresholds"] == [nil, 2.0])
    let one = settings { $0.density = [1, 0.5] }
    #expect(try run(one, d, Runner(dtype: .f32)).merged.values == Plain.sum([d[0], [0, 2, 0, 4, 0, -3]]))
  }

  @Test func everyOtherStageIsOneSweep() throws {
    let pooled = { (sums: Int, wide: Bool) in Chain.Note(sums: sums, pools: true, wide: wide) }
    func notes(_ change: (inout TaskVectorSettings) -> Void) throws -> [Chain.Note] {
      try run(settings(2, change), d).chain.notes
    }
    let l1 = Chain.Note(sums: 5)
    #expect(try notes { ($0.keep, $0.rescale) = ([0.5, 0.5], .l1) } == [l1, Self.write])
    // Nothing is left out, or the factor is known: no sum.
    #expect(try notes { $0.rescale = .l1 } == [Self.write])
    #expect(try notes { ($0.keep, $0.rescale) = ([0.5, 0.5], .inverse) } == [Self.write])
    #expect(try notes { ($0.keep, $0.drop) = ([0.5, 0.5], .della) } == [.init(sums: 1), Self.write])
    for elect in [SignElection.Rule.normfrac, .normmass] {
      #expect(try notes { $0.elect = elect } == [pooled(3, true), Self.write])
    }
    for elect in [SignElection.Rule.mass, .count] {
      #expect(try notes { $0.elect = elect } == [Self.write])
      #expect(try notes { ($0.elect, $0.zeroSign) = (elect, .majority) } == [pooled(2, false), Self.write])
    }
    // Without a vote there is no majority.
    #expect(try notes { $0.zeroSign = .majority } == [Self.write])
  }

  // MARK: - What they find

  @Test func anL1RescaleIsTheRatioOfTheSumsOfMagnitudes() throws {
    let name = "a tensor"
    var random = SplitMix64(state: 121)
    let rows = [quarters(500, &random), quarters(500, &random)]
    let (_, merged) = try run(settings { ($0.keep, $0.rescale) = ([0.3, 0.8], .l1) }, rows, name: name)
    let kept = rows.enumerated().map { Philox.dropped($1, name, model: $0, [0.3, 0.8][$0]) }
    func sum(_ row: [Double]) -> Double { row.reduce(0) { $0 + $1.magnitude } }
    let ratios = zip(rows, kept).map { sum($0) / sum($1) }
    #expect(merged.decision.numbers("rescale") == ratios)
    let expected = (0..<500).map { kept[0][$0] * ratios[0] + kept[1][$0] * ratios[1] }
    #expect(distance(merged.values, expected) <= 1e-14)
  }

  @Test func sumsThatAreTooSmallAreNotDividedBy() throws {
    let rows: [[Double]] = [[1e-8, -1e-8, 1e-8, 1e-8], [1, 1, 1, 1]]
    for (smallest, isRescaled) in [(0.0, true), (1e-7, false)] {
      let (_, merged) = try run(
        settings {
          ($0.density, $0.rescale, $0.rescalesAfterTrim, $0.smallestSum) = ([0.5, 0.5], .l1, true, smallest)
        }, rows)
      #expect(merged.decision.numbers("rescale") == [isRescaled ? 2 : 1, 2])
    }
    // Everything is left out: no division by zero.
    let (_, merged) = try run(settings { ($0.keep, $0.rescale) = ([0, 1], .l1) }, rows)
    #expect(merged.decision.numbers("rescale") == [1, 1] && merged.values == rows[1])
    let inverse = try run(settings { ($0.keep, $0.rescale) = ([0, 0.5], .inverse) }, rows).merged
    #expect(inverse.decision.numbers("rescale") == [1, 2])
  }

  @Test func aRescaleAfterTheTrimLooksAtWhatTheTrimLeaves() throws {
    func ratios(after: Bool, _ rescale: TaskVectorSettings.Rescale) throws -> [Double] {
      try run(
        settings {
          ($0.keep, $0.density, $0.rescale, $0.rescalesAfterTrim) = ([1, 1], [0.5, 1], rescale, after)
        }, d
      ).merged.decision.numbers("rescale")
    }
    #expect(try ratios(after: true, .l1) == [15.0 / 12, 1] && ratios(after: false, .l1) == [1, 1])
    #expect(try ratios(after: true, .inverse) == [2, 1] && ratios(after: false, .inverse) == [1, 1])
  }

  @Test func theThresholdIsThatOfWhatTheDropLeaves() throws {
    var random = SplitMix64(state: 122)
    let row = random.values(400)
    let (_, merged) = try run(settings(1) { ($0.keep, $0.density) = ([0.5], [0.25]) }, [row])
    let kept = Philox.dropped(row, model: 0, 0.5)
    #expect(merged.values == Plain.trimmed(kept, kept: 100))
    #expect(merged.decision.numbers("thresholds") == [kept.map(\.magnitude).sorted(by: >)[99]])
    #expect(merged.decision.numbers("kept") == [0.25])
  }

  @Test func theMajorityIsTheSignThatWinsInMostElements() throws {
    func sign(_ rows: [[Double]], tied: Double = 1) throws -> (Int?, [Double]) {
      let (_, merged) = try run(
        settings { ($0.elect, $0.zeroSign, $0.tiedMajority, $0.merge) = (.mass, .majority, tied, .mean) }, rows)
      return (merged.decision["majority_sign"]?.int, merged.values)
    }
    // Votes: -, 0, -, +.
    let rows: [[Double]] = [[-1, 2, -3, 4], [-1, -2, 0, 1]]
    #expect(try sign(rows) == (-1, [-1, -2, -3, 2.5]))
    #expect(try sign(rows.map { $0.map { -$0 } }) == (1, [1, 2, 3, -2.5]))
    // As many plus as minus.
    let even: [[Double]] = [[-1, 2, 3], [-1, -2, 0]]
    #expect(try sign(even) == (1, [-1, 2, 3]) && sign(even, tied: -1) == (-1, [-1, -2, 3]))
  }

  @Test func sharesOfTheNormAreThoseOfTheFilteredVectors() throws {
    // Without the trim model 0 has the larger share at element 1; with it, its square is in the other element alone.
    let rows: [[Double]] = [[1, 0.875, 0, 0], [-1, -0.5, 0.5, 0.5]]
    for elect in [SignElection.Rule.normfrac, .normmass] {
      let (_, merged) = try run(settings { ($0.elect, $0.merge, $0.zeroSign) = (elect, .sum, .drop) }, rows)
      // Shares of element 0: 1 / 1.7656 and 1 / 1.75; of element 1: 0.7656 / 1.7656 and 0.25 / 1.75.
      #expect(merged.values == [-1, 0.875, 0.5, 0.5])
      let (_, trimmed) = try run(
        settings { ($0.elect, $0.merge, $0.zeroSign, $0.density) = (elect, .sum, .drop, [0.25, 1]) }, rows)
      #expect(trimmed.values == [1, -0.5, 0.5, 0.5])
    }
  }

  @Test func dellaKeepsByRankAndTheSeedDecides() throws {
    var random = SplitMix64(state: 123)
    let count = 4000
    let row = random.values(count)
    func kept(epsilon: Double, seed: UInt64 = 0) throws -> [Double] {
      try run(
        settings(1) { ($0.keep, $0.drop, $0.epsilon, $0.seed) = ([0.5], .della, epsilon, seed) }, [row]
      ).merged.values
    }
    let order = row.indices.sorted { row[$0].magnitude < row[$1].magnitude }
    func share(_ values: [Double], _ part: Range<Int>) -> Double {
      Double(order[part].filter { values[$0] != 0 }.count) / Double(part.count)
    }
    let rising = try kept(epsilon: 0.8)
    // Mean probabilities 0.2 and 0.8 over 1000 elements each: five standard deviations are 0.064.
    #expect((share(rising, 0..<1000) - 0.2).magnitude < 0.064 && (share(rising, 3000..<4000) - 0.8).magnitude < 0.064)
    let falling = try kept(epsilon: -0.8)
    #expect((share(falling, 0..<1000) - 0.8).magnitude < 0.064 && (share(falling, 3000..<4000) - 0.2).magnitude < 0.064)
    // Without a slope it is the plain drop.
    #expect(try kept(epsilon: 0) == Philox.dropped(row, model: 0, 0.5))
    #expect(try kept(epsilon: 0.8, seed: 1) != rising)
  }

  // MARK: - Groups

  @Test func aGroupIsTreatedAsOneTensor() throws {
    var random = SplitMix64(state: 124)
    // Names in another order than the tensors; quarters, so that thresholds have ties in all of them.
    let parts = ["b", "a.10", "a.2"].map { name in (name: name, rows: [quarters(40, &random), quarters(40, &random)]) }
    let order = [1, 2, 0]
    let whole = (0..<2).map { k in order.flatMap { parts[$0].rows[k] } }
    for (density, trim) in [(0.3, TaskVectorSettings.Trim.exact), (0.5, .exact), (0.77, .exact), (0.3, .inclusive)] {
      for elect in [SignElection.Rule.mass, .count, .normmass] {
        let grouped = settings {
          ($0.density, $0.trim, $0.elect, $0.zeroSign) = ([density, 0.6], trim, elect, .majority)
          ($0.scope, $0.merge) = (.model, .mean)
        }
        let merged = try Runner(dtype: .f32).mergeGroup(
          Chain(grouped), parts.map { ($0.name, [Double](repeating: 0, count: 40), $0.rows) })
        var alone = grouped
        alone.scope = .tensor
        let expected = try run(alone, whole, Runner(dtype: .f32)).merged
        #expect(order.flatMap { merged[$0].values } == expected.values, "\(density) \(trim) \(elect)")
        for tensor in merged {
          #expect(tensor.decision["thresholds"] == expected.decision["thresholds"])
          #expect(tensor.decision["majority_sign"] == expected.decision["majority_sign"])
        }
      }
    }
  }

  @Test func withoutAGroupAWiderScopeIsTheTensor() throws {
    let one = try run(settings { $0.density = [0.5, 0.5] }, d).merged
    let alone = try run(
      settings {
        $0.density = [0.5, 0.5]
        $0.scope = .model
      }, d
    ).merged
    #expect(one.values == alone.values)
  }

  // MARK: - Memory

  @Test func scratchIsThatOfTheSampleTheCountersAndTies() {
    let tensor = TensorContext(name: "w", shape: [3 * 65536], modelCount: 2, hasBase: true)
    #expect(TaskVectorStages.scratchBytes(settings(), tensor) == 0)
    let sampled = TaskVectorStages.scratchBytes(settings { $0.density = [0.5, 1] }, tensor)
    #expect(sampled == BracketSearch.bytes(models: 2, elements: 3 * 65536) && sampled < 1 << 20)
    let pooled = settings {
      $0.density = [0.5, 1]
      $0.scope = .model
    }
    let trim = TaskVectorStages.scratchBytes(pooled, tensor)
    // A megabyte of weights for each model, which the group shares.
    #expect(trim == GroupThresholds.bytes(models: 2, elements: 3 * 65536) + 2 * 4 * 8 && trim > sampled && trim < 4 << 20)
    #expect(TaskVectorStages.scratchBytes(settings { $0.drop = .della }, tensor) >= 2 * 65536 * 8)
  }
}
