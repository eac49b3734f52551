import Platform

/// One worker's results, rounded to the output's type, on their way to where they belong.
///
/// The system lets one thread at a time write to a file, and the others wait for it with a busy processor. So while another worker
/// writes, results are kept and the next block is computed, as far as the buffer goes; what follows in the file, be it of the next
/// tensor, is written along with it.
final class ResultWriter {
  private let control: ExecutionControl
  private var buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
  private var capacity = 4096
  private var output = TensorOutput.none
  /// Where `buffer` belongs, from the start of the memory or the file, and how many bytes of it are to be written.
  private var offset = 0
  private var unwritten = 0

  init(_ control: ExecutionControl) { self.control = control }

  deinit { buffer.deallocate() }

  /// Turn to blocks that follow one another.
  /// - Parameters:
  ///   - start: the first one's first byte, from the tensor's start.
  ///   - block: bytes of the largest.
  ///   - room: bytes to keep results in, if they can be had.
  func begin(_ output: TensorOutput, from start: Int, block: Int, room: Int) throws(Failure) {
    var place = start
    if case .stored(let file, let first) = output {
      place += first
      // Kernels want their output aligned.
      if case .stored(let current, _) = self.output, current === file, place == offset + unwritten, unwritten % 64 == 0,
        unwritten + block <= capacity
      {
        return
      }
    }
    try flush()
    (self.output, offset) = (output, place)
    let wanted = max(block, room)
    guard wanted > capacity, !output.isMemory else { return }
    buffer.deallocate()
    buffer = .allocate(byteCount: wanted, alignment: 64)
    capacity = wanted
  }

  /// Where the next block's results are wanted.
  var place: UnsafeMutableRawPointer {
    if case .memory(let base) = output { return base + offset }
    return buffer + unwritten
  }

  /// Take the block at `place`.
  /// - Parameters:
  ///   - bytes: of the block.
  ///   - following: of the next one at most.
  func take(_ bytes: Int, following: Int) throws(Failure) {
    unwritten += bytes
    if case .stored(let file, _) = output, unwritten + following <= capacity, file.isBeingWritten { return }
    try flush()
  }

  /// Write what has been kept.
  func flush() throws(Failure) {
    guard unwritten > 0 else { return }
    defer { unwritten = 0 }
    if case .stored(let file, _) = output { try file.write(buffer, count: unwritten, at: offset) }
    control.advance(bytes: unwritten)
    offset += unwritten
  }
}
