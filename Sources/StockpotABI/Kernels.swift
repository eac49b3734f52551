import CStockpot
import MergeEngine
import MergeMethods
import Platform
import TensorKernels

@_cdecl("sp_cast") @implementation
public func sp_cast(
  _ input: UnsafePointer<sp_view>!, _ out: UnsafePointer<sp_view>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let source = try ProvedView(input, "in")
    let target = try ProvedView(out, "out")
    guard source.count == target.count else {
      throw Failure(.shape, "in has \(source.count) elements, but out has \(target.count)")
    }
    guard source.dtype == target.dtype || (source.dtype.isFloat && target.dtype.isFloat) else {
      throw Failure(.dtype, "\(source.dtype.name) cannot be converted to \(target.dtype.name): only floats to floats")
    }
    try requireDisjoint(target, [source], "in")
    Cast.convert(source.data, source.dtype, count: source.count, into: target.data, target.dtype)
  }
}

private func floatInputs(_ pointer: UnsafePointer<sp_view>?, _ number: Int) throws(Failure) -> [ProvedView] {
  var inputs: [ProvedView] = []
  let start = try need(pointer, "inputs")
  for i in 0..<number {
    let view = try ProvedView(start + i, "inputs[\(i)]")
    try view.requireFloat("inputs[\(i)]")
    guard view.count == inputs.first?.count ?? view.count else {
      throw Failure(.shape, "inputs[\(i)] has \(view.count) elements, but inputs[0] has \(inputs[0].count)")
    }
    inputs.append(view)
  }
  return inputs
}

@_cdecl("sp_combine") @implementation
public func sp_combine(
  _ inputs: UnsafePointer<sp_view>!, _ input_count: Int, _ coefficients: UnsafePointer<Double>!, _ threads: Int32,
  _ out: UnsafePointer<sp_view>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let number = try count(input_count, 1...65536, "input_count")
    let sources = try floatInputs(inputs, number)
    let weights = Array(UnsafeBufferPointer(start: try aligned(coefficients, "coefficients"), count: number))
    guard weights.allSatisfy(\.isFinite) else { throw Failure(.argument, "a coefficient is NaN or infinite") }
    let target = try ProvedView(out, "out")
    try target.requireFloat("out")
    guard target.count == sources[0].count else {
      throw Failure(.shape, "out has \(target.count) elements, but the inputs have \(sources[0].count)")
    }
    try requireDisjoint(target, sources, "inputs")
    try MemoryMerge.run(
      CombineProgram(coefficients: weights), sources.map(\.tensor), into: target.data, target.dtype, count: target.count,
      threads: try workers(threads))
  }
}

@_cdecl("sp_gram") @implementation
public func sp_gram(
  _ inputs: UnsafePointer<sp_view>!, _ input_count: Int, _ reference: UnsafePointer<sp_view>!, _ threads: Int32,
  _ out_gram: UnsafeMutablePointer<Double>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let number = try count(input_count, 1...1024, "input_count")
    var sources = try floatInputs(inputs, number)
    let target = try aligned(out_gram, "out_gram")
    if let reference {
      let center = try ProvedView(reference, "reference")
      try center.requireFloat("reference")
      guard center.count == sources[0].count else {
        throw Failure(.shape, "reference has \(center.count) elements, but the inputs have \(sources[0].count)")
      }
      sources.insert(center, at: 0)
    }
    let program = GramProgram(hasReference: reference != nil)
    try MemoryMerge.run(
      program, sources.map(\.tensor), into: UnsafeMutableRawPointer(target), sources[0].dtype, count: sources[0].count,
      threads: try workers(threads))
    for (i, value) in program.result.enumerated() { target[i] = value }
  }
}

@_cdecl("sp_geometric_median_weights") @implementation
public func sp_geometric_median_weights(
  _ gram: UnsafePointer<Double>!, _ size: Int, _ point_weights: UnsafePointer<Double>!, _ eps: Double, _ maxiter: Int32,
  _ ftol: Double, _ out_weights: UnsafeMutablePointer<Double>!, _ out_iterations: UnsafeMutablePointer<Int32>!,
  _ out_objective: UnsafeMutablePointer<Double>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let n = try count(size, 1...1024, "count")
    let matrix = Array(UnsafeBufferPointer(start: try aligned(gram, "gram"), count: n * n))
    let target = try aligned(out_weights, "out_weights")
    guard matrix.allSatisfy(\.isFinite) else { throw Failure(.nonFinite, "gram holds a NaN or an infinity") }
    var weights = [Double](repeating: 1, count: n)
    if let point_weights {
      weights = Array(UnsafeBufferPointer(start: try aligned(point_weights, "point_weights"), count: n))
    }
    guard weights.allSatisfy({ $0.isFinite && $0 > 0 }) else {
      throw Failure(.argument, "point_weights must be finite and above 0")
    }
    guard eps.isFinite, eps >= 0, ftol.isFinite, ftol >= 0, maxiter >= 0 else {
      throw Failure(.argument, "eps, maxiter and ftol must be finite and at least 0")
    }
    let result = Weiszfeld(eps: eps, maxiter: Int(maxiter), ftol: ftol).solve(gram: matrix, count: n, pointWeights: weights)
    for (i, weight) in result.weights!.enumerated() { target[i] = weight }
    if let out_iterations { out_iterations.pointee = Int32(result.iterations) }
    if let out_objective { out_objective.pointee = result.objective }
  }
}
