import Checkpoints
import Platform
import TensorKernels

/// Consecutive small tensors, which one worker carries from their first step to their last, one after another.
///
/// Handed out stretch by stretch, a tensor of some kilobytes costs more in locks, wake-ups and system calls than in bytes. Their inputs
/// are mapped in one piece where they lie side by side, as they do where models have the same layout.
struct TensorBatch {
  /// Of the executor's tasks, the first and those that follow.
  let first: Int
  let tasks: [TensorTask]
  /// Of the tensor that needs most.
  let scratchBytes: Int

  /// Bytes of one input at most: what is worth a mapping of its own.
  static let bytes = 1 << 20

  /// Is a tensor no more than one stretch, and independent of others?
  static func isSmall(_ task: TensorTask) -> Bool { task.group == nil && task.context.count <= Partition.unit }

  /// The tensors from `first` on that make a batch, if they are small and fit.
  /// - Parameters:
  ///   - most: how many at most, so that there is something left for the others at the end.
  ///   - room: bytes of scratch that are free; nil: any number.
  init?(_ list: inout TaskList, from first: Int, most: Int, room: Int?) throws(Failure) {
    var tasks: [TensorTask] = []
    var (bytes, scratch) = (0, 0)
    while first + tasks.count < list.count, tasks.count < most {
      let task = try list.task(first + tasks.count)
      guard Self.isSmall(task) else { break }
      if let room, task.scratchBytes > room { break }
      bytes += task.context.count * (task.inputTypes.map(\.size).max() ?? 1)
      if !tasks.isEmpty, bytes > Self.bytes { break }
      scratch = max(scratch, task.scratchBytes)
      tasks.append(task)
    }
    guard !tasks.isEmpty else { return nil }
    (self.first, self.tasks, scratchBytes) = (first, tasks, scratch)
  }
}

/// The inputs of a batch in the address space.
struct BatchWindows {
  /// Per input: the window, and where its first byte lies in its file; nil: read as ever.
  private var windows: [(window: MappedWindow, first: Int)?] = []

  init(_ tasks: [TensorTask]) {
    guard let first = tasks.first else { return }
    windows = first.inputs.indices.map { position in
      guard case .stored(let checkpoint, let record) = first.inputs[position] else { return nil }
      var (low, high, sum) = (record.offset, record.offset, 0)
      for task in tasks {
        guard position < task.places.count,
          case .file(let other, let file, let offset, let byteCount) = task.places[position],
          other == ObjectIdentifier(checkpoint), file == record.file
        else { return nil }
        (low, high, sum) = (min(low, offset), max(high, offset + byteCount), sum + byteCount)
      }
      guard high - low <= 2 * sum, let window = checkpoint.window(file: record.file, bytes: low..<high) else { return nil }
      checkpoint.prefetch(file: record.file, bytes: high..<high + TensorBatch.bytes)
      return (window, low)
    }
  }

  /// Per input of a tensor of the batch, its first element; nil: read it. Valid as long as this is.
  func starts(_ task: TensorTask) -> [UnsafeRawPointer?] {
    task.places.indices.map { position in
      guard position < windows.count, let (start, first) = windows[position].map({ ($0.window.start, $0.first) }),
        case .file(_, _, let offset, _) = task.places[position], offset % max(1, task.inputTypes[position].size) == 0
      else { return nil }
      return start + (offset - first)
    }
  }
}
