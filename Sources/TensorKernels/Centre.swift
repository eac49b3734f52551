// Centred kernels: rows u_i = s_i * x_i about a centre m that need not be one of the inputs.
//
//   gram:     the upper triangle of <., .> over the rows [m, u_1 - m, ..., u_K - m]
//   combine:  out = beta * m + sum_i c_i * u_i   (+ addition, when a block of values to add is given)
//
// m is the coordinate-wise median of the u_i, lower (x_((K+1)/2), 1-based) or standard (mean of the two middle ones for even
// K), or an affine combination sum_i a_i u_i. With a sign reference r, x_i is first given the sign of x_r wherever both are
// non-zero and differ.
// Shapes: K inputs [n]. Types: inputs F32, F64, F16 or BF16, all the same; out the same type, or F64 for F32 and F64.
// Arithmetic and order: as in Gram.swift and Combine.swift. The median is found by Batcher's odd-even merge network on vectors
// (K. E. Batcher, "Sorting networks and their applications", 1968): K log^2 K minima and maxima per element.
// NaN: a NaN in x_i makes row i's sums NaN. Traffic: K * size bytes per element, and the output's.

/// Which median of an even number of values.
public enum MedianKind: Sendable { case lower, standard }

public struct CentredRows {
  public enum Centre {
    case median(MedianKind, SortingNetwork)
    /// m = sum_i weights[i] * u_i.
    case affine(weights: [Double])
  }

  private typealias Call = (
    inputs: KernelInputs, from: Int, count: Int, beta: Double, coefficients: [Double], addition: UnsafePointer<Double>?,
    output: UnsafeMutableRawPointer, workspace: UnsafeMutableRawPointer
  )

  public let scales: [Double]
  public let signReference: Int?
  public let centre: Centre

  /// - Parameters:
  ///   - scales: s_i, one per input.
  ///   - signReference: index of the input whose signs the others take; nil: none.
  public init(scales: [Double], signReference: Int? = nil, centre: Centre) {
    self.scales = scales
    self.signReference = signReference
    self.centre = centre
  }

  /// The same rows about the centre sum_i weights[i] * u_i.
  public func about(_ weights: [Double]) -> CentredRows {
    CentredRows(scales: scales, signReference: signReference, centre: .affine(weights: weights))
  }

  /// Add one block's products to `sums`, as many as `RowPairs(rows: K + 1)` has.
  @inline(never)
  public func accumulateGram(
    _ inputs: KernelInputs, from: Int = 0, count: Int, pairs: RowPairs, sums: UnsafeMutablePointer<Double>,
    workspace: UnsafeMutableRawPointer
  ) {
    switch inputs.dtype {
    case .bf16: gram(BF16Element.self, inputs, from, count, pairs, sums, workspace)
    case .f16: gram(F16Element.self, inputs, from, count, pairs, sums, workspace)
    case .f32: gram(F32Element.self, inputs, from, count, pairs, sums, workspace)
    case .f64: gram(F64Element.self, inputs, from, count, pairs, sums, workspace)
    default: preconditionFailure("centred gram has no kernel for \(inputs.dtype)")
    }
  }

  /// - Parameters:
  ///   - addition: `count` values added to the result, or nil.
  ///   - output: `count` elements of `outputType`, the inputs' type or F64 (F64 only for F32 and F64 inputs).
  @inline(never)
  public func combine(
    _ inputs: KernelInputs, from: Int = 0, count: Int, centreCoefficient: Double, coefficients: [Double],
    addition: UnsafePointer<Double>?, output: UnsafeMutableRawPointer, _ outputType: DType, workspace: UnsafeMutableRawPointer
  ) {
    let call = (inputs, from, count, centreCoefficient, coefficients, addition, output, workspace)
    switch (inputs.dtype, outputType) {
    case (.bf16, .bf16): combine(BF16Element.self, BF16Element.self, call)
    case (.f16, .f16): combine(F16Element.self, F16Element.self, call)
    case (.f32, .f32): combine(F32Element.self, F32Element.self, call)
    case (.f32, .f64): combine(F32Element.self, F64Element.self, call)
    case (.f64, .f64): combine(F64Element.self, F64Element.self, call)
    default: preconditionFailure("centred combine has no kernel from \(inputs.dtype) to \(outputType)")
    }
  }

  // MARK: - Steps on rows

