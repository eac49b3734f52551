import LinearAlgebra
import Platform

/// Singular triplets of several matrices, one below the other.
final class TripletStack {
  /// [capacity, m] and [capacity, n], of which the first `count` rows are used.
  private let left: DenseMatrix
  private let right: DenseMatrix
  private(set) var sigma: [Double] = []

  init(capacity: Int, rows: Int, columns: Int) {
    left = DenseMatrix(rows: capacity, columns: rows)
    right = DenseMatrix(rows: capacity, columns: columns)
  }

  var count: Int { sigma.count }
  /// Uᵀ: a row per left vector.
  var leftRows: MatrixView { left.rows(0..<count) }
  var rightRows: MatrixView { right.rows(0..<count) }
  func leftRows(_ range: Range<Int>) -> MatrixView { left.rows(range) }

  func append(_ triplets: SingularTriplets) {
    (left.values + count * left.columns).update(from: triplets.left.values, count: triplets.left.count)
    (right.values + count * right.columns).update(from: triplets.right.values, count: triplets.right.count)
    sigma += triplets.sigma
  }

  /// Forget the triplets whose singular value is at most `tolerance` times the largest of all.
  func drop(atMost tolerance: Double) {
    let cutoff = tolerance * (sigma.max() ?? 0)
    var kept = 0
    for j in 0..<count where sigma[j] > cutoff {
      if kept != j {
        (left.values + kept * left.columns).update(from: left.values + j * left.columns, count: left.columns)
        (right.values + kept * right.columns).update(from: right.values + j * right.columns, count: right.columns)
        sigma[kept] = sigma[j]
      }
      kept += 1
    }
    sigma.removeLast(count - kept)
  }

  static func bytes(capacity: Int, rows: Int, columns: Int) -> Int { capacity * (rows + columns) * 8 + capacity * 8 }
}

extension TruncatedSVD {
  /// The largest triplets of a tensor's matrix.
  static func largest(_ rank: Int, of matrix: DenseMatrix, _ tensor: TensorContext) throws(Failure) -> Result {
    guard let result = largest(rank, of: matrix.view) else { throw notDecomposed(tensor) }
    return result
  }
}

extension PolarFactor {
  /// What a tensor's own type deserves.
  static func precision(_ tensor: TensorContext) -> Double { tensor.isDouble ? 1e-6 : single }

  static func replace(
    _ matrix: MatrixView, _ nullSpace: NullSpace, _ tolerance: Double, _ tensor: TensorContext
  ) throws(Failure) -> Result {
    guard let result = replace(matrix, nullSpace: nullSpace, tolerance: tolerance, precision: precision(tensor))
    else { throw notDecomposed(tensor) }
    return result
  }
}
