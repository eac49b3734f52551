import COpenBLAS
import Platform

/// A row-major matrix in binary64 that owns its memory. A class: it is large, and lives as long as the sweeps that use it.
public final class DenseMatrix {
  public let rows: Int
  public let columns: Int
  private let memory: PageMemory

  /// Zeros.
  public init(rows: Int, columns: Int) {
    (self.rows, self.columns) = (rows, columns)
    memory = PageMemory(byteCount: rows * columns * 8)
  }

  public var values: UnsafeMutablePointer<Double> { memory.start.assumingMemoryBound(to: Double.self) }
  public var count: Int { rows * columns }
  public var view: MatrixView { MatrixView(values, rows: rows, columns: columns, owner: self) }

  /// A stretch of whole rows.
  public func rows(_ range: Range<Int>) -> MatrixView { view.rows(range) }

  public static func bytes(rows: Int, columns: Int) -> Int { rows * columns * 8 }
}

/// Some rows of a matrix, without gaps; it keeps their owner alive.
public struct MatrixView {
  public let values: UnsafeMutablePointer<Double>
  public let rows: Int
  public let columns: Int
  private let owner: DenseMatrix

  fileprivate init(_ values: UnsafeMutablePointer<Double>, rows: Int, columns: Int, owner: DenseMatrix) {
    (self.values, self.rows, self.columns, self.owner) = (values, rows, columns, owner)
  }

  public func rows(_ range: Range<Int>) -> MatrixView {
    precondition(range.lowerBound >= 0 && range.upperBound <= rows)
    return MatrixView(values + range.lowerBound * columns, rows: range.count, columns: columns, owner: owner)
  }

  public var count: Int { rows * columns }
  /// The most linearly independent rows it can have.
  public var side: Int { min(rows, columns) }
  public func row(_ index: Int) -> UnsafeMutablePointer<Double> { values + index * columns }

  /// Largest magnitude of an element; nil when one is NaN or infinite.
  public var peak: Double? {
    let ranges = Cut.ranges(count, work: count << 5)
    let peaks = Crew.map(ranges.count) { peak(ranges[$0]) }
    return peaks.reduce(0) { all, part in all.flatMap { all in part.map { max(all, $0) } } }
  }

  private func peak(_ range: Range<Int>) -> Double? {
    var peak = 0.0
    var carry = 0.0
    for i in range {
      peak = max(peak, values[i].magnitude)
      // A difference with itself is 0, or NaN where the element is not finite.
      carry += values[i] - values[i]
    }
    return carry == 0 ? peak : nil
  }

  public func scale(by factor: Double) {
    Cut.each(count) { for i in $0 { values[i] *= factor } }
  }
}

// MARK: - Products

/// How the rows or columns of a large result are cut into parts that idle workers may compute (Crew.swift). OpenBLAS uses one thread, and
/// its bits may depend on where a result is cut, so that depends on the sizes alone.
enum Cut {
  /// Multiplications below which sharing costs more than it saves.
  private static let smallest = 1 << 26
  private static let parts = 8

  /// The stretches of `length` for so many multiplications in all.
  static func ranges(_ length: Int, work: Int) -> [Range<Int>] {
    guard work >= smallest else { return [0..<length] }
    let width = max(32, (length + parts - 1) / parts + 15) / 16 * 16
    return stride(from: 0, to: length, by: width).map { $0..<min($0 + width, length) }
  }

  /// The tiles of a product. A call packs its operands anew, in strips of 192 a quarter of its time: so tiles are nearly square, of a side
  /// of 768 at most, but four of them at least.
  static func tiles(_ rows: Int, _ columns: Int, work: Int) -> [(down: Range<Int>, across: Range<Int>)] {
    guard work >= smallest else { return [(0..<rows, 0..<columns)] }
    return sides(rows).flatMap { down in sides(columns).map { (down, $0) } }
  }

  /// Those of a symmetric result's lower triangle: squares on the diagonal last, which are half of the work.
  static func lowerTiles(_ rows: Int, work: Int) -> [(down: Range<Int>, across: Range<Int>)] {
    guard work >= smallest else { return [(0..<rows, 0..<rows)] }
    let sides = sides(rows)
    let below = sides.indices.flatMap { i in sides[..<i].map { (sides[i], $0) } }
    return below + sides.map { ($0, $0) }
  }

  private static func sides(_ length: Int) -> [Range<Int>] {
    let count = length < 64 ? 1 : max(2, (length + 767) / 768)
    let width = ((length + count - 1) / count + 15) / 16 * 16
    return stride(from: 0, to: length, by: width).map { $0..<min($0 + width, length) }
  }

  /// Run `body` on stretches of a loop over `count` elements that costs little for each.
  static func each(_ count: Int, _ body: (Range<Int>) -> Void) {
    let ranges = ranges(count, work: count << 5)
    Crew.each(ranges.count) { body(ranges[$0]) }
  }
}

extension MatrixView {
  /// Do all sizes fit LAPACK's 32-bit integers?
  var isAddressable: Bool { rows > 0 && columns > 0 && rows <= Int(Int32.max) && columns <= Int(Int32.max) }

