// Rows: chunks of the inputs in arithmetic type, one row of 1024 values per input, and what is done with them.
//
// The steps from which the Gram and the centred kernels are made. A row is padded with zeros to a multiple of 16, so that no
// step has a tail. All are generic and inlined into concrete kernels of this module; none is public.

/// Scratch rows of one kernel call.
struct Rows<Scalar: ArithmeticScalar> {
  let base: UnsafeMutablePointer<Scalar>
  private let vectors: UnsafeMutablePointer<SIMD8<Scalar>>

  /// - Parameter workspace: with 64 bytes to spare for the alignment that vectors need.
  @inline(__always)
  init(_ workspace: UnsafeMutableRawPointer) {
    let aligned = workspace.alignedUp(toMultipleOf: 64)
    base = aligned.assumingMemoryBound(to: Scalar.self)
    vectors = aligned.assumingMemoryBound(to: SIMD8<Scalar>.self)
  }

  @inline(__always)
  subscript(row: Int) -> UnsafeMutablePointer<Scalar> { base + row &* KernelGeometry.chunk }

  /// Vector `i` (elements 8 i to 8 i + 7) of a row.
  @inline(__always)
  func vector(_ row: Int, _ i: Int) -> SIMD8<Scalar> { vectors[row &* (KernelGeometry.chunk / 8) &+ i] }

  @inline(__always)
  func set(_ row: Int, _ i: Int, _ value: SIMD8<Scalar>) { vectors[row &* (KernelGeometry.chunk / 8) &+ i] = value }

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

  /// Fill a row with `count` elements of an input, padded with zeros to whole tiles.
  /// (Written out, since closures that a loop calls do not always disappear.)
  @inline(__always)
  func fill<Element: KernelElement>(
    _ row: Int, _: Element.Type, _ inputs: KernelInputs, _ k: Int, times factor: Scalar = 1, from: Int, count: Int
  ) where Element.Arithmetic == Scalar {
    let whole = count / 16
    let source = inputs.table[k] + from * Element.size
    if factor == 1 {
      for tile in 0..<whole {
        let lanes = Element.load(source, tile * 16 * Element.size)
        set(row, 2 * tile, lanes.low)
        set(row, 2 * tile + 1, lanes.high)
      }
    } else {
      for tile in 0..<whole {
        let lanes = Element.load(source, tile * 16 * Element.size)
        set(row, 2 * tile, lanes.low * factor)
        set(row, 2 * tile + 1, lanes.high * factor)
      }
    }
    let rest = count - whole * 16
    guard rest > 0 else { return }
    withPaddedTail(inputs, size: Element.size, from: from + whole * 16, count: rest) { table in
      let lanes = Element.load(table[k], 0)
      set(row, 2 * whole, lanes.low * factor)
      set(row, 2 * whole + 1, lanes.high * factor)
    }
  }

  /// Fill a row with the differences of `count` elements of two inputs, padded with zeros to whole tiles.
  @inline(__always)
  func fill<Element: KernelElement>(
    _ row: Int, _: Element.Type, _ inputs: KernelInputs, _ k: Int, minus reference: Int, from: Int, count: Int
  ) where Element.Arithmetic == Scalar {
    let whole = count / 16
    let (source, center) = (inputs.table[k] + from * Element.size, inputs.table[reference] + from * Element.size)
    for tile in 0..<whole {
      let offset = tile * 16 * Element.size
      let (x, y) = (Element.load(center, offset), Element.load(source, offset))
      set(row, 2 * tile, y.low - x.low)
      set(row, 2 * tile + 1, y.high - x.high)
    }
    let rest = count - whole * 16
    guard rest > 0 else { return }
    withPaddedTail(inputs, size: Element.size, from: from + whole * 16, count: rest) { table in
      let (x, y) = (Element.load(table[reference], 0), Element.load(table[k], 0))
      set(row, 2 * whole, y.low - x.low)
      set(row, 2 * whole + 1, y.high - x.high)
    }
  }

  /// Sum of a row's magnitudes.
  @inline(__always)
  func magnitudes(_ row: Int, vectors: Int) -> Double {
    var (even, odd) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
    for v in stride(from: 0, to: vectors, by: 2) {
      even += Scalar.magnitudes(vector(row, v), narrow: false)
      odd += Scalar.magnitudes(vector(row, v + 1), narrow: false)
    }
    return laneSum(even) + laneSum(odd)
  }

  /// How many elements of a row are not 0.
  @inline(__always)
  func nonZeros(_ row: Int, vectors: Int) -> Double {
    var some = SIMD8<Scalar.Count>.zero
    for v in 0..<vectors { some = Scalar.counting(some, vector(row, v)) }
    return Double(some.wrappedSum())
  }

