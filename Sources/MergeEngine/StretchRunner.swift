import Glibc
import MergeMethods
import Platform
import TensorKernels

/// Carries one step of a tensor over a few stretches: read, convert, compute, check, round, write; block by block.
struct StretchRunner {
  let tensor: ActiveTensor
  let buffers: BlockBuffers
  let budget: Int
  let control: ExecutionControl
  let monitor: Monitor
  /// Per input, the tensor's first element, where others have seen to that; nil: it is mapped or read here.
  var starts: [UnsafeRawPointer?]?

  /// - Parameter stretches: one after another.
  func run(_ stretches: Range<Int>) throws(Failure) {
    let partition = tensor.partition
    let whole = partition.range(stretches.lowerBound).lowerBound..<partition.range(stretches.upperBound - 1).upperBound
    let ahead = partition.range(stretches.upperBound)
    let next = ahead.lowerBound..<max(ahead.upperBound, min(ahead.lowerBound + whole.count, tensor.task.context.count))
    switch tensor.step {
    case .sweep(let sweep):
      if let starts { return try run(sweep, stretches, starts, from: 0) }
      let windows = windows(whole, next)
      defer { withExtendedLifetime(windows) {} }
      try run(sweep, stretches, windows.map { $0?.start }, from: whole.lowerBound)
      try buffers.writer.flush()
    case .copy(let input, _):
      tensor.task.inputs[input].prefetch(next)
      try copy(input, whole)
    case .finish:
      break
    }
  }

  /// The inputs in the address space, from an earlier sweep or anew.
  private func windows(_ whole: Range<Int>, _ next: Range<Int>) -> [MappedWindow?] {
    if let held = monitor.locked({ tensor.heldWindows(whole) }) { return held }
    for input in tensor.task.inputs { input.prefetch(next) }
    let windows = tensor.task.inputs.map { $0.window(whole) }
    monitor.locked { tensor.hold(windows, whole) }
    return windows
  }

  private var isStopped: Bool { control.isCancelled || monitor.locked { tensor.trouble != nil } }

  private func blockLength() -> Int {
    let cost = BlockBuffers.cost(tensor.task)
    return tensor.partition.block(bytesPerElement: cost.perElement, budget: max(0, budget - cost.fixed))
  }

  // MARK: - Sweeps

  /// - Parameters:
  ///   - starts: per input where element `first` lies; nil: it is read.
  private func run(
    _ sweep: Sweep, _ stretches: Range<Int>, _ starts: [UnsafeRawPointer?], from first: Int
  ) throws(Failure) {
    let task = tensor.task
    let partition = tensor.partition
    let whole = partition.range(stretches.lowerBound).lowerBound..<partition.range(stretches.upperBound - 1).upperBound
    let most = blockLength()
    let length = min(most, whole.count)
    let layout = BlockBuffers.Layout(task, inputs: Array(task.places.indices), kernelType: tensor.kernelType, count: length)
    let arena = buffers.base(layout)
    if sweep.writes {
      let size = task.outputType.size
      try buffers.writer.begin(task.output, from: whole.lowerBound * size, block: length * size, room: most * 8)
    }
    for stretch in stretches {
      let range = partition.range(stretch)
      let isComplete = try MappedWindow.guarded { () throws(Failure) in
        try run(sweep, range, starts, from: first, tensor.sums(of: stretch), length, layout, arena)
      }
      if !isComplete { try explain(range) }
    }
  }

  private func run(
    _ sweep: Sweep, _ range: Range<Int>, _ starts: [UnsafeRawPointer?], from first: Int, _ sums: UnsafeMutablePointer<Double>,
    _ length: Int, _ layout: BlockBuffers.Layout, _ arena: UnsafeMutableRawPointer
  ) throws(Failure) {
    let task = tensor.task
    let kernelType = tensor.kernelType
    // The kernel's own results: in the inputs' type where that is the output's, else in binary64 and rounded afterwards.
    let outputType = kernelType == task.outputType ? kernelType : .f64
    let isDirect = outputType == task.outputType
    var raw = [UnsafeRawPointer](repeating: UnsafeRawPointer(arena), count: starts.count)
    var table = raw
    var start = range.lowerBound
    while start < range.upperBound {
      if isStopped { return }
      let count = min(length, range.upperBound - start)
      for k in starts.indices {
        if let place = starts[k] {
          raw[k] = place + (start - first) * task.inputTypes[k].size
        } else {
          raw[k] = try task.inputs[k].elements(start, count, buffer: layout.reads[k].map { arena + $0 })
        }
        table[k] = raw[k]
        if let place = layout.conversions[k] {
          Cast.convert(raw[k], task.inputTypes[k], count: count, into: arena + place, kernelType)
          table[k] = UnsafeRawPointer(arena + place)
        }
      }
      let output = sweep.writes ? (isDirect ? buffers.writer.place : arena + layout.results) : nil
      table.withUnsafeBufferPointer { pointers in
        sweep.run(
          Block(
            inputs: KernelInputs(table: pointers.baseAddress!, count: pointers.count, dtype: kernelType), start: start,
            count: count, output: output, outputType: outputType, sums: sums, workspace: arena + layout.workspace))
      }
      let spoiled = (0..<(sweep.sums - sweep.maxima)).contains { !sums[$0].isFinite }
      if spoiled || sweep.writes && NonFinite.any(output!, outputType, count: count) {
        inspect(raw, start, count, results: spoiled ? nil : output.map { ($0, outputType) })
      }
      if sweep.writes {
        if !isDirect { round(output!, count, into: buffers.writer.place) }
        let size = task.outputType.size
        try buffers.writer.take(count * size, following: length * size)
      }
      start += count
    }
  }

