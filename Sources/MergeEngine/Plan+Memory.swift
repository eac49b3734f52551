import MergeMethods
import Platform
import TensorKernels

// What a merge holds beside the mapped pages of its inputs:
//
//   this plan and what the report is made of      a few kilobytes per tensor
//   blocks of inputs, conversions and output      per worker, cut to what is left (BlockBuffers)
//   what methods hold of a tensor in work         scratchBytes: sums, samples, masks, matrices
//
// `max_memory` is for all of them together. What one worker could not do within it is refused before anything is written.

extension Plan {
  /// Bytes of this plan and of the report: records and names of inputs and output, decisions, and the texts made of them.
  var ownBytes: Int {
    guard let first = tensors.first else { return 0 }
    // Not derived but fitted: peaks of 20,000 tensors of four inputs, without the interpreter and the blocks, were 3,900 to 4,100 each
    // for Gram methods, 5,200 to 5,600 for TIES and its kin, which decide more for the report, and 7,600 where tensors wait for their
    // group in the middle of their sweeps.
    let isGram = recipe.schema.family == "gram"
    let waiting = !isGram && tensors.contains { $0.group != nil } ? 2200 : 0
    return tensors.count * ((isGram ? 3100 : 4700) + 250 * first.inputs.count + waiting)
  }

  /// Bytes for buffers and scratch, of a limit or of none.
  var workMemory: Int? {
    if let memory { return max(0, memory - ownBytes) }
    // Matrices to be decomposed are as large as they are; what other methods hold may wait for its turn.
    return recipe.schema.family == "spectral" ? nil : Executor.defaultMemory + Executor.defaultMemory / 4
  }

  /// The workers that a limit allows, at least one.
  /// - Throws: `.memory` where a tensor does not fit: a block of one chunk, or of one row where a method needs whole rows.
  func fittingThreads() throws(Failure) -> Int {
    guard let memory else { return threads }
    var (scratch, buffers) = (0, 1)
    var worst: (bytes: Int, tensor: Int)?
    for index in kinds {
      let task = try makeTask(tensors[index], output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!))
      let cost = BlockBuffers.cost(task)
      var least = KernelGeometry.chunk
      if let method = task.method, case .sweep(let sweep) = try method.begin(task.context) { least = max(least, sweep.granule) }
      let bytes = cost.fixed + cost.perElement * least + task.scratchBytes
      scratch = max(scratch, task.scratchBytes)
      buffers = max(buffers, bytes - task.scratchBytes)
      if bytes > worst?.bytes ?? 0 { worst = (bytes, index) }
    }
    let least = ownBytes + max(scratch + buffers, worst?.bytes ?? 0)
    if let worst, least > memory {
      let tensor = tensors[worst.tensor]
      let remedy = recipe.schema.parameter("exclude_keys") == nil ? "drop the option" : "leave the tensor out with exclude_keys"
      throw Failure(
        .memory,
        "'\(tensor.name)' \(tensor.shape) needs \(worst.bytes) bytes on one thread, and the plan \(ownBytes), more than max_memory = "
          + "\(memory): raise it to \(least), or \(remedy)")
    }
    return min(threads, max(1, (memory - ownBytes - scratch) / buffers))
  }

  /// Bytes of buffers and scratch at most; with a limit, that.
  var plannedMemory: Int {
    if let memory { return memory }
    var (blocks, scratch) = (0, 0)
    for index in kinds {
      guard let task = try? makeTask(tensors[index], output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!)) else {
        continue
      }
      let cost = BlockBuffers.cost(task)
      let block = Partition(count: task.context.count, granule: 1).block(
        bytesPerElement: cost.perElement, budget: max(0, Executor.defaultMemory / threads - cost.fixed))
      blocks = max(blocks, cost.fixed + cost.perElement * min(block, task.context.count))
      scratch = max(scratch, task.scratchBytes)
    }
    return blocks * threads + scratch
  }

  /// The most that one tensor holds beside its blocks.
  func largestScratch() throws(Failure) -> Int {
    var most = 0
    for index in kinds {
      most = max(
        most, try makeTask(tensors[index], output: .memory(UnsafeMutableRawPointer(bitPattern: 64)!)).scratchBytes)
    }
    return most
  }

  /// One tensor of each kind: those of one kind have the same shape, types, inputs and parameters, and need as much.
  static func kinds(_ inputs: [Input], _ tensors: [Tensor]) -> [Int] {
    var seen: Set<[Int]> = []
    let isPlain = inputs.allSatisfy { $0.adapter == nil && !$0.isTaskVector }
    return tensors.indices.filter { index in
      let tensor = tensors[index]
      guard isPlain, tensor.rowMaps == nil, tensor.croppedColumns == nil else { return true }
      var kind = [tensor.settings ?? -1, tensor.dtype.size, tensor.inputs.count] + tensor.shape
      for (input, place) in zip(tensor.inputs, tensor.indices) {
        kind.append(inputs[input].checkpoint.tensors[place].dtype.size)
      }
      return seen.insert(kind).inserted
    }
  }
}
