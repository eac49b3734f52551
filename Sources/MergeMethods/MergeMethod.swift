import JSON
import Platform
import Synchronization
import TensorKernels

/// Says, tensor by tensor, which sweeps over the data are needed and what to make of them.
///
/// It never knows where its tensors live or who runs it, so merging arrays in memory and streaming a checkpoint are the same
/// code.
public protocol SweepProgram: Sendable {
  /// The first step for one tensor.
  func begin(_ tensor: TensorContext) throws(Failure) -> Step

  /// Bytes of memory beside the blocks that one tensor needs while it is merged.
  func scratchBytes(_ tensor: TensorContext) -> Int

  /// May the sums of sweeps that do not write be NaN or infinite?
  var acceptsNonFinite: Bool { get }
}

extension SweepProgram {
  public func scratchBytes(_ tensor: TensorContext) -> Int { 0 }
  public var acceptsNonFinite: Bool { false }
}

/// A merge method with its parameters. A conforming type is one file and one line of the registry; its schema is all that the
/// border, the Python functions, the command line and the documentation know of it.
public protocol MergeMethod: SweepProgram {
  static var schema: MethodSchema { get }

  /// - Throws: `.parameter` for combinations of values that contradict each other; types and ranges are already checked.
  init(_ parameters: Parameters) throws(Failure)

  /// Over what the sums of the first sweep are pooled before the method sees them.
  var scope: Scope { get }

  /// Is the base one of the inputs?
  /// - Parameter given: is there one?
  func usesBase(given: Bool) -> Bool

  /// What is made of a tensor beside the merged one, in a fixed order.
  /// - Parameter dtype: in which numbers are to be stored.
  func artifacts(_ tensor: TensorContext, dtype: DType) -> [Artifact]

  /// Does it make merged tensors, and not only artifacts?
  var makesMerged: Bool { get }

  /// What a file of artifacts says of itself: the value of stockpot.format.
  static var artifactFormat: String { get }

  /// Are equal inputs merged to a multiple of them that is not they themselves?
  static func scalesEqualInputs(_ parameters: Parameters) -> Bool
}

extension MergeMethod {
  public var scope: Scope { .tensor }
  public var makesMerged: Bool { true }
  public static var artifactFormat: String { "" }
  public static func scalesEqualInputs(_ parameters: Parameters) -> Bool { false }

  /// What becomes of inputs that are all equal.
  public static func ofEqualInputs(_ parameters: Parameters) -> EqualInputs {
    if schema.makesTaskVector, parameters.choice("output", as: OutputKind.self) == .taskVector { return .zeros }
    return scalesEqualInputs(parameters) ? .multiple : .input
  }
  public func artifacts(_ tensor: TensorContext, dtype: DType) -> [Artifact] { [] }
  public func usesBase(given: Bool) -> Bool { Self.schema.base == .required || (given && Self.schema.base == .optional) }
}

/// What is made of a tensor that is equal in all inputs: the input, a task vector of zeros, or a multiple of the input.
public enum EqualInputs: Sendable { case input, zeros, multiple }

/// Over which tensors Gram matrices are summed.
public enum Scope: String, Sendable { case tensor, layer, model }

/// What a method is told of a tensor before any byte is read.
public struct TensorContext: Sendable {
  public let name: String
  public let shape: [Int]
  public let modelCount: Int
  /// Is the base input 0, and the models 1 and up? Otherwise the models are 0 and up.
  public let hasBase: Bool
  /// Is any input F64?
  public var isDouble = false
  /// Per model, the activation statistic of each input channel (columns of the matrix); nil where a model has none. Empty: none
  /// at all.
  public var statistics: [[Double]?] = []
  /// What the tensors of a group share, where `scope` is wider than the tensor; nil: the tensor is alone.
  public var group: GroupStorage?
  /// Where results beside the tensor go; nil: nobody wants them.
  public var artifacts: (any ArtifactSink)?

  public init(name: String, shape: [Int], modelCount: Int, hasBase: Bool) {
    self.name = name
    self.shape = shape
    self.modelCount = modelCount
    self.hasBase = hasBase
  }

  public var count: Int { shape.reduce(1, *) }
  public var inputCount: Int { modelCount + (hasBase ? 1 : 0) }
  /// Index of the first model among the inputs.
  public var firstModel: Int { hasBase ? 1 : 0 }
}

/// What the tensors of one group share: whatever the first of them makes.
public final class GroupStorage: Sendable {
  private let object = Mutex<(any Sendable)?>(nil)

  public init() {}

  /// The shared object, made by whoever asks first.
  public func shared<Object: Sendable>(_ make: @Sendable () -> Object) -> Object {
    object.withLock { stored in
      if let known = stored as? Object { return known }
      let made = make()
      stored = made
      return made
    }
  }
}

