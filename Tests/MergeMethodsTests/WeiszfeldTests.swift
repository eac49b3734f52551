import Testing

@testable import MergeMethods

@Suite struct WeiszfeldTests {
  private func gram(_ points: [[Double]], about reference: [Double]? = nil) -> [Double] {
    let reference = reference ?? points[0]
    let d = points.map { zip($0, reference).map { $0 - $1 } }
    return d.flatMap { x in d.map { y in zip(x, y).reduce(0.0) { $0 + $1.0 * $1.1 } } }
  }

  private func point(_ weights: [Double], _ points: [[Double]]) -> [Double] {
    points[0].indices.map { i in zip(weights, points).reduce(0.0) { $0 + $1.0 * $1.1[i] } }
  }

  private func solve(
    _ points: [[Double]], weights: [Double]? = nil, eps: Double = 0, maxiter: Int = 10_000, ftol: Double = 0,
    about reference: [Double]? = nil, start: Weiszfeld.Start = .mean
  ) -> Weiszfeld.Result {
    Weiszfeld(eps: eps, maxiter: maxiter, ftol: ftol).solve(
      gram: gram(points, about: reference), count: points.count,
      pointWeights: weights ?? [Double](repeating: 1, count: points.count), start: start)
  }

  /// The length of sum_i w_i (x_i - y) / |x_i - y|, which is 0 at a median that is no point.
  private func gradient(_ y: [Double], _ points: [[Double]], _ w: [Double]) -> Double {
    var sum = [Double](repeating: 0, count: y.count)
    for (x, weight) in zip(points, w) {
      let d = zip(x, y).map { $0 - $1 }
      let length = norm(d)
      for i in y.indices { sum[i] += weight * d[i] / length }
    }
    return norm(sum)
  }

  // The iteration ends when the objective does not change any more. It is flat at the median: weights that differ by the root
  // of 2^-53, 1e-8, give the same objective.
  private let weightTolerance = 5e-8

  @Test func theExampleIsMet() {
    let result = solve(Example.models, eps: 1e-6)
    #expect(distance(result.weights!, [0.481098112, 0.229151506, 0.289750382]) <= 1e-8)
    // Without the floor it is the same: no model is that near.
    #expect(solve(Example.models).weights! == result.weights!)
  }

  @Test(arguments: 3...8) func theGradientVanishesAtTheResult(count: Int) {
    for seed in UInt64(130)..<140 {
      var random = SplitMix64(state: seed)
      let points = (0..<count).map { _ in random.values(6) }
      let weights = (0..<count).map { _ in 1.5 + random.signed() }
      let result = solve(points, weights: weights)
      let y = point(result.weights!, points)
      #expect((result.weights!.reduce(0, +) - 1).magnitude <= 1e-14)
      // A point may be the median itself; then it has all the weight.
      if result.weights!.contains(1) { continue }
      #expect(gradient(y, points, weights) <= 1e-6, "seed \(seed)")
      let objective = zip(points, weights).reduce(0.0) { sum, pair in
        sum + pair.1 * norm(zip(pair.0, y).map { $0 - $1 })
      }
      #expect((result.objective - objective / weights.reduce(0, +)).magnitude <= 1e-12)
    }
  }

  @Test func twoPointsGiveTheirMiddleOrTheHeavierOne() {
    #expect(solve([[0, 0], [2, 4]]).weights == [0.5, 0.5])
    #expect(solve([[0, 0], [2, 4]], weights: [2, 1]).weights == [1, 0])
    #expect(solve([[0, 0], [2, 4]], weights: [1, 1.001]).weights == [0, 1])
  }

  @Test func aPointThatIsTheMedianHasAllTheWeight() {
    // An angle of 120 degrees and more: here 180 and 150.
    let result = solve([[0, 0], [1, 0], [-1, 0.1]])
    #expect(result.weights == [1, 0, 0] && result.iterations == 0)
    let expected = (1 + (1.01).squareRoot()) / 3
    #expect((result.objective - expected).magnitude <= 1e-15)
    #expect(solve([[0, 0], [1, 0], [-1, 0.1]], maxiter: 1).weights == [1, 0, 0], "one iteration is enough")
    // The centre of a square, and any point that outweighs the rest.
    #expect(solve([[1, 1], [1, -1], [0, 0], [-1, 1], [-1, -1]]).weights == [0, 0, 1, 0, 0])
    #expect(solve([[1, 0], [0, 1], [-3, 5]], weights: [1, 1, 2.1]).weights == [0, 0, 1])
  }

