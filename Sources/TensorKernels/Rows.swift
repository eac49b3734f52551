// Rows: chunks of the inputs in arithmetic type, one row of 1024 values per input, and what is done with them.
//
// The steps from which the Gram and the centred kernels are made. A row is padded with zeros to a multiple of 16, so that no
// step has a tail. All are generic and inlined into concrete kernels of this module; none is public.

/// Scratch rows of one kernel call.
struct Rows<Scalar: ArithmeticScalar> {
  let base: UnsafeMutablePointer<Scalar>

  init(_ workspace: UnsafeMutableRawPointer) {
    base = workspace.assumingMemoryBound(to: Scalar.self)
  }

  @inline(__always)
  subscript(row: Int) -> UnsafeMutablePointer<Scalar> { base + row * KernelGeometry.chunk }

  /// Vector `i` (elements 8 i to 8 i + 7) of a row.
  @inline(__always)
  func vector(_ row: Int, _ i: Int) -> SIMD8<Scalar> {
    UnsafeRawPointer(self[row]).loadUnaligned(fromByteOffset: i * 8 * MemoryLayout<Scalar>.size, as: SIMD8<Scalar>.self)
  }

  @inline(__always)
  func set(_ row: Int, _ i: Int, _ value: SIMD8<Scalar>) {
    UnsafeMutableRawPointer(self[row]).storeBytes(
      of: value, toByteOffset: i * 8 * MemoryLayout<Scalar>.size, as: SIMD8<Scalar>.self)
  }

  /// Call `body(tile, lanes...)` for each 16 elements of a chunk, the last padded with zeros.
  @inline(__always)
  static func tiles<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, from: Int, count: Int,
    _ body: (_ tile: Int, _ table: UnsafePointer<UnsafeRawPointer>, _ offset: Int) -> Void
  ) where Element.Arithmetic == Scalar {
    let whole = count / 16
    for tile in 0..<whole { body(tile, inputs.table, (from + tile * 16) * Element.size) }
    let rest = count - whole * 16
    if rest > 0 {
      withPaddedTail(inputs, size: Element.size, from: from + whole * 16, count: rest) { body(whole, $0, 0) }
    }
  }

  /// Add the dot products of `pairs` of rows over `vectors` vectors (a multiple of 2) to `sums`, four pairs at a time.
  ///
  /// Each product sum has 16 lanes, added up by `laneSum` in binary64; a pair's result does not depend on its neighbours.
  @inline(__always)
  func addDotProducts(
    _ pairs: UnsafePointer<(Int32, Int32)>, _ pairCount: Int, vectors: Int, _ sums: UnsafeMutablePointer<Double>
  ) {
    var p = 0
    while p < pairCount {
      let last = pairCount - 1
      let (q1, q2, q3) = (min(p + 1, last), min(p + 2, last), min(p + 3, last))
      let (a0, b0) = (Int(pairs[p].0), Int(pairs[p].1))
      let (a1, b1) = (Int(pairs[q1].0), Int(pairs[q1].1))
      let (a2, b2) = (Int(pairs[q2].0), Int(pairs[q2].1))
      let (a3, b3) = (Int(pairs[q3].0), Int(pairs[q3].1))
      var s0 = SIMD8<Scalar>.zero, t0 = SIMD8<Scalar>.zero
      var s1 = SIMD8<Scalar>.zero, t1 = SIMD8<Scalar>.zero
      var s2 = SIMD8<Scalar>.zero, t2 = SIMD8<Scalar>.zero
      var s3 = SIMD8<Scalar>.zero, t3 = SIMD8<Scalar>.zero
      for v in stride(from: 0, to: vectors, by: 2) {
        s0.addProduct(vector(a0, v), vector(b0, v))
        t0.addProduct(vector(a0, v + 1), vector(b0, v + 1))
        s1.addProduct(vector(a1, v), vector(b1, v))
        t1.addProduct(vector(a1, v + 1), vector(b1, v + 1))
        s2.addProduct(vector(a2, v), vector(b2, v))
        t2.addProduct(vector(a2, v + 1), vector(b2, v + 1))
        s3.addProduct(vector(a3, v), vector(b3, v))
        t3.addProduct(vector(a3, v + 1), vector(b3, v + 1))
      }
      sums[p] += laneSum(s0) + laneSum(t0)
      if p + 1 < pairCount { sums[p + 1] += laneSum(s1) + laneSum(t1) }
      if p + 2 < pairCount { sums[p + 2] += laneSum(s2) + laneSum(t2) }
      if p + 3 < pairCount { sums[p + 3] += laneSum(s3) + laneSum(t3) }
      p += 4
    }
  }
}

/// The pairs (i, j), i <= j, of `rows` rows, in the order in which triangles are stored: (0,0), (0,1) ... (1,1) ...
///
/// Made once per merge, not per block.
public struct RowPairs {
  let pairs: [(Int32, Int32)]
  public let rows: Int

  /// All pairs of `rows` rows.
  public init(rows: Int) {
    self.rows = rows
    var pairs: [(Int32, Int32)] = []
    pairs.reserveCapacity(rows * (rows + 1) / 2)
    for i in 0..<Int32(rows) { for j in i..<Int32(rows) { pairs.append((i, j)) } }
    self.pairs = pairs
  }

  /// Only the diagonal: squared norms.
  public init(diagonal rows: Int) {
    self.rows = rows
    pairs = (0..<Int32(rows)).map { ($0, $0) }
  }

  public var count: Int { pairs.count }
}

extension RowPairs {
  /// Where the squares of `rows` rows stand among the pairs of `init(rows:)`.
  public static func diagonal(rows: Int) -> [Int] {
    var index = 0
    return (0..<rows).map { row in
      defer { index += rows - row }
      return index
    }
  }
}
