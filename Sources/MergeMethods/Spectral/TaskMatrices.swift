import JSON
import LinearAlgebra
import Platform
import TensorKernels

/// The task vectors of one tensor as matrices, from wherever they come.
protocol TaskMatrices {
  var modelCount: Int { get }
  var rows: Int { get }
  var columns: Int { get }

  /// Make the matrix of one model and go on with it; nil when it is zero. Its owner may destroy it.
  func model(_ index: Int, _ next: @escaping (DenseMatrix?) throws(Failure) -> Step) throws(Failure) -> Step

  /// The same with the sum over all models.
  func sum(_ next: @escaping (DenseMatrix?) throws(Failure) -> Step) throws(Failure) -> Step
}

extension TaskMatrices {
  /// The matrices of several models, all in memory.
  func models(
    _ range: Range<Int>, _ done: [DenseMatrix?] = [], _ next: @escaping ([DenseMatrix?]) throws(Failure) -> Step
  ) throws(Failure) -> Step {
    guard done.count < range.count else { return try next(done) }
    return try model(range.lowerBound + done.count) { (matrix) throws(Failure) in
      try models(range, done + [matrix], next)
    }
  }

  /// The models from `index` on that are decomposed at the same time: two, if there are workers for both. Each costs memory.
  func together(from index: Int) -> Range<Int> { index..<min(modelCount, index + min(2, Crew.threads)) }
}

/// weight_i * (w_i - w_0), read by a sweep whenever one is asked for: nothing is held.
struct StoredTaskMatrices: TaskMatrices {
  let rows: Int
  let columns: Int
  let weights: [Double]

  var modelCount: Int { weights.count }

  func model(_ index: Int, _ next: @escaping (DenseMatrix?) throws(Failure) -> Step) throws(Failure) -> Step {
    load(weights.indices.map { $0 == index ? weights[$0] : 0 }, next)
  }

  func sum(_ next: @escaping (DenseMatrix?) throws(Failure) -> Step) throws(Failure) -> Step { load(weights, next) }

  /// A value that is not finite turns the sweep's sum into NaN, so that the engine looks for the input that holds it.
  private func load(_ coefficients: [Double], _ next: @escaping (DenseMatrix?) throws(Failure) -> Step) -> Step {
    let matrix = DenseMatrix(rows: rows, columns: columns)
    let combination = AffineCombination(lambdas: coefficients, output: .taskVector)
    var sweep = Sweep(sums: 2, writes: false) { block in
      let target = matrix.values + block.start
      combination.run(block.inputs, from: 0, count: block.count, output: target, .f64)
      if NonFinite.any(target, .f64, count: block.count) { block.sums[0] = .nan }
      var peak = 0.0
      for i in 0..<block.count { peak = max(peak, target[i].magnitude) }
      block.sums[1] = max(block.sums[1], peak)
    } next: { (sums) throws(Failure) in
      try next(sums[1] > 0 ? matrix : nil)
    }
    sweep.maxima = 1
    sweep.wide = true
    return .sweep(sweep)
  }
}

extension SpectralOptions {
  /// The last step: write w_0 + lambda * delta, or lambda * delta alone; nil: delta is zero.
  ///
  /// One rounding from binary64. Where delta is 0 the base is kept, its -0.0 too.
  func write(_ delta: DenseMatrix?, _ tensor: TensorContext, _ decision: Decision) -> Step {
    guard let delta else {
      return AffineCombination(lambdas: [Double](repeating: 0, count: tensor.modelCount), output: output).step(decision)
    }
    var sweep = Sweep(sums: 0, writes: true) { block in
      withUnsafeTemporaryAllocation(of: Double.self, capacity: KernelGeometry.chunk) { buffer in
        let values = buffer.baseAddress!
        for start in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
          let count = min(KernelGeometry.chunk, block.count - start)
          let source = delta.values + block.start + start
          switch output {
          case .taskVector: for i in 0..<count { values[i] = lambda * source[i] }
          case .weights:
            let size = block.inputs.dtype.size
            Cast.convert(block.inputs.table[0] + start * size, block.inputs.dtype, count: count, into: values, .f64)
            for i in 0..<count where lambda * source[i] != 0 { values[i] += lambda * source[i] }
          }
          Cast.narrow(values, count: count, into: block.output! + start * block.outputType.size, block.outputType)
        }
      }
    } next: { _ in
      .finish(decision)
    }
    sweep.wide = true
    return .sweep(sweep)
  }
}

/// The matrix could not be decomposed: what to say.
func notDecomposed(_ tensor: TensorContext) -> Failure {
  Failure(
    .nonFinite,
    "the singular values of '\(tensor.name)' did not converge: give its name in exclude_keys, and it is merged without them")
}

func list(_ values: [Double]) -> JSON { .array(values.map { .double($0) }) }
