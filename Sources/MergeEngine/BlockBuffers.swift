import MergeMethods
import Platform
import TensorKernels

/// One worker's memory: the blocks it reads, their conversions, results that are not rounded yet, scratch for the kernels, and the
/// results on their way out.
///
/// Grows to what the largest tensor needs and is reused for all.
final class BlockBuffers {
  let writer: ResultWriter
  private var arena = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
  private var capacity = 4096

  init(_ control: ExecutionControl) { writer = ResultWriter(control) }

  deinit { arena.deallocate() }

  /// Places in the arena for one block of a task.
  struct Layout {
    /// Per input: where it is read to (nil: it is in memory already) and where it is converted to (nil: it needs no conversion).
    var reads: [Int?] = []
    var conversions: [Int?] = []
    /// Results in binary64, or elements of a copy converted to the output's type.
    var results = 0
    var workspace = 0
    var bytes = 0

    /// - Parameters:
    ///   - kernelType: the type in which the inputs are computed; nil: they are not (a copy).
    ///   - count: elements of a block.
    init(_ task: TensorTask, inputs: [Int], kernelType: DType?, count: Int) {
      func take(_ size: Int) -> Int {
        defer { bytes += (size + 63) & ~63 }
        return bytes
      }
      for index in inputs {
        let type = task.inputTypes[index]
        reads.append(task.places[index].isMemory ? nil : take(count * type.size))
        conversions.append(kernelType == nil || kernelType == type ? nil : take(count * kernelType!.size))
      }
      results = take(count * 8)
      workspace = take(KernelGeometry.workspaceBytes(rows: inputs.count))
    }
  }

  /// Bytes that a block costs per element, those of its ResultWriter included, and once.
  static func cost(_ task: TensorTask) -> (perElement: Int, fixed: Int) {
    let converted = task.inputTypes.contains(.f64) ? 8 : 4
    var perElement = 16
    for type in task.inputTypes { perElement += type.size + (type.size < 8 ? converted : 0) }
    return (perElement, KernelGeometry.workspaceBytes(rows: task.inputTypes.count) + 64 * (2 * task.inputTypes.count + 3))
  }

  /// The arena, at least as large as `layout` needs.
  func base(_ layout: Layout) -> UnsafeMutableRawPointer {
    if layout.bytes > capacity {
      arena.deallocate()
      capacity = layout.bytes
      arena = .allocate(byteCount: capacity, alignment: 64)
    }
    return arena
  }
}
