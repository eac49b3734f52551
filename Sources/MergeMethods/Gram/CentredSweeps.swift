import Platform
import TensorKernels

extension Sweep {
  /// Go over the data once for the Gram matrix of the rows [m, u_1 - m, ..., u_K - m] (Centre.swift).
  static func centredGram(
    _ rows: CentredRows, inputs: Int, next: @escaping (GramMatrix) throws(Failure) -> Step
  ) -> Sweep {
    let pairs = RowPairs(rows: inputs + 1)
    var sweep = Sweep(sums: pairs.count, writes: false) { block in
      rows.accumulateGram(block.inputs, count: block.count, pairs: pairs, sums: block.sums, workspace: block.workspace)
    } next: { (sums) throws(Failure) in
      try next(GramMatrix(triangle: sums, size: inputs + 1))
    }
    sweep.squares = RowPairs.diagonal(rows: inputs + 1)
    return sweep
  }
}

extension Step {
  /// The last step of a method whose result is beta * m + sum_i c_i u_i.
  static func centredCombination(
    _ rows: CentredRows, centreCoefficient: Double, coefficients: [Double], _ decision: Decision
  ) -> Step {
    .sweep(
      Sweep(sums: 0, writes: true) { block in
        rows.combine(
          block.inputs, count: block.count, centreCoefficient: centreCoefficient, coefficients: coefficients, addition: nil,
          output: block.output!, block.outputType, workspace: block.workspace)
      } next: { _ in
        .finish(decision)
      })
  }
}
