import MergeMethods
import Platform
import TensorKernels

/// A tensor in the caller's memory: aligned, row-major, alive until the call returns.
public struct MemoryTensor {
  public let data: UnsafeRawPointer
  public let dtype: DType

  public init(data: UnsafeRawPointer, dtype: DType) {
    self.data = data
    self.dtype = dtype
  }
}

/// Merges of one tensor in memory, by the executor that also merges checkpoints.
public struct MemoryMerge {
  private let method: any MergeMethod
  private let policy: NonFinitePolicy
  private let equalInputs: EqualInputs
  private let threads: Int

  /// - Parameter equalInputs: what the method, with its parameters, makes of inputs that are all equal.
  public init(_ method: any MergeMethod, policy: NonFinitePolicy, equalInputs: EqualInputs = .input, threads: Int) {
    (self.method, self.policy, self.equalInputs, self.threads) = (method, policy, equalInputs, threads)
  }

  /// Merge float tensors; copy others, which cannot be merged, from the base or the first model.
  /// - Parameters:
  ///   - models: at least one; all inputs and the output have `shape`.
  ///   - outputType: a float type, or the inputs' own where they are no floats.
  /// - Throws: `.method` for too few or too many models, `.dtype` for types that cannot be merged, and what the method throws.
  ///   - output: nil: only the artifacts are wanted.
  public func run(
    models: [MemoryTensor], base: MemoryTensor?, into output: UnsafeMutableRawPointer?, _ outputType: DType, shape: [Int],
    name: String, artifacts: (any ArtifactSink)? = nil
  ) throws(Failure) -> Decision {
    try type(of: method).schema.check(models: models.count, hasBase: base != nil)
    let usesBase = base != nil && method.usesBase(given: true)
    var inputs = usesBase ? [base!] + models : models
    var names = (usesBase ? ["the base"] : []) + models.indices.map { "models[\($0)]" }
    var program: (any SweepProgram)? = method
    let first = base ?? models[0]
    if !first.dtype.isFloat {
      guard models.allSatisfy({ !$0.dtype.isFloat }), outputType == first.dtype else {
        throw Failure(
          .dtype, "'\(name)' is \(first.dtype.name), which is copied, not merged: all inputs and out must have that type")
      }
      (inputs, names, program) = ([first], [base == nil ? names[0] : "the base"], nil)
    } else if let odd = inputs.firstIndex(where: { !$0.dtype.isFloat }) {
      throw Failure(.dtype, "'\(name)' of \(names[odd]) is \(inputs[odd].dtype.name), which is not a float type: convert it")
    } else if !outputType.isFloat {
      throw Failure(.dtype, "out is \(outputType.name), which is not a float type: give it one")
    }
    let context = TensorContext(name: name, shape: shape, modelCount: models.count, hasBase: usesBase)
    return try Self.execute(
      TensorTask(
        context: context, inputs: inputs.map { .memory($0.data, $0.dtype) }, inputNames: names,
        output: output.map { .memory($0) } ?? .none, outputType: outputType, method: program, policy: policy,
        equalInputs: equalInputs, artifacts: artifacts), threads: threads)
  }

  /// Run a program over float tensors of `count` elements.
  /// - Parameters:
  ///   - output: nil: the program leaves its result elsewhere.
  ///   - policy: what to do about a NaN or an infinity; by default it is passed on.
  ///   - names: how messages call the inputs.
  public static func run(
    _ program: any SweepProgram, _ inputs: [MemoryTensor], into output: UnsafeMutableRawPointer?, _ outputType: DType,
    count: Int, threads: Int, policy: NonFinitePolicy = .ignore, names: [String]? = nil
  ) throws(Failure) {
    let context = TensorContext(name: "", shape: [count], modelCount: inputs.count, hasBase: false)
    _ = try execute(
      TensorTask(
        context: context, inputs: inputs.map { .memory($0.data, $0.dtype) },
        inputNames: names ?? inputs.indices.map { "inputs[\($0)]" }, output: output.map { .memory($0) } ?? .none,
        outputType: outputType, method: program, policy: policy), threads: threads)
  }

  private static func execute(_ task: TensorTask, threads: Int) throws(Failure) -> Decision {
    var decision = Decision()
    try Executor(tasks: [task], threads: threads, memory: nil, control: ExecutionControl()) { decision = $1.decision }.run()
    return decision
  }
}
