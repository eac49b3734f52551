import Platform
import TensorKernels

/// A K x K matrix of inner products, symmetric, in binary64.
struct GramMatrix {
  let size: Int
  private let values: [Double]

  /// From the upper triangle, ordered as `RowPairs` orders it.
  init(triangle: some Collection<Double>, size: Int) {
    self.size = size
    var full = [Double](repeating: 0, count: size * size)
    var next = triangle.startIndex
    for i in 0..<size {
      for j in i..<size {
        full[i * size + j] = triangle[next]
        full[j * size + i] = triangle[next]
        next = triangle.index(after: next)
      }
    }
    values = full
  }

  /// Row-major, symmetric.
  init(full: [Double], size: Int) {
    self.size = size
    values = full
  }

  subscript(i: Int, j: Int) -> Double { values[i * size + j] }

  var full: [Double] { values }
  func norm(_ i: Int) -> Double { self[i, i].squareRoot() }
  var isZero: Bool { values.allSatisfy { $0 == 0 } }

  /// xᵀ G y.
  func form(_ x: [Double], _ y: [Double]) -> Double {
    var total = 0.0
    for i in 0..<size { for j in 0..<size { total += x[i] * self[i, j] * y[j] } }
    return total
  }
}

extension Sweep {
  /// Go over the data once for the Gram matrix of the differences of all other inputs from input `reference`.
  static func gramOfDifferences(
    from reference: Int, inputs: Int, next: @escaping (GramMatrix) throws(Failure) -> Step
  ) -> Sweep {
    gram(rows: inputs - 1, reference: reference, crossTerms: false, next: next)
  }

  /// The same with the reference itself as row 0: inner products of the raw inputs follow from it without cancellation.
  static func gramWithCrossTerms(
    about reference: Int, inputs: Int, next: @escaping (GramMatrix) throws(Failure) -> Step
  ) -> Sweep {
    gram(rows: inputs, reference: reference, crossTerms: true, next: next)
  }

  /// Go over the data once for the Gram matrix of the inputs themselves.
  static func gramOfInputs(_ inputs: Int, next: @escaping (GramMatrix) throws(Failure) -> Step) -> Sweep {
    gram(rows: inputs, reference: nil, crossTerms: false, next: next)
  }

  private static func gram(
    rows: Int, reference: Int?, crossTerms: Bool, next: @escaping (GramMatrix) throws(Failure) -> Step
  ) -> Sweep {
    let pairs = RowPairs(rows: rows)
    var sweep = Sweep(sums: pairs.count, writes: false) { block in
      Gram.accumulate(
        block.inputs, count: block.count, reference: reference, crossTerms: crossTerms, pairs: pairs, sums: block.sums,
        workspace: block.workspace)
    } next: { (sums) throws(Failure) in
      try next(GramMatrix(triangle: sums, size: rows))
    }
    sweep.squares = RowPairs.diagonal(rows: rows)
    return sweep
  }
}