  /// self = factor * op(a) * op(b) + keeping * self, where op transposes on demand.
  public func product(
    _ a: MatrixView, _ b: MatrixView, firstTransposed aTransposed: Bool = false, secondTransposed bTransposed: Bool = false,
    factor: Double = 1, keeping: Double = 0
  ) {
    let inner = aTransposed ? a.rows : a.columns
    precondition((aTransposed ? a.columns : a.rows) == rows && (bTransposed ? b.rows : b.columns) == columns)
    precondition((bTransposed ? b.columns : b.rows) == inner)
    StridedProduct(
      rows: rows, columns: columns, inner: inner, a: a.values, aStride: a.columns, aTransposed: aTransposed, b: b.values,
      bStride: b.columns, bTransposed: bTransposed, c: values, cStride: columns
    ).run(factor: factor, keeping: keeping)
  }

  /// self = a aᵀ, or aᵀ a; symmetric, both triangles or the lower one only.
  func gram(of a: MatrixView, columns ofColumns: Bool, mirrored: Bool = true) {
    precondition(rows == columns && rows == (ofColumns ? a.columns : a.rows))
    let tiles = Cut.lowerTiles(rows, work: rows * a.count / 2)
    Crew.each(tiles.count) { gramTile(tiles[$0].down, tiles[$0].across, a, ofColumns) }
    if mirrored { mirror() }
  }

  private func gramTile(_ down: Range<Int>, _ across: Range<Int>, _ a: MatrixView, _ ofColumns: Bool) {
    let inner = ofColumns ? a.rows : a.columns
    let own = a.values + (ofColumns ? down.lowerBound : down.lowerBound * a.columns)
    let other = a.values + (ofColumns ? across.lowerBound : across.lowerBound * a.columns)
    let target = values + down.lowerBound * rows + across.lowerBound
    guard down == across else {
      return StridedProduct(
        rows: down.count, columns: across.count, inner: inner, a: own, aStride: a.columns, aTransposed: ofColumns, b: other,
        bStride: a.columns, bTransposed: !ofColumns, c: target, cStride: rows
      ).runWhole()
    }
    var (n, k, gap, side) = (Int32(down.count), Int32(inner), Int32(max(1, a.columns)), Int32(rows))
    var (one, zero) = (1.0, 0.0)
    // Row-major a is column-major aᵀ.
    OpenBLAS.call { dsyrk_("U", ofColumns ? "N" : "T", &n, &k, &one, own, &gap, &zero, target, &side, 1, 1) }
  }

  /// Copy the lower triangle to the upper one.
  func mirror() {
    let ranges = Cut.ranges(rows, work: count << 5)
    Crew.each(ranges.count) { mirror(ranges[ranges.count - 1 - $0]) }
  }

  /// Copy rows of the lower triangle to the upper one, tile by tile.
  func mirror(_ range: Range<Int>) {
    // A line or two of each row: rows whose distance is a multiple of a large power of two share few places of the cache.
    let tile = 16
    for top in stride(from: range.lowerBound, to: range.upperBound, by: tile) {
      let end = min(top + tile, range.upperBound)
      for left in stride(from: 0, to: end, by: tile) {
        for i in top..<end { for j in left..<max(left, min(left + tile, i)) { values[j * rows + i] = values[i * rows + j] } }
      }
    }
  }
}

/// c = factor * op(a) op(b) + keeping * c for row-major matrices whose rows may have gaps.
struct StridedProduct {
  let rows: Int
  let columns: Int
  let inner: Int
  let a: UnsafePointer<Double>
  let aStride: Int
  var aTransposed = false
  let b: UnsafePointer<Double>
  let bStride: Int
  var bTransposed = false
  let c: UnsafeMutablePointer<Double>
  let cStride: Int

  /// The whole product, cut into parts for a crew where it is large.
  func run(factor: Double = 1, keeping: Double = 0) {
    let tiles = Cut.tiles(rows, columns, work: rows * columns * inner)
    Crew.each(tiles.count) { tile(tiles[$0].down, tiles[$0].across).runWhole(factor: factor, keeping: keeping) }
  }

  private func tile(_ down: Range<Int>, _ across: Range<Int>) -> StridedProduct {
    StridedProduct(
      rows: down.count, columns: across.count, inner: inner, a: a + down.lowerBound * (aTransposed ? 1 : aStride),
      aStride: aStride, aTransposed: aTransposed, b: b + across.lowerBound * (bTransposed ? bStride : 1), bStride: bStride,
      bTransposed: bTransposed, c: c + down.lowerBound * cStride + across.lowerBound, cStride: cStride)
  }

  func runWhole(factor: Double = 1, keeping: Double = 0) {
    guard rows > 0, columns > 0 else { return }
    // Column-major, cᵀ = op(b)ᵀ op(a)ᵀ: the operands change places and nothing is transposed.
    var (m, n, k) = (Int32(columns), Int32(rows), Int32(inner))
    var (first, second, third) = (Int32(max(1, bStride)), Int32(max(1, aStride)), Int32(cStride))
    var (alpha, beta) = (factor, keeping)
    OpenBLAS.call {
      dgemm_(
        bTransposed ? "T" : "N", aTransposed ? "T" : "N", &m, &n, &k, &alpha, b, &first, a, &second, &beta, c, &third, 1, 1)
    }
  }
}
