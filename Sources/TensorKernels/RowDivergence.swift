// Row divergence: KL(p || q) of two rows, p and q their softmax with 1e-8 added to every probability.
//
//   p_j = exp(x_j - max x) / sum_k exp(x_k - max x) + 1e-8, q likewise;   KL = sum_j p_j log(p_j / q_j)
//
// Both sums of probabilities are the same, so each term may have q_j - p_j added: p (t - log(1 + t)), t = (q - p) / p, which is never
// negative and of second order in t, where the terms of the formula are of first order and cancel. With s = (q - p) / (q + p) it is
// s ((q - p) - 2 p (s^2/3 + s^4/5 + ...)), used while s^2 <= 0.03.
// Shapes: two rows [n]. Types: F32 or F64, both the same. Arithmetic: binary64, terms added in 16 lanes, element by element.
// NaN: gives NaN. An infinity gives NaN. Three passes: the largest, the sums, the terms; the exponentials of a row's first `kept` elements
// are kept from the second for the third.

public enum RowDivergence {
  private static let floor = 1e-8
  private static let kept = 6144

  /// Bytes of scratch that one call takes.
  public static let scratchBytes = 2 * kept * 8

  /// - Parameters:
  ///   - from: first element of the row.
  ///   - q, p: which inputs.
  @inline(never)
  public static func of(_ inputs: KernelInputs, from: Int, count: Int, p: Int, q: Int) -> Double {
    switch inputs.dtype {
    case .f32: divergence(F32Element.self, inputs, from, count, p, q)
    case .f64: divergence(F64Element.self, inputs, from, count, p, q)
    default: preconditionFailure("row divergence has no kernel for \(inputs.dtype)")
    }
  }

  @inline(__always)
  private static func divergence<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ from: Int, _ count: Int, _ p: Int, _ q: Int
  ) -> Double where Element.Arithmetic == Double {
    let tiles = (min(count, kept) + 15) / 16
    return withUnsafeTemporaryAllocation(of: Lanes<Double>.self, capacity: 2 * tiles) { space in
      let (first, second) = (space.baseAddress!, space.baseAddress! + tiles)
      let rowP = Row<Element>(inputs.table[p] + from * Element.size, count, first, tiles)
      let rowQ = Row<Element>(inputs.table[q] + from * Element.size, count, second, tiles)
      var total = Lanes<Double>(low: .zero, high: .zero)
      for tile in 0..<(count + 15) / 16 {
        let (a, b) = (rowP.probabilities(tile), rowQ.probabilities(tile))
        total.low += term(a.low, b.low)
        total.high += term(a.high, b.high)
      }
      return laneSum(total.low) + laneSum(total.high)
    }
  }

  /// p log(p / q) + q - p. Equal probabilities add nothing, those past the row's end among them.
  @inline(__always)
  private static func term(_ p: SIMD8<Double>, _ q: SIMD8<Double>) -> SIMD8<Double> {
    let difference = q - p
    let s = difference / (q + p)
    let square = s * s
    let near = s * (difference - 2 * p * ElementaryFunctions.tail(square))
    // All bits where it is far, for a comparison of all lanes would go lane by lane.
    let isFar = unsafeBitCast(0.03 - square, to: SIMD8<Int64>.self) &>> 63
    if isFar.wrappedSum() == 0 { return near }
    let far = difference - p * ElementaryFunctions.log(q / p)
    return Double.cleared(near, where: isFar) + Double.cleared(far, where: ~isFar)
  }

  /// One row, and the exponentials of its first elements.
  private struct Row<Element: KernelElement> where Element.Arithmetic == Double {
    private let start: UnsafeRawPointer
    private let count: Int
    private let exponentials: UnsafeMutablePointer<Lanes<Double>>
    private let kept: Int
    private var (top, share) = (-Double.infinity, 0.0)

    @inline(__always)
    init(_ start: UnsafeRawPointer, _ count: Int, _ exponentials: UnsafeMutablePointer<Lanes<Double>>, _ kept: Int) {
      (self.start, self.count, self.exponentials, self.kept) = (start, count, exponentials, kept)
      var most = SIMD8<Double>(repeating: -.infinity)
      let tiles = (count + 15) / 16
      for tile in 0..<tiles {
        let lanes = values(tile)
        most = Double.larger(most, Double.larger(lanes.low, lanes.high))
      }
      for lane in 0..<8 { top = max(top, most[lane]) }
      var (low, high) = (SIMD8<Double>.zero, SIMD8<Double>.zero)
      for tile in 0..<tiles {
        let lanes = exponential(tile)
        if tile < kept { (exponentials + tile).initialize(to: lanes) }
        low += lanes.low
        high += lanes.high
      }
      share = 1 / (laneSum(low) + laneSum(high))
    }

    /// 16 elements, minus infinity past the end.
    @inline(__always)
    private func values(_ tile: Int) -> Lanes<Double> {
      if 16 * (tile + 1) <= count { return Element.load(start, 16 * tile * Element.size) }
      let rest = count - 16 * tile
      return withUnsafeTemporaryAllocation(byteCount: 16 * Element.size, alignment: 16) { padded in
        padded.initializeMemory(as: UInt8.self, repeating: 0)
        padded.copyMemory(from: UnsafeRawBufferPointer(start: start + 16 * tile * Element.size, count: rest * Element.size))
        var lanes = Element.load(UnsafeRawPointer(padded.baseAddress!), 0)
        for lane in 0..<8 where lane >= rest { lanes.low[lane] = -.infinity }
        for lane in 0..<8 where lane + 8 >= rest { lanes.high[lane] = -.infinity }
        return lanes
      }
    }

    @inline(__always)
    private func exponential(_ tile: Int) -> Lanes<Double> {
      let lanes = values(tile)
      return Lanes(low: ElementaryFunctions.exp(lanes.low - top), high: ElementaryFunctions.exp(lanes.high - top))
    }

    @inline(__always)
    func probabilities(_ tile: Int) -> Lanes<Double> {
      let lanes = tile < kept ? exponentials[tile] : exponential(tile)
      return Lanes(low: lanes.low * share + floor, high: lanes.high * share + floor)
    }
  }
}
