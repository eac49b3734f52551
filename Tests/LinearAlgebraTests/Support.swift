@testable import LinearAlgebra

#if DEBUG
  let isOptimised = false
#else
  let isOptimised = true
#endif

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// In [-1, 1), 53 bits.
  mutating func signed() -> Double { Double(Int64(bitPattern: next()) >> 10) * 0x1p-53 }
  mutating func values(_ count: Int) -> [Double] { (0..<count).map { _ in signed() } }

  /// Row-major Gram matrix of `n` random vectors of `rank` numbers: positive semidefinite, of that rank at most.
  mutating func gram(_ n: Int, rank: Int) -> [Double] {
    Matrix(rows: n, columns: rank, values(n * rank)).timesItsTranspose.values
  }
}

/// A row-major matrix with the plain operations: slow, and independent of the code under test.
struct Matrix {
  let rows: Int
  let columns: Int
  var values: [Double]

  init(rows: Int, columns: Int, _ values: [Double]) {
    precondition(values.count == rows * columns)
    (self.rows, self.columns, self.values) = (rows, columns, values)
  }

  subscript(i: Int, j: Int) -> Double { values[i * columns + j] }

  var transpose: Matrix {
    Matrix(rows: columns, columns: rows, (0..<columns).flatMap { j in (0..<rows).map { self[$0, j] } })
  }

  func times(_ other: Matrix) -> Matrix {
    precondition(columns == other.rows)
    var result = [Double](repeating: 0, count: rows * other.columns)
    for i in 0..<rows {
      for k in 0..<columns {
        for j in 0..<other.columns { result[i * other.columns + j] += self[i, k] * other[k, j] }
      }
    }
    return Matrix(rows: rows, columns: other.columns, result)
  }

  func times(_ x: [Double]) -> [Double] { times(Matrix(rows: x.count, columns: 1, x)).values }

  var timesItsTranspose: Matrix { times(transpose) }

  /// Largest magnitude of an element.
  var size: Double { values.reduce(0) { max($0, $1.magnitude) } }

  /// Largest magnitude of an element of the difference.
  func distance(to other: Matrix) -> Double { zip(values, other.values).reduce(0) { max($0, ($1.0 - $1.1).magnitude) } }

  static func identity(_ n: Int) -> Matrix { diagonal([Double](repeating: 1, count: n)) }

  static func diagonal(_ values: [Double]) -> Matrix {
    let n = values.count
    return Matrix(rows: n, columns: n, (0..<n * n).map { $0 % (n + 1) == 0 ? values[$0 / n] : 0 })
  }
}

extension Matrix {
  /// A copy for the code under test.
  var dense: DenseMatrix {
    let result = DenseMatrix(rows: rows, columns: columns)
    for i in values.indices { result.values[i] = values[i] }
    return result
  }
}

extension DenseMatrix {
  var matrix: Matrix { Matrix(rows: rows, columns: columns, (0..<count).map { values[$0] }) }
}