  /// Add the dot products of `pairs` of rows over `vectors` vectors (a multiple of 2) to `sums`.
  ///
  /// Each product has 16 lanes, the even and the odd vectors, added up by `laneSum` in binary64; a pair's result does not depend on
  /// its neighbours. Four rows with themselves (or three, where no more are left), or four with two others, are taken at a time, as
  /// many sums as there are registers for, and the even and the odd vectors in turn; a row that is not there is replaced by the last.
  @inline(__always)
  func addProducts(_ pairs: RowPairs, vectors: Int, _ sums: UnsafeMutablePointer<Double>) {
    let count = pairs.rows
    if pairs.isDiagonal {
      for i in 0..<count { sums[i] += square(i, 0, vectors) + square(i, 1, vectors) }
      return
    }
    withUnsafeTemporaryAllocation(of: Double.self, capacity: 16) { parts in
      let parts = parts.baseAddress!
      for i in stride(from: 0, to: count, by: 4) {
        withTriangle { triangle in
          addTriangle(i, count, vectors: vectors, to: triangle)
          add(triangle, i, pairs, to: sums)
        }
        for j in stride(from: i + 4, to: count, by: 2) {
          rectangle(i, j, count, 0, vectors, parts)
          rectangle(i, j, count, 1, vectors, parts + 8)
          for a in i..<i + 4 {
            for b in j..<min(j + 2, count) {
              sums[pairs.index(a, b)] += parts[2 * (a - i) + b - j] + parts[8 + 2 * (a - i) + b - j]
            }
          }
        }
      }
    }
  }

  /// Add the dot products of `pairs` of rows over `count` elements, chunk by chunk.
  /// - Parameter fill: makes the rows of a stretch of elements: a chunk, or a part of one if there are few rows, so that reading goes on
  ///   while products are formed.
  @inline(__always)
  func addProducts(
    _ pairs: RowPairs, count: Int, to sums: UnsafeMutablePointer<Double>, fill: (_ start: Int, _ length: Int) -> Void
  ) {
    let isWhole = pairs.rows > 4 || pairs.isDiagonal
    for start in stride(from: 0, to: count, by: KernelGeometry.chunk) {
      let length = min(KernelGeometry.chunk, count - start)
      if isWhole {
        fill(start, length)
        addProducts(pairs, vectors: 2 * ((length + 15) / 16), sums)
        continue
      }
      withTriangle { triangle in
        for part in stride(from: 0, to: length, by: KernelGeometry.part) {
          let some = min(KernelGeometry.part, length - part)
          fill(start + part, some)
          addTriangle(0, pairs.rows, vectors: 2 * ((some + 15) / 16), to: triangle)
        }
        add(triangle, 0, pairs, to: sums)
      }
    }
  }

  /// The lanes of the products of four rows with one another, 0 at first: (a, b) at 4 a + b, those of odd vectors 16 further on.
  @inline(__always)
  private func withTriangle(_ body: (UnsafeMutablePointer<SIMD8<Scalar>>) -> Void) {
    withUnsafeTemporaryAllocation(of: SIMD8<Scalar>.self, capacity: 32) { lanes in
      lanes.initialize(repeating: .zero)
      body(lanes.baseAddress!)
    }
  }

  /// Add the products of rows i to i + 3 with one another, lane by lane; see `addProducts`.
  @inline(__always)
  private func addTriangle(_ i: Int, _ count: Int, vectors: Int, to lanes: UnsafeMutablePointer<SIMD8<Scalar>>) {
    if count - i > 3 {
      triangle4(i, 0, vectors, lanes)
      triangle4(i, 1, vectors, lanes + 16)
    } else {
      triangle3(i, count, 0, vectors, lanes)
      triangle3(i, count, 1, vectors, lanes + 16)
    }
  }

  /// Add up the lanes of the products of rows i to i + 3.
  @inline(__always)
  private func add(
    _ lanes: UnsafeMutablePointer<SIMD8<Scalar>>, _ i: Int, _ pairs: RowPairs, to sums: UnsafeMutablePointer<Double>
  ) {
    for a in i..<min(i + 4, pairs.rows) {
      for b in a..<min(i + 4, pairs.rows) {
        let place = 4 * (a - i) + b - i
        sums[pairs.index(a, b)] += laneSum(lanes[place]) + laneSum(lanes[16 + place])
      }
    }
  }

  @inline(__always)
  private func square(_ row: Int, _ first: Int, _ vectors: Int) -> Double {
    var sum = SIMD8<Scalar>.zero
    for v in stride(from: first, to: vectors, by: 2) {
      let a = vector(row, v)
      sum.addProduct(a, a)
    }
    return laneSum(sum)
  }