/// A result beside the merged tensor, of a size that is known beforehand: a mask, a factor of a low-rank correction.
public struct Artifact: Sendable {
  /// Folder of the output that it belongs to: "masks".
  public let collection: String
  /// Whose it is.
  public let model: Int
  /// Appended to the tensor's name.
  public let suffix: String
  public let dtype: DType
  public let shape: [Int]

  public init(collection: String, model: Int, suffix: String = "", dtype: DType, shape: [Int]) {
    self.collection = collection
    self.model = model
    self.suffix = suffix
    self.dtype = dtype
    self.shape = shape
  }

  public var byteCount: Int { shape.reduce(1, *) * dtype.size }
}

/// Takes the bytes of a tensor's artifacts, from any worker.
public protocol ArtifactSink: Sendable {
  /// The element type in which numbers are stored.
  var dtype: DType { get }

  /// The first write that failed.
  var failure: Failure? { get }

  /// Put `count` bytes at `offset` of artifact `index` of the method's list. A failure is kept until the sweep is over.
  func write(_ bytes: UnsafeRawPointer, count: Int, artifact index: Int, at offset: Int)
}

/// What happens next with a tensor.
public enum Step {
  /// Go over the data.
  case sweep(Sweep)
  /// The result is input `index`, converted to the output type; done.
  case copy(input: Int, Decision)
  /// The output is written; done.
  case finish(Decision)

  /// The result is 0 everywhere.
  public static func zeros(_ decision: Decision) -> Step {
    .sweep(
      Sweep(sums: 0, writes: true) { block in
        block.output!.initializeMemory(as: UInt8.self, repeating: 0, count: block.count * block.outputType.size)
      } next: { _ in
        .finish(decision)
      })
  }
}

/// One pass over the blocks of a tensor.
///
/// Blocks are disjoint, cover the tensor and run in parallel; each adds to its own partial sums, which are then combined in the
/// order of the tensor's elements, so the result does not depend on who computed what.
public struct Sweep {
  /// Partial results per stretch of the tensor, in binary64.
  public var sums: Int
  /// Of `sums`, the last `maxima` are combined by maximum (starting at -infinity) instead of by addition.
  public var maxima = 0
  /// Indices of sums of squares. One that is not finite, or so small that binary32 products may have underflowed, makes the
  /// tensor start again in binary64.
  public var squares: [Int] = []
  /// Does it write the output?
  public var writes: Bool
  /// Elements that must stay together in one block (a row), counted from the tensor's start.
  public var granule = 1
  /// Do the inputs have to come as F32 or F64?
  public var wide = false
  /// Of a sweep that writes: is its output useless when a sum is not finite, so that the tensor is copied instead?
  public var needsFiniteSums = false
  /// The stretches to go over, in order; nil: the whole tensor.
  public var ranges: [Range<Int>]?
  /// In a group: does the tensor wait until all of its group have come this far, their sums added up? Never for a sweep that
  /// writes.
  public var pools = true
  /// Called when this tensor's share of a pooled sweep is complete, before it waits.
  public var beforePooling: () -> Void = {}
  public var run: (Block) -> Void
  public var next: ([Double]) throws(Failure) -> Step

  public init(
    sums: Int, writes: Bool, run: @escaping (Block) -> Void, next: @escaping ([Double]) throws(Failure) -> Step
  ) {
    self.sums = sums
    self.writes = writes
    self.run = run
    self.next = next
  }
}

/// A stretch of a tensor, as a sweep sees it.
public struct Block {
  /// Every input's elements `start` to `start + count`, in one element type.
  public let inputs: KernelInputs
  public let start: Int
  public let count: Int
  /// Where a writing sweep puts its `count` results, in `outputType`: the inputs' type, or F64 when those are F32 or F64.
  public let output: UnsafeMutableRawPointer?
  public let outputType: DType
  /// The sums of this stretch, to be added to.
  public let sums: UnsafeMutablePointer<Double>
  /// `KernelGeometry.workspaceBytes(rows: inputs.count)` bytes of scratch.
  public let workspace: UnsafeMutableRawPointer

  public init(
    inputs: KernelInputs, start: Int, count: Int, output: UnsafeMutableRawPointer?, outputType: DType,
    sums: UnsafeMutablePointer<Double>, workspace: UnsafeMutableRawPointer
  ) {
    self.inputs = inputs
    self.start = start
    self.count = count
    self.output = output
    self.outputType = outputType
    self.sums = sums
    self.workspace = workspace
  }
}

/// What a method decided for a tensor, for the report.
public struct Decision {
  public var entries: [JSON.Member]
  public var warnings: [String]

  public init(_ entries: [JSON.Member] = [], warnings: [String] = []) {
    self.entries = entries
    self.warnings = warnings
  }
}
