import Synchronization
import TensorKernels

// Exact trimming thresholds over all tensors of a group, which search together.
//
// Each tensor is sampled, and a sampled magnitude stands for as many as the tensor has for each of its sample (MagnitudeWeights.swift).
// Brackets around the wanted ranks come of it, and then all tensors count what is above and inside (MagnitudeBrackets.swift) until the
// magnitudes are known, as a rule after one sweep. The sample only aims: the result is that of whole numbers, whatever it says, and of the
// tensors that are there when it is drawn; one with values that are not finite may have left.
// Memory of the group: K * 1 MB until all are sampled (K * 64 KB from 17 models on), then 32 KB per model.

final class GroupThresholds: Sendable {
  /// What the tensors do next.
  enum Stage {
    case sampling
    /// The number of the sweep, and what it counts.
    case counting(Int, [MagnitudeBracket?])
    case found([FoundThreshold?])
  }

  private struct State: ~Copyable {
    var stage = Stage.sampling
    var weights: MagnitudeWeights?
    var searches: [MagnitudeSearch?] = []
    var found: [FoundThreshold?]
    var counts: [Int] = []
    var ties: [String: [Int]] = [:]
    var tiesBefore: [String: [Int]] = [:]
  }

  typealias Targets = (_ elements: Int) -> [ThresholdTarget?]

  let models: Int
  /// Per model, of the tensor that came first: it must be the same for all.
  let density: [Double]
  private let state: Mutex<State>

  init(density: [Double]) {
    (models, self.density) = (density.count, density)
    state = Mutex(State(found: density.map { _ in nil }))
  }

  /// Bytes of one tensor's sample, of the weights of all, and of three workers' counters.
  static func bytes(models: Int, elements: Int) -> Int {
    MagnitudeSample.bytes(models: models, elements: elements) + MagnitudeWeights.bytes(models: models) + 3 * models * 4100 * 8
  }

  var stage: Stage { state.withLock { $0.stage } }

  // MARK: - Samples

  /// Take in the sample of a tensor.
  func add(_ sample: MagnitudeSample, elements: Int) {
    state.withLock { state in
      if state.weights == nil { state.weights = MagnitudeWeights(models: models) }
      state.weights?.add(sample, elements: elements)
    }
  }

  /// All are sampled: the first caller aims, four standard deviations to both sides of what is wanted of the elements sampled.
  func aim(_ targets: Targets) {
    state.withLock { state in
      guard case .sampling = state.stage else { return }
      state.searches = density.map { _ in nil }
      guard let weights = state.weights else { return state.stage = .found(state.found) }
      let all = weights.elements
      for (k, target) in targets(Int(all)).enumerated() {
        guard let target else { continue }
        let share = Double(target.rank) / all
        let spread = 4 * (share * (1 - share) * weights.squares).squareRoot() + 8 * weights.squares / all
        var search = MagnitudeSearch(narrow: true)
        (search.low, search.high) = weights.bracket(
          from: Double(target.rank) - spread, to: Double(target.rank) + spread, model: k)
        state.searches[k] = search
      }
      state.weights = nil
      proceed(&state, to: 1)
    }
  }

  // MARK: - Counts

  /// The next sweep, if anything is left to look for.
  private func proceed(_ state: inout State, to sweep: Int) {
    guard state.searches.contains(where: { $0 != nil }) else { return state.stage = .found(state.found) }
    let (brackets, counters) = MagnitudeSearch.brackets(state.searches)
    state.counts = [Int](repeating: 0, count: counters)
    state.stage = .counting(sweep, brackets)
  }

  /// Add what a worker has counted in the sweep that is on.
  func add(_ counts: UnsafePointer<UInt64>) {
    state.withLock { state in for i in state.counts.indices { state.counts[i] += Int(counts[i]) } }
  }

  /// A sweep's counts are complete: the first caller draws the conclusion.
  /// - Parameter targets: what is wanted of the elements counted.
  func conclude(_ sweep: Int, _ targets: () -> [ThresholdTarget?]) {
    state.withLock { state in
      guard case .counting(sweep, let brackets) = state.stage else { return }
      for (k, target) in targets().enumerated() {
        guard var search = state.searches[k], let target, let bracket = brackets[k] else {
          state.searches[k] = nil
          continue
        }
        guard let known = search.narrowDown(bracket, state.counts, rank: target.rank) else {
          state.searches[k] = search
          continue
        }
        state.found[k] = FoundThreshold(
          value: search.value(bracket.pattern(known.half)), above: known.above, equal: known.equal, target: target)
        state.searches[k] = nil
      }
      proceed(&state, to: sweep + 1)
    }
  }

  // MARK: - Ties

  func publish(_ tensor: String, ties counts: [Int]) {
    state.withLock { state in
      state.ties[tensor] = counts
      state.tiesBefore = [:]
    }
  }

  /// Ties of a model in the tensors whose names come before. All of them have been published.
  func tiesBefore(_ tensor: String, model: Int) -> Int {
    state.withLock { state in
      if state.tiesBefore.isEmpty {
        var total = [Int](repeating: 0, count: models)
        for name in state.ties.keys.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
          state.tiesBefore[name] = total
          for model in total.indices { total[model] += state.ties[name]![model] }
        }
      }
      if let known = state.tiesBefore[tensor] { return known[model] }
      // None of the group's, so it has none of its own.
      return state.ties.reduce(0) { $1.key.utf8.lexicographicallyPrecedes(tensor.utf8) ? $0 + $1.value[model] : $0 }
    }
  }
}
