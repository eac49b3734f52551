import MergeMethods
import Platform
import TensorKernels

/// The results of consecutive blocks, rounded to the output's type, on their way to where they belong.
///
/// The system lets one thread at a time write to a file, and the others wait for it with a busy processor. So while another worker
/// writes, results are kept and the next block is computed, as far as the buffer goes.
struct ResultWriter {
  private let output: TensorOutput
  private let size: Int
  private let buffer: UnsafeMutableRawPointer
  /// Elements that `buffer` holds.
  private let capacity: Int
  private let end: Int
  private let control: ExecutionControl
  /// Elements whose results are in `buffer`.
  private var unwritten: Range<Int>

  /// - Parameters:
  ///   - elements: those that will be written, from the first to the last.
  ///   - buffer: of `capacity` elements, at least those of one block.
  init(
    _ task: TensorTask, _ elements: Range<Int>, buffer: UnsafeMutableRawPointer, capacity: Int, _ control: ExecutionControl
  ) {
    output = task.output
    size = task.outputType.size
    (self.buffer, self.capacity, self.control) = (buffer, capacity, control)
    end = elements.upperBound
    unwritten = elements.lowerBound..<elements.lowerBound
  }

  /// Where the next block's results are wanted.
  var place: UnsafeMutableRawPointer {
    if case .memory(let base) = output { return base + unwritten.upperBound * size }
    return buffer + unwritten.count * size
  }

  /// Take the block at `place`.
  /// - Parameters:
  ///   - count: its elements.
  ///   - following: the most that the next block has.
  mutating func take(_ count: Int, following: Int) throws(Failure) {
    unwritten = unwritten.lowerBound..<unwritten.upperBound + count
    if case .stored(let file, let offset) = output {
      if unwritten.upperBound < end, unwritten.count + following <= capacity, file.isBeingWritten { return }
      try file.write(buffer, count: unwritten.count * size, at: offset + unwritten.lowerBound * size)
    }
    control.advance(bytes: unwritten.count * size)
    unwritten = unwritten.upperBound..<unwritten.upperBound
  }
}
