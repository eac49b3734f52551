// Row divergence: KL(p || q) of two rows, p and q their softmax with 1e-8 added to every probability.
//
//   p_j = exp(x_j - max x) / sum_k exp(x_k - max x) + 1e-8, q likewise;   KL = sum_j p_j log(p_j / q_j)
//
// Both sums of probabilities are the same, so each term may have q_j - p_j added: p (t - log(1 + t)), t = (q - p) / p, which is never
// negative and of second order in t, where the terms of the formula are of first order and cancel.
// Shapes: two rows [n]. Types: F32 or F64, both the same. Arithmetic: binary64, terms added in 8 lanes, element by element.
// NaN: gives NaN. An infinity gives NaN. Cost: about 100 instructions per 8 elements and pass, three passes.

public enum RowDivergence {
  private static let floor = 1e-8

  /// - Parameters:
  ///   - from: first element of the row.
  ///   - q, p: which inputs.
  @inline(never)
  public static func of(_ inputs: KernelInputs, from: Int, count: Int, p: Int, q: Int) -> Double {
    switch inputs.dtype {
    case .f32: divergence(Float.self, inputs, from, count, p, q)
    case .f64: divergence(Double.self, inputs, from, count, p, q)
    default: preconditionFailure("row divergence has no kernel for \(inputs.dtype)")
    }
  }

  @inline(__always)
  private static func divergence<Element: BinaryFloatingPoint & SIMDScalar>(
    _: Element.Type, _ inputs: KernelInputs, _ from: Int, _ count: Int, _ p: Int, _ q: Int
  ) -> Double {
    let first = inputs.table[p].assumingMemoryBound(to: Element.self) + from
    let second = inputs.table[q].assumingMemoryBound(to: Element.self) + from
    let (topP, topQ) = (maximum(first, count), maximum(second, count))
    let shareP = 1 / sum(first, count, topP)
    let shareQ = 1 / sum(second, count, topQ)
    var total = SIMD8<Double>.zero
    for start in stride(from: 0, to: count, by: 8) {
      let a = ElementaryFunctions.exp(load(first, start, count, topP) - topP) * shareP + floor
      let b = ElementaryFunctions.exp(load(second, start, count, topQ) - topQ) * shareQ + floor
      let t = (b - a) / a
      let s = t / (2 + t)
      // t - log(1 + t) = t s - 2 s (s²/3 + s⁴/5 + ...), good while s² <= 0.03.
      var term = t * s - 2 * s * ElementaryFunctions.tail(s * s)
      let isFar = t .> 0.4 .| t .< -0.29
      if any(isFar) { term = term.replacing(with: t - ElementaryFunctions.log(b / a), where: isFar) }
      var part = a * term
      for lane in max(0, count - start)..<max(8, count - start) where lane < 8 { part[lane] = 0 }
      total += part
    }
    return laneSum(total)
  }

  /// Eight elements, the last ones repeated as `fill`.
  @inline(__always)
  private static func load<Element: BinaryFloatingPoint & SIMDScalar>(
    _ row: UnsafePointer<Element>, _ start: Int, _ count: Int, _ fill: Double
  ) -> SIMD8<Double> {
    if start + 8 <= count {
      let values = UnsafeRawPointer(row + start).loadUnaligned(as: SIMD8<Element>.self)
      var wide = SIMD8<Double>()
      for lane in 0..<8 { wide[lane] = Double(values[lane]) }
      return wide
    }
    var values = SIMD8<Double>(repeating: fill)
    for lane in 0..<(count - start) { values[lane] = Double(row[start + lane]) }
    return values
  }

  @inline(__always)
  private static func maximum<Element: BinaryFloatingPoint>(_ row: UnsafePointer<Element>, _ count: Int) -> Double {
    var top = -Element.infinity
    // A NaN stays: it is above nothing, and nothing is above it.
    for i in 0..<count where !(row[i] <= top) { top = row[i] }
    return Double(top)
  }

  @inline(__always)
  private static func sum<Element: BinaryFloatingPoint & SIMDScalar>(
    _ row: UnsafePointer<Element>, _ count: Int, _ top: Double
  ) -> Double {
    var total = SIMD8<Double>.zero
    for start in stride(from: 0, to: count, by: 8) {
      var part = ElementaryFunctions.exp(load(row, start, count, top) - top)
      for lane in max(0, count - start)..<max(8, count - start) where lane < 8 { part[lane] = 0 }
      total += part
    }
    return laneSum(total)
  }
}