  /// A page of a mapped input was missing: reading it the other way says which, and why.
  private func explain(_ range: Range<Int>) throws(Failure) {
    let length = Partition.unit
    for input in tensor.task.inputs {
      let buffer = UnsafeMutableRawPointer.allocate(byteCount: length * max(8, input.dtype.size), alignment: 64)
      defer { buffer.deallocate() }
      for start in stride(from: range.lowerBound, to: range.upperBound, by: length) {
        _ = try input.elements(start, min(length, range.upperBound - start), buffer: buffer)
      }
    }
    throw Failure(
      .file, "an input of '\(tensor.task.context.name)' could not be read: \(tensor.task.inputNames.joined(separator: ", "))")
  }

  /// Round a block of binary64 to the output's type.
  private func round(_ results: UnsafeMutableRawPointer, _ count: Int, into target: UnsafeMutableRawPointer) {
    let type = tensor.task.outputType
    Cast.narrow(results.assumingMemoryBound(to: Double.self), count: count, into: target, type)
    guard NonFinite.any(target, type, count: count) else { return }
    let before = NonFinite.first(results, .f64, count: count)?.count ?? 0
    let after = NonFinite.first(target, type, count: count)?.count ?? 0
    if after > before { monitor.locked { tensor.overflowed += after - before } }
  }

  /// A result is not finite: is it an input's fault?
  private func inspect(_ raw: [UnsafeRawPointer], _ start: Int, _ count: Int, results: (UnsafeMutableRawPointer, DType)?) {
    var found: (input: Int, element: Int)?
    for (k, input) in tensor.task.inputs.enumerated() {
      if let hit = NonFinite.first(raw[k], input.dtype, count: count), hit.index < found?.element ?? .max {
        found = (k, hit.index)
      }
    }
    let overflowed = found == nil ? results.flatMap { NonFinite.first($0.0, $0.1, count: count)?.count } : nil
    monitor.locked {
      if let found {
        if tensor.task.policy == .error, !tensor.keepsNonFinite {
          tensor.meet(.nonFinite(input: found.input, element: start + found.element))
        } else {
          tensor.nonFinite += 1
        }
      } else if let overflowed {
        tensor.overflowed += overflowed
      } else {
        tensor.meet(.underflowOrOverflow)
      }
    }
  }

  // MARK: - Copies

  private func copy(_ index: Int, _ range: Range<Int>) throws(Failure) {
    let task = tensor.task
    let input = task.inputs[index]
    if try copyByRange(input, range) { return }
    let length = Partition.unit
    let layout = BlockBuffers.Layout(task, inputs: [index], kernelType: nil, count: min(length, range.count))
    let arena = buffers.base(layout)
    var start = range.lowerBound
    while start < range.upperBound {
      if isStopped { return }
      let count = min(length, range.upperBound - start)
      let source = try input.elements(start, count, buffer: layout.reads[0].map { arena + $0 })
      var result = source
      if input.dtype != task.outputType {
        Cast.convert(source, input.dtype, count: count, into: arena + layout.results, task.outputType)
        result = UnsafeRawPointer(arena + layout.results)
      }
      let bytes = count * task.outputType.size
      switch task.output {
      case .memory(let base): (base + start * task.outputType.size).copyMemory(from: result, byteCount: bytes)
      case .stored(let file, let offset): try file.write(result, count: bytes, at: offset + start * task.outputType.size)
      case .none: break
      }
      control.advance(bytes: bytes)
      start += count
    }
  }

  /// From file to file, as it is; false where an element has to be converted, or the system cannot.
  private func copyByRange(_ input: TensorInput, _ range: Range<Int>) throws(Failure) -> Bool {
    let size = input.dtype.size
    guard case .stored(let checkpoint, let record) = input, case .stored(let file, let offset) = tensor.task.output,
      input.dtype == tensor.task.outputType, !range.isEmpty
    else { return false }
    let bytes = range.lowerBound * size..<range.upperBound * size
    guard try checkpoint.copy(record, bytes: bytes, to: file, at: offset + bytes.lowerBound) else { return false }
    control.advance(bytes: bytes.count, copiedByRange: true)
    return true
  }
}

/// Byte comparison of whole tensors, for the rare tensor that cannot be merged as it is.
enum Comparison {
  static func allEqual(_ inputs: [TensorInput], count: Int) throws(Failure) -> Bool {
    guard let first = inputs.first, inputs.allSatisfy({ $0.dtype == first.dtype }) else { return false }
    let length = Partition.unit
    let size = first.dtype.size
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 2 * length * size, alignment: 64)
    defer { buffer.deallocate() }
    for start in stride(from: 0, to: count, by: length) {
      let part = min(length, count - start)
      let expected = try first.elements(start, part, buffer: buffer)
      for other in inputs.dropFirst() {
        let found = try other.elements(start, part, buffer: buffer + length * size)
        if memcmp(expected, found, part * size) != 0 { return false }
      }
    }
    return true
  }
}
