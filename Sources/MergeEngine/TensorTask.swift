import Checkpoints
import MergeMethods
import Platform
import TensorKernels

/// Where an input's elements come from.
public enum TensorInput {
  /// The caller's memory: aligned, row-major, alive until the run has returned.
  case memory(UnsafeRawPointer, DType)
  /// A tensor of a checkpoint.
  case stored(Checkpoint, TensorRecord)
  /// The upper left `columns` columns of a matrix with `storedColumns` columns.
  indirect case cropped(TensorInput, columns: Int, storedColumns: Int)
  /// A stored task vector plus the base it belongs to, in binary64.
  indirect case sum(base: TensorInput, vector: TensorInput)
  /// An embedding whose rows are gathered from stored ones.
  case gathered(RowGather)
  /// A stored tensor plus the update of a LoRA adapter, in binary64.
  case adapted(AdaptedTensor)

  public var dtype: DType {
    switch self {
    case .memory(_, let dtype): dtype
    case .stored(_, let record): record.dtype
    case .cropped(let whole, _, _): whole.dtype
    case .sum, .adapted: .f64
    case .gathered(let gather): gather.dtype
    }
  }

  /// Bytes that are held while the tensor is in work.
  var scratchBytes: Int {
    switch self {
    case .memory, .stored: 0
    case .cropped(let whole, _, _): whole.scratchBytes
    case .sum(let base, let vector): base.scratchBytes + vector.scratchBytes
    case .adapted(let tensor): tensor.scratchBytes
    case .gathered(let gather): gather.scratchBytes
    }
  }

  /// Give back what is held, when nothing is read for a while.
  func release() {
    switch self {
    case .memory, .stored: break
    case .cropped(let whole, _, _): whole.release()
    case .sum(let base, let vector):
      base.release()
      vector.release()
    case .adapted(let tensor): tensor.release()
    case .gathered(let gather): gather.release()
    }
  }

  /// The elements `start` to `start + count`: in place, or read into `buffer`.
  func elements(_ start: Int, _ count: Int, buffer: UnsafeMutableRawPointer?) throws(Failure) -> UnsafeRawPointer {
    let size = dtype.size
    switch self {
    case .memory(let base, _):
      return base + start * size
    case .stored(let checkpoint, let record):
      try checkpoint.read(record, bytes: start * size..<(start + count) * size, into: buffer!)
    case .cropped(let whole, let columns, let storedColumns):
      var done = 0
      while done < count {
        let (row, column) = (start + done).quotientAndRemainder(dividingBy: columns)
        let part = min(columns - column, count - done)
        let from = row * storedColumns + column
        let place = buffer! + done * size
        let found = try whole.elements(from, part, buffer: place)
        if found != UnsafeRawPointer(place) { place.copyMemory(from: found, byteCount: part * size) }
        done += part
      }
    case .sum(let base, let vector):
      let total = buffer!.assumingMemoryBound(to: Double.self)
      try base.add(start, count, to: total, isFirst: true)
      try vector.add(start, count, to: total, isFirst: false)
    case .gathered(let gather):
      try gather.read(start, count, into: buffer!)
    case .adapted(let tensor):
      try tensor.read(start, count, into: buffer!.assumingMemoryBound(to: Double.self))
    }
    return UnsafeRawPointer(buffer!)
  }

  /// Add elements to binary64 numbers, or put them there.
  func add(
    _ start: Int, _ count: Int, to total: UnsafeMutablePointer<Double>, isFirst: Bool
  ) throws(Failure) {
    let raw = UnsafeMutableRawPointer.allocate(byteCount: max(1, count * dtype.size), alignment: 64)
    let numbers = UnsafeMutablePointer<Double>.allocate(capacity: max(1, count))
    defer {
      raw.deallocate()
      numbers.deallocate()
    }
    Cast.convert(try elements(start, count, buffer: raw), dtype, count: count, into: numbers, .f64)
    if isFirst {
      total.update(from: numbers, count: count)
    } else {
      for i in 0..<count { total[i] += numbers[i] }
    }
  }

  /// A range of elements without a copy, where that is possible.
  func window(_ range: Range<Int>) -> MappedWindow? {
    switch self {
    case .stored(let checkpoint, let record):
      return checkpoint.window(record, bytes: range.lowerBound * dtype.size..<range.upperBound * dtype.size)
    case .gathered(let gather): return gather.window(range)
    case .memory, .cropped, .sum, .adapted: return nil
    }
  }

  /// Ask for a range to be fetched while something else is computed.
  func prefetch(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    switch self {
    case .stored(let checkpoint, let record):
      checkpoint.prefetch(record, bytes: range.lowerBound * dtype.size..<range.upperBound * dtype.size)
    case .sum(let base, let vector):
      base.prefetch(range)
      vector.prefetch(range)
    case .gathered(let gather): gather.prefetch(range)
    case .adapted(let tensor): tensor.prefetch(range)
    case .memory, .cropped: break
    }
  }
}