  @Test func collinearPointsGiveTheirMedian() {
    #expect(solve([[1], [2], [10]]).weights == [0, 1, 0])
    #expect(solve([[0, 0], [1, 2], [3, 6], [-5, -10], [2, 4]]).weights == [0, 1, 0, 0, 0])
    // Four: anything between the middle two, of length 2.
    let even = solve([[0], [1], [3], [10]])
    let y = point(even.weights!, [[0], [1], [3], [10]])[0]
    #expect(y >= 1 - 1e-9 && y <= 3 + 1e-9 && (even.objective - 3).magnitude <= 1e-12)
  }

  @Test func duplicatesAddTheirWeights() {
    // Two against one: the pair.
    let pair = solve([[0, 1], [0, 1], [5, 5]])
    #expect(distance(point(pair.weights!, [[0, 1], [0, 1], [5, 5]]), [0, 1]) <= 1e-15)
    // Each point twice: the median of the single points.
    let once: [[Double]] = [[0, 0], [4, 0], [1, 3]]
    let single = point(solve(once).weights!, once)
    let double = point(solve(once + once).weights!, once + once)
    #expect(distance(single, double) <= 1e-7)
  }

  @Test func equalPointsGiveTheMean() {
    let result = solve([[1, 2], [1, 2], [1, 2]], weights: [1, 1, 2])
    #expect(result.weights == [0.25, 0.25, 0.5] && result.objective == 0)
    #expect(solve([[1, 2]]).weights == [1])
  }

  @Test func aStartOnAPointThatIsNotTheMedianLeavesIt() {
    // The mean is the first point; the others pull it with 1.41 to the left.
    let points: [[Double]] = [[0, 0], [3, 0], [-1, 1], [-1, -1], [-1, 0]]
    let result = solve(points)
    let y = point(result.weights!, points)
    #expect(y[0] < -0.1 && y[0] > -1)
    #expect(gradient(y, points, [1, 1, 1, 1, 1]) <= 1e-6)
  }

  @Test func theFloorTurnsCloseSetsIntoTheirMean() {
    // All distances below eps count as eps: weights in proportion to the points' own.
    let points = Example.deltas.map { $0.map { $0 * 0x1p-30 } }
    let floored = solve(points, weights: [1, 2, 1], eps: 1e-6)
    #expect(distance(floored.weights!, [0.25, 0.5, 0.25]) <= 1e-15)
    #expect(solve(points).weights! == solve(Example.deltas).weights!)
  }

  @Test func withoutIterationsItIsTheStart() {
    let result = solve(Example.models, weights: [1, 2, 5], maxiter: 0)
    #expect(result.weights == [0.125, 0.25, 0.625] && result.iterations == 0)
    let y = point(result.weights!, Example.models)
    let lengths = Example.models.map { norm(zip($0, y).map { $0 - $1 }) }
    #expect((result.objective - (lengths[0] + 2 * lengths[1] + 5 * lengths[2]) / 8).magnitude <= 1e-15)
    let reference = solve(Example.models, maxiter: 0, about: Example.base, start: .reference)
    #expect(reference.weights == nil)
    #expect((reference.objective - Example.deltas.map { norm($0) }.reduce(0, +) / 3).magnitude <= 1e-15)
  }

  @Test func anyReferenceGivesTheSameMedian() {
    let plain = solve(Example.models).weights!
    for reference in [Example.base, Example.models[2], [Double](repeating: 0, count: 12)] {
      #expect(distance(solve(Example.models, about: reference).weights!, plain) <= weightTolerance)
    }
    let fromBase = solve(Example.models, about: Example.base, start: .reference)
    #expect(distance(fromBase.weights!, plain) <= weightTolerance)
  }

  @Test func theFirstStepFromAReferenceWeighsByItsDistances() {
    // Distances 1, 2, 4 from the origin: weights 4 : 2 : 1.
    let result = solve([[1, 0], [0, 2], [-4, 0]], eps: 1e-12, maxiter: 1, about: [0, 0], start: .reference)
    #expect(distance(result.weights!, [4.0 / 7, 2.0 / 7, 1.0 / 7]) <= 1e-15 && result.iterations == 1)
  }

  @Test func iterationsStopWhenTheObjectiveDoes() {
    let loose = solve(Example.models, ftol: 0.5)
    #expect(loose.iterations == 1)
    let tight = solve(Example.models, ftol: 1e-12)
    #expect(tight.iterations > 3 && tight.iterations < 1000)
    #expect(solve(Example.models, maxiter: 3, ftol: 0).iterations == 3)
  }

  @Test(arguments: [0x1p-300, 0x1p-30, 0x1p30, 0x1p300]) func withoutAFloorAPowerOfTwoChangesNoDigit(scale: Double) {
    let scaled = Example.deltas.map { $0.map { $0 * scale } }
    let (result, plain) = (solve(scaled), solve(Example.deltas))
    #expect(result.weights == plain.weights && result.iterations == plain.iterations)
    #expect(result.objective == plain.objective * scale)
  }
}
