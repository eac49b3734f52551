/// The k-th smallest of n numbers, by quickselect; the pivots come from a fixed sequence, so no input is slow on purpose.
public enum OrderStatistic {
  /// - Parameters:
  ///   - values: without NaN; reordered.
  ///   - k: from 0.
  public static func smallest(_ k: Int, of values: UnsafeMutablePointer<Double>, count: Int) -> Double {
    precondition((0..<count).contains(k))
    var (low, high) = (0, count - 1)
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    while low < high {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let pivot = values[low + Int(state >> 33) % (high - low + 1)]
      // Hoare's partition stops at equals on both sides, so equal numbers do not make it quadratic.
      var (i, j) = (low, high)
      while i <= j {
        while values[i] < pivot { i += 1 }
        while values[j] > pivot { j -= 1 }
        if i <= j {
          (values[i], values[j]) = (values[j], values[i])
          i += 1
          j -= 1
        }
      }
      if k <= j {
        high = j
      } else if k >= i {
        low = i
      } else {
        return values[k]
      }
    }
    return values[k]
  }

  /// Set the `drop` elements of smallest magnitude to 0; of equal ones, those of the lowest index.
  /// - Parameter scratch: `count` numbers.
  /// - Returns: the sum of the squares of what was dropped.
  public static func dropSmallest(
    _ drop: Int, of values: UnsafeMutablePointer<Double>, count: Int, scratch: UnsafeMutablePointer<Double>
  ) -> Double {
    guard drop > 0 else { return 0 }
    var lost = 0.0
    guard drop < count else {
      for i in 0..<count {
        lost += values[i] * values[i]
        values[i] = 0
      }
      return lost
    }
    for i in 0..<count { scratch[i] = values[i].magnitude }
    let threshold = smallest(drop - 1, of: scratch, count: count)
    var equals = drop
    for i in 0..<count where values[i].magnitude < threshold { equals -= 1 }
    for i in 0..<count {
      let magnitude = values[i].magnitude
      guard magnitude < threshold || (magnitude == threshold && equals > 0) else { continue }
      if magnitude == threshold { equals -= 1 }
      lost += magnitude * magnitude
      values[i] = 0
    }
    return lost
  }
}
