import TensorKernels

/// sum_i c_i * x_i over the inputs of a tensor, written about one of them: the only one with a negative coefficient, or else the
/// one with the largest.
///
/// About that input the differences are multiplied by what is left, so equal inputs, a zero task vector and a coefficient of 1
/// give exact results, signs of zeros included (Combine.swift).
struct AffineCombination {
  let coefficients: [Double]
  /// Sum of the coefficients. Given apart, because it is often exact (1) where the sum of the rounded coefficients is not.
  let total: Double
  let reference: Int

  /// - Parameter reference: nil: chosen by the rule above, the first of equals.
  init(_ coefficients: [Double], total: Double, reference: Int? = nil) {
    self.coefficients = coefficients
    self.total = total
    let negative = coefficients.indices.filter { coefficients[$0] < 0 }
    var best = 0
    for i in coefficients.indices where coefficients[i] > coefficients[best] { best = i }
    self.reference = reference ?? (negative.count == 1 ? negative[0] : best)
  }

  /// base + sum_i lambdas[i] * (model_i - base), or only the sum for `.taskVector`. The base is input 0.
  /// - Parameter sum: of the lambdas, where it is known better than by adding them up.
  init(lambdas: [Double], output: OutputKind, sum knownSum: Double? = nil) {
    let sum = knownSum ?? lambdas.reduce(0, +)
    switch output {
    case .weights:
      // What is left for the base is nothing when it is no more than the rounding of the sum.
      let rest = (1 - sum).magnitude <= Double(lambdas.count) * 0x1p-52 ? 0 : 1 - sum
      self.init([rest] + lambdas, total: 1)
    case .taskVector: self.init([-sum] + lambdas, total: 0, reference: 0)
    }
  }

  /// The last step of a method: write the combination and finish. A lone coefficient of 1 is a copy.
  func step(_ decision: Decision) -> Step {
    if total == 1, coefficients[reference] == 1, coefficients.indices.allSatisfy({ $0 == reference || coefficients[$0] == 0 }) {
      return .copy(input: reference, decision)
    }
    let combination = self
    return .sweep(
      Sweep(sums: 0, writes: true) { block in
        combination.run(block.inputs, from: 0, count: block.count, output: block.output!, block.outputType)
      } next: { _ in
        .finish(decision)
      })
  }

  func run(_ inputs: KernelInputs, from: Int, count: Int, output: UnsafeMutableRawPointer, _ outputType: DType) {
    coefficients.withUnsafeBufferPointer { list in
      Combine.run(
        inputs, from: from, count: count, reference: reference, total: total, coefficients: list.baseAddress!, output: output,
        outputType)
    }
  }
}

/// What a method with a task vector writes.
enum OutputKind: String {
  case weights
  case taskVector = "task_vector"
}