  /// Add the products of rows i to i + 3 with one another over every second vector: (a, b) at 4 a + b.
  @inline(never)
  private func triangle4(_ i: Int, _ first: Int, _ vectors: Int, _ lanes: UnsafeMutablePointer<SIMD8<Scalar>>) {
    var (s00, s01, s02, s03) = (lanes[0], lanes[1], lanes[2], lanes[3])
    var (s11, s12, s13) = (lanes[5], lanes[6], lanes[7])
    var (s22, s23, s33) = (lanes[10], lanes[11], lanes[15])
    for v in stride(from: first, to: vectors, by: 2) {
      let (a, b, c, d) = (vector(i, v), vector(i + 1, v), vector(i + 2, v), vector(i + 3, v))
      s00.addProduct(a, a)
      s01.addProduct(a, b)
      s02.addProduct(a, c)
      s03.addProduct(a, d)
      s11.addProduct(b, b)
      s12.addProduct(b, c)
      s13.addProduct(b, d)
      s22.addProduct(c, c)
      s23.addProduct(c, d)
      s33.addProduct(d, d)
    }
    (lanes[0], lanes[1], lanes[2], lanes[3]) = (s00, s01, s02, s03)
    (lanes[5], lanes[6], lanes[7]) = (s11, s12, s13)
    (lanes[10], lanes[11], lanes[15]) = (s22, s23, s33)
  }

  /// The same of rows i to i + 2, of which one or two may not be there.
  @inline(never)
  private func triangle3(_ i: Int, _ count: Int, _ first: Int, _ vectors: Int, _ lanes: UnsafeMutablePointer<SIMD8<Scalar>>) {
    let (second, third) = (min(i + 1, count - 1), min(i + 2, count - 1))
    var (s00, s01, s02) = (lanes[0], lanes[1], lanes[2])
    var (s11, s12, s22) = (lanes[5], lanes[6], lanes[10])
    for v in stride(from: first, to: vectors, by: 2) {
      let (a, b, c) = (vector(i, v), vector(second, v), vector(third, v))
      s00.addProduct(a, a)
      s01.addProduct(a, b)
      s02.addProduct(a, c)
      s11.addProduct(b, b)
      s12.addProduct(b, c)
      s22.addProduct(c, c)
    }
    (lanes[0], lanes[1], lanes[2]) = (s00, s01, s02)
    (lanes[5], lanes[6], lanes[10]) = (s11, s12, s22)
  }

  /// Products of rows i to i + 3, which are all there, with rows j and j + 1: (a, b) at 2 a + b.
  @inline(__always)
  private func rectangle(
    _ i: Int, _ j: Int, _ count: Int, _ first: Int, _ vectors: Int, _ parts: UnsafeMutablePointer<Double>
  ) {
    let next = min(j + 1, count - 1)
    var (s0, s1, s2, s3) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero, SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
    var (t0, t1, t2, t3) = (SIMD8<Scalar>.zero, SIMD8<Scalar>.zero, SIMD8<Scalar>.zero, SIMD8<Scalar>.zero)
    for v in stride(from: first, to: vectors, by: 2) {
      let (x, y) = (vector(j, v), vector(next, v))
      let (a, b, c, d) = (vector(i, v), vector(i + 1, v), vector(i + 2, v), vector(i + 3, v))
      s0.addProduct(a, x)
      t0.addProduct(a, y)
      s1.addProduct(b, x)
      t1.addProduct(b, y)
      s2.addProduct(c, x)
      t2.addProduct(c, y)
      s3.addProduct(d, x)
      t3.addProduct(d, y)
    }
    (parts[0], parts[1], parts[2], parts[3]) = (laneSum(s0), laneSum(t0), laneSum(s1), laneSum(t1))
    (parts[4], parts[5], parts[6], parts[7]) = (laneSum(s2), laneSum(t2), laneSum(s3), laneSum(t3))
  }
}

/// The pairs (i, j), i <= j, of `rows` rows, in the order in which triangles are stored: (0,0), (0,1) ... (1,1) ...
public struct RowPairs: Sendable {
  public let rows: Int
  let isDiagonal: Bool

  /// All pairs of `rows` rows.
  public init(rows: Int) { (self.rows, isDiagonal) = (rows, false) }

  /// Only the diagonal: squared norms.
  public init(diagonal rows: Int) { (self.rows, isDiagonal) = (rows, true) }

  public var count: Int { isDiagonal ? rows : rows * (rows + 1) / 2 }

  /// Where pair (i, j) stands among all.
  @inline(__always)
  func index(_ i: Int, _ j: Int) -> Int { i * rows - i * (i - 1) / 2 + j - i }
}

extension RowPairs {
  /// Where the squares of `rows` rows stand among the pairs of `init(rows:)`.
  public static func diagonal(rows: Int) -> [Int] {
    let pairs = RowPairs(rows: rows)
    return (0..<rows).map { pairs.index($0, $0) }
  }
}
