// Weiszfeld's iteration for the geometric median, in the space of weights.
//
// Every iterate but a median start is an affine combination y = sum_i a_i x_i, and with the Gram matrix of the points about any
// common reference |x_i - y|² = (e_i - a)ᵀ Gram (e_i - a): the data are swept once, and an iteration costs K² multiplications.
// Source: Weiszfeld 1937; Vardi and Zhang, "The multivariate L1-median and associated data depth", PNAS 97(4), 2000.

/// Weights of a geometric median.
public struct Weiszfeld: Sendable {
  /// Distances below this are taken as this. 0: no floor, and Vardi and Zhang's step where the iterate meets a point.
  public let eps: Double
  public let maxiter: Int
  /// Stop when the objective changes by at most this times itself.
  public let ftol: Double

  public init(eps: Double, maxiter: Int, ftol: Double) {
    self.eps = eps
    self.maxiter = maxiter
    self.ftol = ftol
  }

  public struct Result {
    /// Affine weights, sum 1; nil when no step was made from a start outside the points' hull.
    public let weights: [Double]?
    public let iterations: Int
    /// The weighted average distance.
    public let objective: Double
  }

  /// Where the iteration starts.
  public enum Start {
    case mean
    /// The reference about which the Gram matrix was taken.
    case reference
  }

  /// - Parameters:
  ///   - gram: `count` x `count`, row-major, of the points about a common reference; finite.
  ///   - pointWeights: > 0.
  public func solve(gram: [Double], count: Int, pointWeights: [Double], start: Start = .mean) -> Result {
    let matrix = GramMatrix(full: gram, size: count)
    let total = pointWeights.reduce(0, +)
    func objective(_ distances: [Double]) -> Double {
      var sum = 0.0
      for i in 0..<count { sum += pointWeights[i] * distances[i] }
      return sum / total
    }

    var weights: [Double]?
    var distances: [Double]
    switch start {
    case .mean:
      let mean = pointWeights.map { $0 / total }
      weights = mean
      distances = Self.distances(matrix, to: mean)
    case .reference:
      distances = (0..<count).map { matrix.norm($0) }
    }
    var value = objective(distances)
    if eps == 0, maxiter > 0, let vertex = optimalVertex(matrix, pointWeights) {
      let corner = (0..<count).map { $0 == vertex ? 1.0 : 0.0 }
      return Result(weights: corner, iterations: 0, objective: objective(Self.distances(matrix, to: corner)))
    }
    var iterations = 0
    while iterations < maxiter {
      iterations += 1
      weights = step(matrix, pointWeights, distances)
      distances = Self.distances(matrix, to: weights!)
      let previous = value
      value = objective(distances)
      if (previous - value).magnitude <= ftol * value { break }
    }
    return Result(weights: weights, iterations: iterations, objective: value)
  }

  private func step(_ gram: GramMatrix, _ pointWeights: [Double], _ distances: [Double]) -> [Double] {
    let count = gram.size
    if eps > 0 { return Self.normalized((0..<count).map { pointWeights[$0] / max(distances[$0], eps) }) }
    let reach = distances.max() ?? 0
    if reach == 0 { return Self.normalized(pointWeights) }
    // A distance this far below the others is rounding: the iterate has met a point.
    guard let met = (0..<count).first(where: { distances[$0] <= 1e-9 * reach }) else {
      return Self.normalized((0..<count).map { pointWeights[$0] / distances[$0] })
    }
    let others = (0..<count).map { distances[$0] <= 1e-9 * reach ? 0 : pointWeights[$0] / distances[$0] }
    let pull = Self.pull(gram, others, at: met)
    var held = 0.0
    for i in 0..<count where others[i] == 0 { held += pointWeights[i] }
    let stay = pull > 0 ? min(1, held / pull) : 1
    return Self.normalized(others).enumerated().map { ($0.offset == met ? stay : 0) + (1 - stay) * $0.element }
  }

  /// A point that is itself the median: the pull of the others on it is smaller than its own weight.
  private func optimalVertex(_ gram: GramMatrix, _ pointWeights: [Double]) -> Int? {
    let count = gram.size
    var largest = 0.0
    for i in 0..<count { largest = max(largest, gram[i, i]) }
    for k in 0..<count {
      let corner = (0..<count).map { $0 == k ? 1.0 : 0.0 }
      let distances = Self.distances(gram, to: corner)
      let reach = distances.max() ?? 0
      // All points equal: the mean says it as well.
      if reach * reach <= 1e-28 * largest || reach == 0 { return nil }
      var held = 0.0
      var others = [Double](repeating: 0, count: count)
      for i in 0..<count {
        if distances[i] <= 1e-9 * reach { held += pointWeights[i] } else { others[i] = pointWeights[i] / distances[i] }
      }
      if Self.pull(gram, others, at: k) < held * (1 - 1e-9) { return k }
    }
    return nil
  }

  /// |sum_i others[i] (x_i - x_k)|.
  private static func pull(_ gram: GramMatrix, _ others: [Double], at k: Int) -> Double {
    var direction = others
    direction[k] -= others.reduce(0, +)
    return max(0, gram.form(direction, direction)).squareRoot()
  }

  /// |x_i - sum_j a_j x_j| for each i.
  static func distances(_ gram: GramMatrix, to a: [Double]) -> [Double] {
    let count = gram.size
    let images = (0..<count).map { i in (0..<count).reduce(0.0) { $0 + gram[i, $1] * a[$1] } }
    var square = 0.0
    for i in 0..<count { square += a[i] * images[i] }
    return (0..<count).map { max(0, gram[$0, $0] - 2 * images[$0] + square).squareRoot() }
  }

  static func normalized(_ values: [Double]) -> [Double] {
    let sum = values.reduce(0, +)
    return values.map { $0 / sum }
  }
}