  /// Rows 0..<K get the u_i, or with `Subtracts` u_i - m, and row `place` gets the centre m.
  @inline(__always)
  private func load<Element: KernelElement, Subtracts: Choice>(
    _: Element.Type, _ inputs: KernelInputs, _ start: Int, _ length: Int, _ rows: Rows<Element.Arithmetic>, centre place: Int,
    subtracts: Subtracts.Type
  ) {
    typealias Scalar = Element.Arithmetic
    let vectors = 2 * ((length + 15) / 16)
    if let signReference {
      for k in 0..<inputs.count { rows.fill(k, Element.self, inputs, k, from: start, count: length) }
      for k in 0..<inputs.count where k != signReference {
        for v in 0..<vectors { rows.set(k, v, Scalar.withSigns(rows.vector(k, v), of: rows.vector(signReference, v))) }
      }
      for k in 0..<inputs.count where scales[k] != 1 {
        for v in 0..<vectors { rows.set(k, v, rows.vector(k, v) * Scalar(scales[k])) }
      }
    } else {
      for k in 0..<inputs.count {
        rows.fill(k, Element.self, inputs, k, times: Scalar(scales[k]), from: start, count: length)
      }
    }
    let centring = Centring(rows: rows, vectors: vectors, inputs: inputs.count, place: place)
    switch (centre, inputs.count) {
    case (.median(let kind, _), 2): centring.median(kind, Two.self, subtracts)
    case (.median(let kind, _), 3): centring.median(kind, Three.self, subtracts)
    case (.median(let kind, _), 4): centring.median(kind, Four.self, subtracts)
    case (.median(let kind, let network), _): centring.median(kind, network, subtracts)
    case (.affine(let weights), 2): centring.affine(weights, Two.self, subtracts)
    case (.affine(let weights), 3): centring.affine(weights, Three.self, subtracts)
    case (.affine(let weights), 4): centring.affine(weights, Four.self, subtracts)
    case (.affine(let weights), _): centring.affine(weights, Several.self, subtracts)
    }
  }

  @inline(__always)
  private func gram<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ from: Int, _ count: Int, _ pairs: RowPairs, _ sums: UnsafeMutablePointer<Double>,
    _ workspace: UnsafeMutableRawPointer
  ) {
    typealias Scalar = Element.Arithmetic
    // One row before the u_i, so that the centre can be row 0 of the products.
    let all = Rows<Scalar>(workspace)
    let rows = Rows<Scalar>(workspace + KernelGeometry.chunk * MemoryLayout<Scalar>.size)
    all.addProducts(pairs, count: count, to: sums) { start, length in
      load(Element.self, inputs, from + start, length, rows, centre: -1, subtracts: Yes.self)
    }
  }

  @inline(__always)
  private func combine<In: KernelElement, Out: KernelElement>(
    _: In.Type, _: Out.Type, _ call: Call
  ) where In.Arithmetic == Out.Arithmetic {
    typealias Scalar = In.Arithmetic
    let (inputs, from, count, beta, coefficients, addition, output, workspace) = call
    let rows = Rows<Scalar>(workspace)
    let result = inputs.count
    var start = 0
    while start < count {
      let length = min(KernelGeometry.chunk, count - start)
      load(In.self, inputs, from + start, length, rows, centre: result, subtracts: No.self)
      let centring = Centring(rows: rows, vectors: 2 * ((length + 15) / 16), inputs: inputs.count, place: result)
      switch inputs.count {
      case 2: centring.combine(beta, coefficients, Two.self)
      case 3: centring.combine(beta, coefficients, Three.self)
      case 4: centring.combine(beta, coefficients, Four.self)
      default: centring.combine(beta, coefficients, Several.self)
      }
      for tile in 0..<((length + 15) / 16) {
        var lanes = Lanes(low: rows.vector(result, 2 * tile), high: rows.vector(result, 2 * tile + 1))
        let kept = min(16, length - tile * 16)
        if let addition { lanes = added(In.self, lanes, addition + start + tile * 16, kept) }
        if kept == 16 {
          Out.store(lanes, output, (start + tile * 16) * Out.size)
        } else {
          withUnsafeTemporaryAllocation(byteCount: 16 * Out.size, alignment: 64) { padded in
            Out.store(lanes, padded.baseAddress!, 0)
            (output + (start + tile * 16) * Out.size).copyMemory(from: padded.baseAddress!, byteCount: kept * Out.size)
          }
        }
      }
      start += length
    }
  }

  /// lanes + addition[0..<kept]. The addition goes through the element's own order inside a 16 (BF16 is not in memory order),
  /// so it is stored as an element-ordered F32 or F64 tile first; only the wide types have one.
  @inline(__always)
  private func added<Element: KernelElement>(
    _: Element.Type, _ lanes: Lanes<Element.Arithmetic>, _ addition: UnsafePointer<Double>, _ kept: Int
  ) -> Lanes<Element.Arithmetic> {
    precondition(Element.Arithmetic.self == Double.self, "an addition needs F32 or F64 inputs")
    var sum = lanes
    for i in 0..<min(8, kept) { sum.low[i] += Element.Arithmetic(addition[i]) }
    for i in 8..<max(8, kept) { sum.high[i - 8] += Element.Arithmetic(addition[i]) }
    return sum
  }
}

