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
    var peak = 0.0
    var carry = 0.0
    for i in 0..<count {
      peak = max(peak, values[i].magnitude)
      // A difference with itself is 0, or NaN where the element is not finite.
      carry += values[i] - values[i]
    }
    return carry == 0 ? peak : nil
  }

  public func scale(by factor: Double) {
    for i in 0..<count { values[i] *= factor }
  }
}

// MARK: - Products, on one thread of OpenBLAS

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

  /// self = a aᵀ, or aᵀ a; symmetric, both triangles.
  func gram(of a: MatrixView, columns ofColumns: Bool) {
    _ = OpenBLAS.oneThread
    precondition(rows == columns && rows == (ofColumns ? a.columns : a.rows))
    // Row-major a is column-major aᵀ.
    var (n, k, gap) = (Int32(rows), Int32(ofColumns ? a.rows : a.columns), Int32(max(1, a.columns)))
    var (one, zero) = (1.0, 0.0)
    dsyrk_("L", ofColumns ? "N" : "T", &n, &k, &one, a.values, &gap, &zero, values, &n, 1, 1)
    // The other triangle, tile by tile.
    let tile = 64
    for top in stride(from: 0, to: rows, by: tile) {
      for left in stride(from: 0, to: top + 1, by: tile) {
        for i in top..<min(top + tile, rows) {
          for j in left..<min(left + tile, i) { values[i * rows + j] = values[j * rows + i] }
        }
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

  func run(factor: Double = 1, keeping: Double = 0) {
    _ = OpenBLAS.oneThread
    guard rows > 0, columns > 0 else { return }
    // Column-major, cᵀ = op(b)ᵀ op(a)ᵀ: the operands change places and nothing is transposed.
    var (m, n, k) = (Int32(columns), Int32(rows), Int32(inner))
    var (first, second, third) = (Int32(max(1, bStride)), Int32(max(1, aStride)), Int32(cStride))
    var (alpha, beta) = (factor, keeping)
    dgemm_(
      bTransposed ? "T" : "N", aTransposed ? "T" : "N", &m, &n, &k, &alpha, b, &first, a, &second, &beta, c, &third, 1, 1)
  }
}
