import MergeMethods
import Platform
import TensorKernels

/// One worker's memory: the blocks it reads, their conversions, the block it writes, and scratch for the kernels.
///
/// Grows to what the largest tensor needs and is reused for all.
final class BlockBuffers {
  private var arena = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
  private var capacity = 4096

  deinit { arena.deallocate() }

  /// Places in the arena for one block of a task.
  struct Layout {
    /// Per input: where it is read to (nil: it is in memory already) and where it is converted to (nil: it needs no conversion).
    var reads: [Int?] = []
    var conversions: [Int?] = []
    /// Results in binary64, and rounded to the output's type: of several blocks where a type of less than 8 bytes leaves room.
    var results = 0
    var rounded = 0
    private var roundedBytes = 0
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
        let input = task.inputs[index]
        reads.append(input.isMemory ? nil : take(count * input.dtype.size))
        conversions.append(kernelType == nil || kernelType == input.dtype ? nil : take(count * kernelType!.size))
      }
      results = take(count * 8)
      roundedBytes = count * 8
      rounded = take(roundedBytes)
      workspace = take(KernelGeometry.workspaceBytes(rows: inputs.count))
    }

    /// Rounded elements that the layout holds.
    func capacity(_ type: DType) -> Int { roundedBytes / type.size }
  }

  /// Bytes that a block costs per element, and once.
  static func cost(_ task: TensorTask) -> (perElement: Int, fixed: Int) {
    let converted = task.inputs.contains { $0.dtype == .f64 } ? 8 : 4
    var perElement = 16
    for input in task.inputs { perElement += input.dtype.size + (input.dtype.size < 8 ? converted : 0) }
    return (perElement, KernelGeometry.workspaceBytes(rows: task.inputs.count) + 64 * (2 * task.inputs.count + 3))
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
