import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct TaskVectorSettingsTests {
  private func target(
    _ density: Double, of elements: Int, _ trim: TaskVectorSettings.Trim = .exact,
    _ counting: TaskVectorSettings.Counting = .standard
  ) -> (rank: Int, ties: ThresholdTarget.Ties)? {
    var settings = TaskVectorSettings(weights: [1])
    (settings.density, settings.trim, settings.counting) = ([density], trim, counting)
    return settings.target(0, elements: elements).map { ($0.rank, $0.ties) }
  }

  @Test func exactKeepsAsManyAsTheDensitySaysAndAtLeastOne() {
    for (density, elements, rank) in [
      (0.5, 12, 6), (0.5, 13, 6), (0.2, 5, 1), (0.2, 4, 1), (0.01, 10, 1), (0.999, 1000, 999), (0.75, 8, 6),
    ] {
      let found = target(density, of: elements)
      #expect(found?.rank == rank && found?.ties == .fill, "\(density) of \(elements)")
    }
  }

  @Test func inclusiveKeepsFromTheKthSmallestOn() {
    // k = n - floor(density n), counted from the smallest: floor(density n) + 1 stay, or more.
    for (density, elements, kept) in [(0.5, 12, 7), (0.5, 13, 7), (0.2, 5, 2), (0.2, 4, 1), (0.01, 10, 1), (0.75, 8, 7)] {
      let found = target(density, of: elements, .inclusive)
      #expect(found?.rank == kept && found?.ties == .all, "\(density) of \(elements)")
    }
  }

  @Test func publishedCountingsHaveTheirOwnK() {
    // sd-mecha: k = max(floor((1 - density) n), 1).
    for (density, elements, kept) in [(0.5, 12, 7), (0.5, 13, 8), (0.75, 8, 7), (0.99, 10, 10), (0.5, 1, 1)] {
      let found = target(density, of: elements, .inclusive, .sdMecha)
      #expect(found?.rank == kept && found?.ties == .all, "\(density) of \(elements)")
    }
    // MergeLM: k = floor((1 - density) n); 0 trims nothing.
    for (density, elements, kept) in [(0.5, 12, 7), (0.5, 13, 8), (0.25, 8, 3)] {
      let found = target(density, of: elements, .inclusive, .mergeLM)
      #expect(found?.rank == kept && found?.ties == .all, "\(density) of \(elements)")
    }
    #expect(target(0.99, of: 10, .inclusive, .mergeLM) == nil)
    // MergeLM's pruning drops the k smallest and what is equal to the largest of them.
    for (density, elements, kept) in [(0.5, 12, 6), (0.5, 13, 7), (0.25, 8, 2), (0.75, 100, 75)] {
      let found = target(density, of: elements, .inclusive, .mergeLMPrune)
      #expect(found?.rank == kept + 1 && found?.ties == ThresholdTarget.Ties.none, "\(density) of \(elements)")
    }
    #expect(target(0.99, of: 10, .inclusive, .mergeLMPrune) == nil)
  }

  @Test(arguments: [10, 20, 1000, 12_340]) func aMaskRateOfATenthDropsATenth(elements: Int) {
    // 1 - 0.9 is a little less than 0.1 in binary64, but floor(n / 10) is meant.
    #expect(target(0.9, of: elements, .exact, .mergeLMPrune)?.rank == elements - elements / 10 + 1)
  }

  @Test func theExactTrimIsCountedTheSameUnderEveryTool() {
    for counting in [TaskVectorSettings.Counting.sdMecha, .mergeLM] {
      let found = target(0.3, of: 10, .exact, counting)
      #expect(found?.rank == 3 && found?.ties == .fill)
    }
  }

  @Test func nothingIsLookedForWhereAllOrNothingStays() {
    for counting in [TaskVectorSettings.Counting.standard, .sdMecha, .mergeLM, .mergeLMPrune] {
      for trim in [TaskVectorSettings.Trim.exact, .inclusive] {
        for (density, elements) in [(0, 10), (1, 10), (0.5, 0)] {
          #expect(target(density, of: elements, trim, counting) == nil)
        }
      }
    }
    // The only element stays.
    #expect(target(0.1, of: 1) == nil)
  }

  @Test func eachModelHasItsOwnDensity() {
    var settings = TaskVectorSettings(weights: [1, 1, 1])
    #expect(!settings.trims && !settings.drops && settings.models == 3)
    settings.density = [1, 0.5, 0]
    #expect(settings.trims)
    #expect((0..<3).map { settings.target($0, elements: 10)?.rank } == [nil, 5, nil])
    settings.keep = [1, 1, 0.5]
    #expect(settings.drops)
    settings.keep = [1, 1, 1]
    settings.drop = .della
    #expect(settings.drops)
  }

  // MARK: - Parameters

  private func merge(_ given: JSON, _ method: String = "ties") throws -> DisjointMerge.Rule {
    try Parameters(Registry.method(named: method).schema, members(given)).disjointMerge()
  }

  @Test func normalizeAndMergeSayTheSameThing() throws {
    #expect(try merge([:]) == .mean && merge(["normalize": false]) == .sum && merge(["normalize": true]) == .mean)
    #expect(try merge([:], "dare_ties") == .sum && merge(["normalize": true], "dare_ties") == .mean)
    for (name, rule) in [("mean", .mean), ("sum", .sum), ("max", .max)] as [(String, DisjointMerge.Rule)] {
      #expect(try merge(["merge": .string(name)]) == rule && merge(["merge": .string(name)], "dare_ties") == rule)
    }
    #expect(try merge(["merge": "mean", "normalize": true]) == .mean && merge(["merge": "sum", "normalize": false]) == .sum)
  }

  @Test(arguments: ["ties", "dare_ties", "tsd"]) func contradictionsAreRefused(method: String) {
    for (name, normalize) in [("mean", false), ("sum", true), ("max", true), ("max", false)] {
      expectFailure(.parameter, "merge: \(name)", "normalize: \(normalize)", method, "contradict") {
        _ = try make(method, ["merge": .string(name), "normalize": .bool(normalize)])
      }
    }
  }

  @Test func rescaleTakesTrueAndFalse() throws {
    for (value, name) in [(true, "l1"), (false, "none"), ("l1", "l1"), ("inverse", "inverse"), ("none", "none")]
      as [(
        JSON, String
      )]
    {
      let parameters = try Parameters(DareLinear.schema, members(["rescale": value]))
      #expect(parameters.choice("rescale") == name)
    }
    expectFailure(.parameter, "'rescale'", "l1, inverse, none") { _ = try make("dare_linear", ["rescale": 1]) }
  }

  @Test func dropParametersAreReadPerModel() throws {
    let given: JSON = ["density": [0.5, 1], "drop": "della", "epsilon": -0.1, "random_seed": 7, "rescale": "inverse"]
    let parameters = try Parameters(DareLinear.schema, members(given))
    var settings = TaskVectorSettings(weights: [1, 1])
    try parameters.setDrop(&settings)
    #expect(settings.keep == [0.5, 1] && settings.drop == .della && settings.epsilon == -0.1)
    #expect(settings.seed == 7 && settings.rescale == .inverse)
    expectFailure(.parameter, "2 values for 3 models") {
      var three = TaskVectorSettings(weights: [1, 1, 1])
      try parameters.setDrop(&three)
    }
    expectFailure(.parameter, "'density'", "between 0 and 1") { _ = try make("dare_linear", ["density": 1.5]) }
  }
}
