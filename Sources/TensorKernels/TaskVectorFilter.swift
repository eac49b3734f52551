// The filters of task vectors: a random drop, a ceiling, a trim.
//
// Shapes, types and NaN rule: TaskVectors.swift. Traffic: rows in L1.

/// Which elements of one model's task vector count.
public struct TaskVectorFilter: Sendable {
  public enum Drop: Sendable {
    case none
    /// Keep where the word is below `limit`, and remember it in the mask.
    case bernoulli(RandomStream, limit: UInt32, DropMask? = nil)
    /// Keep with a probability that depends on the magnitude's rank.
    case ranked(RandomStream, RankedKeep)
    /// Keep where the block's mask is not 0; the mask begins with the block, and lives as long as the call.
    case masked(BlockMask)
  }

  public enum Cut: Sendable {
    case none
    case everything
    /// Trim what is below `threshold`, and what is equal to it from element `tiesBefore` on.
    case below(threshold: Double, tiesBefore: Int)
  }

  public enum Ceiling: Sendable {
    case none
    /// Trim what is above `threshold`, and what is equal to it before element `dropsBefore`.
    case above(threshold: Double, dropsBefore: Int)
  }

  public var drop = Drop.none
  public var ceiling = Ceiling.none
  public var cut = Cut.none

  public init() {}

  public var isNone: Bool { if case .none = drop, case .none = cut, case .none = ceiling { true } else { false } }
}

/// One byte per element of a block: 1 where it stays, 0 where it goes.
public struct BlockMask: @unchecked Sendable {
  // @unchecked: read by the worker that made it.
  let bytes: UnsafePointer<UInt8>
  /// Its first element, counted from the tensor's start.
  let start: Int

  public init(bytes: UnsafePointer<UInt8>, start: Int) {
    self.bytes = bytes
    self.start = start
  }
}

/// DELLA's keep probability: p + epsilon * (rank / n - (n + 1) / (2 n)), between 0 and 1.
///
/// The rank is read off the cumulative histogram of the magnitudes over 65536 bins of the binary32 pattern, linearly inside a bin.
public final class RankedKeep: Sendable {
  static let binBits = 16
  private let probability: Double
  private let slope: Double
  private let total: Double
  private let below: [Double]

  /// - Parameter histogram: magnitudes per bin, `1 << 16` of them.
  public init(probability: Double, epsilon: Double, histogram: UnsafePointer<UInt64>) {
    self.probability = probability
    slope = epsilon
    var below: [Double] = [0]
    below.reserveCapacity(1 << Self.binBits + 1)
    var sum = 0.0
    for bin in 0..<(1 << Self.binBits) {
      sum += Double(histogram[bin])
      below.append(sum)
    }
    self.below = below
    total = sum
  }

  func limit(_ pattern: UInt64) -> UInt32? {
    let bin = Int(pattern >> 15)
    let inside = (Double(pattern & 0x7FFF) + 0.5) / 32768
    let rank = below[bin] + inside * (below[bin + 1] - below[bin])
    let p = probability + slope * (rank / total - (total + 1) / (2 * total))
    return RandomStream.limit(keeping: min(max(p, 0), 1))
  }
}
