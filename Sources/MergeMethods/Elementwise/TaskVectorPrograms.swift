import Platform
import Synchronization
import TensorKernels

/// The rank-th largest magnitude of the task vector of input 1 from input 0.
public final class ThresholdProgram: SweepProgram {
  public struct Result: Sendable {
    public let threshold: Double
    public let above: Int
    public let equal: Int
  }

  private let rank: Int
  private let outcome = Mutex<Result?>(nil)

  /// - Parameter rank: 1 for the largest, at most the number of elements.
  public init(rank: Int) { self.rank = rank }

  /// nil until the program has run.
  public var result: Result? { outcome.withLock { $0 } }

  public func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let stages = TaskVectorStages(TaskVectorSettings(weights: [1]), tensor)
    let search = BracketSearch(stages, targets: [ThresholdTarget(rank: rank, ties: .all)])
    return try search.begin { () throws(Failure) in
      let found = search.found[0]!
      self.outcome.withLock { $0 = Result(threshold: found.value, above: found.above, equal: found.equal) }
      return .finish(Decision())
    }
  }
}

/// The elected signs of the task vectors of inputs 1 and up from input 0.
public final class SignProgram: SweepProgram, @unchecked Sendable {
  // @unchecked: the caller's memory, of which every block writes its own part.
  private let signs: UnsafeMutablePointer<Int8>
  private let models: Int
  private let elect: SignElection.Rule
  private let zeroSign: TaskVectorSettings.ZeroSign

  public static let rules: [String: SignElection.Rule] = [
    "mass": .mass, "count": .count, "normfrac": .normfrac, "normmass": .normmass,
  ]
  public static let zeroSigns = ["plus", "majority", "drop"]

  /// - Parameters:
  ///   - rule: a key of `rules`.
  ///   - zeroSign: one of `zeroSigns`.
  ///   - signs: one per element.
  public init(models: Int, rule: SignElection.Rule, zeroSign: String, into signs: UnsafeMutablePointer<Int8>) {
    self.models = models
    elect = rule
    self.zeroSign = TaskVectorSettings.ZeroSign(rawValue: zeroSign) ?? .plus
    self.signs = signs
  }

  public func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    var settings = TaskVectorSettings(weights: [Double](repeating: 1, count: models))
    (settings.elect, settings.zeroSign) = (elect, zeroSign)
    let stages = TaskVectorStages(settings, tensor)
    let signs = self.signs
    return try stages.begin { () throws(Failure) in
      let agreeing = stages.agreeing
      return .sweep(
        stages.sweep(sums: 0) { _, small, block, _ in
          agreeing.writeSigns(small, to: signs + block.start)
        } next: { _ in
          .finish(Decision())
        })
    }
  }
}