/// The steps that make a row of centres, each one pass over a chunk's rows.
private struct Centring<Scalar: ArithmeticScalar> {
  let rows: Rows<Scalar>
  let vectors: Int
  let inputs: Int
  /// The centre's row.
  let place: Int

  @inline(__always)
  private func set<Subtracts: Choice>(_ v: Int, _ centre: SIMD8<Scalar>, _ models: Int, _: Subtracts.Type) {
    rows.set(place, v, centre)
    if Subtracts.isYes { for k in 0..<models { rows.set(k, v, rows.vector(k, v) - centre) } }
  }

  /// Of two to four rows: the steps of the network that `SortingNetwork` makes.
  @inline(never)
  func median<Models: FixedCount, Subtracts: Choice>(_ kind: MedianKind, _: Models.Type, _ subtracts: Subtracts.Type) {
    for v in 0..<vectors {
      var (a, b) = Scalar.ordered(rows.vector(0, v), rows.vector(1, v))
      if Models.count == 3 {
        var c = rows.vector(2, v)
        (a, c) = Scalar.ordered(a, c)
        (b, c) = Scalar.ordered(b, c)
        a = b
      } else if Models.count == 4 {
        var (c, d) = Scalar.ordered(rows.vector(2, v), rows.vector(3, v))
        (a, c) = Scalar.ordered(a, c)
        (b, d) = Scalar.ordered(b, d)
        (a, b) = Scalar.ordered(b, c)
      }
      set(v, kind == .lower ? a : (a + b) * 0.5, Models.count!, subtracts)
    }
  }

  @inline(never)
  func median<Subtracts: Choice>(_ kind: MedianKind, _ network: SortingNetwork, _ subtracts: Subtracts.Type) {
    // Four vectors at a time, so that the steps of the network are worth their reading. What a row holds after its last vector
    // is sorted too, and never looked at.
    let width = SortingNetwork.width
    withUnsafeTemporaryAllocation(of: SIMD8<Scalar>.self, capacity: width * inputs) { columns in
      let columns = columns.baseAddress!
      let (lower, upper) = (columns + width * ((inputs - 1) / 2), columns + width * (inputs / 2))
      for v in stride(from: 0, to: vectors, by: width) {
        for k in 0..<inputs { for w in 0..<width { columns[width * k + w] = rows.vector(k, v + w) } }
        network.sort(columns)
        for w in 0..<width { set(v + w, kind == .lower ? lower[w] : (lower[w] + upper[w]) * 0.5, inputs, subtracts) }
      }
    }
  }

  @inline(never)
  func affine<Models: FixedCount, Subtracts: Choice>(
    _ weights: [Double], _: Models.Type, _ subtracts: Subtracts.Type
  ) {
    withScalars(weights) { weights in
      let models = Models.count ?? inputs
      for v in 0..<vectors {
        var centre = SIMD8<Scalar>.zero
        for k in 0..<models { centre.addProduct(SIMD8(repeating: weights[k]), rows.vector(k, v)) }
        set(v, centre, models, subtracts)
      }
    }
  }

  /// The centre's row becomes beta * m + sum_i c_i * u_i.
  @inline(never)
  func combine<Models: FixedCount>(_ beta: Double, _ coefficients: [Double], _: Models.Type) {
    withScalars(coefficients) { coefficients in
      let models = Models.count ?? inputs
      let scale = SIMD8<Scalar>(repeating: Scalar(beta))
      for v in 0..<vectors {
        var sum = rows.vector(place, v) * scale
        for k in 0..<models { sum.addProduct(SIMD8(repeating: coefficients[k]), rows.vector(k, v)) }
        rows.set(place, v, sum)
      }
    }
  }
}

/// Batcher's odd-even merge network for any number of values: a fixed list of compare-and-exchange steps.
public struct SortingNetwork: Sendable {
  private let steps: [(Int32, Int32)]

  public init(count: Int) {
    var steps: [(Int32, Int32)] = []
    var p = 1
    while p < count {
      var k = p
      while k >= 1 {
        for j in stride(from: k % p, to: count - k, by: 2 * k) {
          for i in 0..<min(k, count - j - k) where (i + j) / (2 * p) == (i + j + k) / (2 * p) {
            steps.append((Int32(i + j), Int32(i + j + k)))
          }
        }
        k /= 2
      }
      p *= 2
    }
    self.steps = steps
  }

  /// Vectors that are sorted side by side.
  static let width = 4

  /// - Parameter columns: value i's vectors from `i * width` on.
  @inline(__always)
  func sort<Scalar: ArithmeticScalar>(_ columns: UnsafeMutablePointer<SIMD8<Scalar>>) {
    for (i, j) in steps {
      let (first, second) = (columns + Self.width * Int(i), columns + Self.width * Int(j))
      for w in 0..<Self.width { (first[w], second[w]) = Scalar.ordered(first[w], second[w]) }
    }
  }
}
