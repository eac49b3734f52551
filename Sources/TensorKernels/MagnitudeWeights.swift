// Samples of several tensors as one: how much of all magnitudes stands at which patterns, to aim at an order statistic of all.
//
//   weight_i[half(pattern)] += elements of the tensor / elements of its sample
//
// Bins are over the 16 upper bits of binary32 patterns (12 from 17 models on), each in two halves, as those of MagnitudeBrackets.swift:
// its lowest pattern, and the others. Memory: K * 2^17 * 8 bytes (K * 2^13 * 8).

/// Weighted magnitudes of the tensors of a group, in binary32.
public final class MagnitudeWeights: @unchecked Sendable {
  // @unchecked: its group guards it.
  private let models: Int
  private let shift: UInt64
  private let halves: Int
  private let weights: UnsafeMutablePointer<Double>
  /// Elements of all tensors, and the sum of the squares of the sample's weights.
  public private(set) var elements = 0.0
  public private(set) var squares = 0.0

  public init(models: Int) {
    self.models = models
    shift = UInt64(31 - Self.binBits(models: models))
    halves = 2 << Self.binBits(models: models)
    weights = .allocate(capacity: max(1, models * halves))
    weights.initialize(repeating: 0, count: models * halves)
  }

  deinit { weights.deallocate() }

  private static func binBits(models: Int) -> Int { models <= 16 ? 16 : 12 }

  public static func bytes(models: Int) -> Int { models * 2 << binBits(models: models) * 8 }

  /// Take in the sample of a tensor of so many elements.
  public func add(_ sample: MagnitudeSample, elements: Int) {
    guard sample.count > 0 else { return }
    let weight = Double(elements) / Double(sample.count)
    self.elements += Double(elements)
    squares += weight * weight * Double(sample.count)
    let rest = UInt64(1) << shift - 1
    for k in 0..<models {
      let own = weights + k * halves
      for pattern in sample.all(model: k) { own[Int(pattern >> shift) << 1 | (pattern & rest > 0 ? 1 : 0)] += weight }
    }
  }

  /// Patterns between which a model's magnitudes from the `first`-th to the `last`-th largest should be.
  /// - Parameters:
  ///   - first: less than 1: up to the largest pattern there is.
  ///   - last: more than there are: down to 0.
  public func bracket(from first: Double, to last: Double, model: Int) -> (low: UInt64, high: UInt64) {
    let own = weights + model * halves
    var (half, passed) = (halves - 1, 0.0)
    func pass(_ rank: Double) {
      while half > 0, passed + own[half] < rank {
        passed += own[half]
        half -= 1
      }
    }
    let all = UInt64(1) << 31 - 1
    var bracket = (low: UInt64(0), high: all)
    if first >= 1 {
      pass(first)
      bracket.high = min(all, ends(half).high)
    }
    if last <= elements {
      pass(last)
      bracket.low = ends(half).low
    }
    return bracket
  }

  private func ends(_ half: Int) -> (low: UInt64, high: UInt64) {
    let lowest = UInt64(half / 2) << shift
    return half % 2 == 0 ? (lowest, lowest) : (lowest + 1, lowest + (1 << shift - 1))
  }
}