/// Where the result goes.
public enum TensorOutput {
  /// The caller's memory.
  case memory(UnsafeMutableRawPointer)
  /// A file, from a byte offset on.
  case stored(File, offset: Int)
  /// Nowhere: the method only makes artifacts.
  case none

  var isMemory: Bool { if case .memory = self { true } else { false } }
}

/// What to do about a NaN or an infinity in an input.
public enum NonFinitePolicy: String, Sendable { case error, warn, ignore }

/// One tensor to be made: from these inputs, by this method, to that place.
public final class TensorTask {
  public let context: TensorContext
  /// The base first, if the method uses it, then the models.
  public let inputs: [TensorInput]
  /// Types and places of the inputs. To look at them costs less than to take an input out of its list, which counts references to its
  /// checkpoint that all workers share.
  let inputTypes: [DType]
  let places: [InputPlace]
  /// How messages call each input: a path, "the base", "model 2".
  public let inputNames: [String]
  public let output: TensorOutput
  public let outputType: DType
  /// nil: input 0 is copied.
  public let method: (any SweepProgram)?
  public let policy: NonFinitePolicy
  let equalInputs: EqualInputs
  /// Tensors with the same number pool their sums.
  public let group: Int?
  let artifacts: (any ArtifactSink)?
  /// Bytes that are held while the tensor is in work, beside the blocks.
  let scratchBytes: Int

  public init(
    context: TensorContext, inputs: [TensorInput], inputNames: [String], output: TensorOutput, outputType: DType,
    method: (any SweepProgram)?, policy: NonFinitePolicy = .error, equalInputs: EqualInputs = .input, group: Int? = nil,
    artifacts: (any ArtifactSink)? = nil
  ) {
    var context = context
    inputTypes = inputs.map(\.dtype)
    places = inputs.map { InputPlace($0) }
    context.isDouble = inputTypes.contains(.f64)
    context.artifacts = artifacts
    self.context = context
    self.inputs = inputs
    self.inputNames = inputNames
    self.output = output
    self.outputType = outputType
    self.method = method
    self.policy = policy
    self.equalInputs = equalInputs
    self.group = group
    self.artifacts = artifacts
    scratchBytes = inputs.reduce(method?.scratchBytes(context) ?? 0) { $0 + $1.scratchBytes }
  }

  /// Give back what the inputs hold, when nothing is read for a while.
  func release() {
    for index in places.indices where places[index].isMade { inputs[index].release() }
  }
}

/// Where an input lies.
enum InputPlace {
  case memory
  /// In a file of a checkpoint, at an offset of whole elements or not.
  case file(checkpoint: ObjectIdentifier, file: Int, offset: Int, byteCount: Int)
  /// It is made of others, and holds bytes meanwhile.
  case made

  init(_ input: TensorInput) {
    switch input {
    case .memory: self = .memory
    case .stored(let checkpoint, let record):
      self = .file(
        checkpoint: ObjectIdentifier(checkpoint), file: record.file, offset: record.offset, byteCount: record.byteCount)
    case .cropped, .sum, .gathered, .adapted: self = .made
    }
  }

  var isMemory: Bool { if case .memory = self { true } else { false } }
  var isMade: Bool { if case .made = self { true } else { false } }
}

/// What became of a task.
public struct TensorResult {
  public var decision: Decision
  public var copied: Bool
  public var seconds: Double
}

/// How a tensor is cut into the stretches that are handed out, and those into blocks.
///
/// Stretches fix where sums are cut, so they depend on the tensor alone: 64 Ki elements, or more when there would be over 256
/// of them. Blocks only fix how much is in memory at once, and may follow the memory there is.
struct Partition {
  static let unit = 65536
  static let maximumStretches = 256

  let count: Int
  let granule: Int
  let stretch: Int
  let stretches: Int
  private let ranges: [Range<Int>]?

  /// - Parameter ranges: the stretches, where a sweep names them.
  init(count: Int, granule: Int, ranges: [Range<Int>]? = nil) {
    self.count = count
    self.granule = granule
    self.ranges = ranges
    let unit = granule == 1 ? Self.unit : max(granule, Self.unit / granule * granule)
    let units = (count + unit - 1) / unit
    stretch = unit * max(1, (units + Self.maximumStretches - 1) / Self.maximumStretches)
    stretches = ranges?.count ?? max(1, (count + stretch - 1) / stretch)
  }

  func range(_ index: Int) -> Range<Int> {
    if let ranges { return ranges.indices.contains(index) ? ranges[index].clamped(to: 0..<count) : count..<count }
    return min(index * stretch, count)..<min((index + 1) * stretch, count)
  }

  /// Elements of a block that needs `bytesPerElement`, within `budget` bytes: a multiple of the kernels' chunk, or of the granule.
  func block(bytesPerElement: Int, budget: Int) -> Int {
    let affordable = max(1, budget / max(1, bytesPerElement))
    if granule > 1 { return max(granule, min(affordable, max(granule, Self.unit)) / granule * granule) }
    let chunk = KernelGeometry.chunk
    return max(chunk, min(affordable, Self.unit) / chunk * chunk)
  }
}
