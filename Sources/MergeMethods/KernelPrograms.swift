import Platform
import Synchronization
import TensorKernels

/// sum_i c_i * x_i with given coefficients: the combine kernel over whole tensors.
public struct CombineProgram: SweepProgram {
  private let coefficients: [Double]
  public var acceptsNonFinite: Bool { true }

  public init(coefficients: [Double]) { self.coefficients = coefficients }

  public func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    AffineCombination(coefficients, total: coefficients.reduce(0, +)).step(Decision())
  }
}

/// The Gram matrix of all inputs, or of the differences of all others from the first.
public final class GramProgram: SweepProgram {
  private let hasReference: Bool
  private let matrix = Mutex<[Double]>([])
  public var acceptsNonFinite: Bool { true }

  /// - Parameter hasReference: is input 0 the reference, and no point itself?
  public init(hasReference: Bool) { self.hasReference = hasReference }

  /// Row-major, symmetric; empty until the program has run.
  public var result: [Double] { matrix.withLock { $0 } }

  public func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let keep = { (gram: GramMatrix) -> Step in
      self.matrix.withLock { $0 = gram.full }
      return .finish(Decision())
    }
    if hasReference { return .sweep(.gramOfDifferences(from: 0, inputs: tensor.inputCount) { keep($0) }) }
    return .sweep(.gramOfInputs(tensor.inputCount) { keep($0) })
  }
}
