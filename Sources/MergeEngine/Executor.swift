import MergeMethods
import Platform
import TensorKernels

/// Runs tensor tasks on a pool of workers, whatever their inputs and outputs are.
///
/// Workers take stretches of the tensors in progress, in order; when all are taken, the next tensor begins, so reading one
/// tensor overlaps with computing and writing others. The worker that ends a sweep computes what comes next. Small tensors are
/// handed out several at a time (`TensorBatch`). Nothing depends on who takes what (see `Partition` and `Sweep`).
public final class Executor: @unchecked Sendable {
  // @unchecked: all state is guarded by `monitor`.

  private var tasks: TaskList
  private let threads: Int
  /// Bytes of buffers per worker.
  private let bufferBudget: Int
  private let scratchBudget: Int
  private let control: ExecutionControl
  /// Called under the lock when a tensor is done.
  private let finished: (Int, TensorResult) throws(Failure) -> Void
  /// Called under the lock after one or more calls of `finished`.
  private let settled: () throws(Failure) -> Void
  /// Called after each stretch, by any worker.
  private let heartbeat: () -> Void

  private let monitor = Monitor()
  private let crew: Crew
  private var next = 0
  private var active: [ActiveTensor] = []
  /// Tensors whose pooled sums are known, waiting to go on.
  private var ready: [ActiveTensor] = []
  private var pools: [Int: Pool] = [:]
  /// Tensors that wait for their group.
  private var parked = 0
  /// Batches in work.
  private var batches = 0
  private var scratchInUse = 0
  private var failure: Failure?

  /// The tensors of a group: how many take part, and which of them wait for the others.
  private struct Pool {
    var taking = 0
    var waiting: [(tensor: ActiveTensor, sums: [Double])] = []
  }

  /// Memory for buffers when the caller sets no limit.
  public static let defaultMemory = 256 << 20

  /// - Parameter memory: bytes for buffers and methods' scratch; nil: `defaultMemory` for buffers, scratch as it comes.
  public convenience init(
    tasks: [TensorTask], threads: Int, memory: Int?, control: ExecutionControl, heartbeat: @escaping () -> Void = {},
    finished: @escaping (Int, TensorResult) throws(Failure) -> Void
  ) {
    self.init(
      TaskList(tasks), threads: threads, memory: memory, control: control, heartbeat: heartbeat, finished: finished)
  }

  init(
    _ tasks: TaskList, threads: Int, memory: Int?, control: ExecutionControl, heartbeat: @escaping () -> Void = {},
    settled: @escaping () throws(Failure) -> Void = {}, finished: @escaping (Int, TensorResult) throws(Failure) -> Void
  ) {
    self.tasks = tasks
    self.threads = max(1, threads)
    crew = Crew(size: self.threads, monitor: monitor)
    self.control = control
    self.heartbeat = heartbeat
    self.finished = finished
    self.settled = settled
    let largestScratch = tasks.largestScratch
    // As many tensors at once as there are workers, if they fit beside a share for the buffers.
    let wanted = self.threads * largestScratch
    let total = memory ?? Self.defaultMemory + wanted
    scratchBudget = max(largestScratch, min(wanted, total - total / 4))
    bufferBudget = max(1, (total - scratchBudget) / self.threads)
    for (group, count) in tasks.groups { pools[group] = Pool(taking: count) }
  }

  /// Run all tasks. The first failure stops the rest.
  public func run() throws(Failure) {
    MappedWindow.whileGuarding { WorkerPool.run(count: threads) { [self] _ in crew.enlist { work() } } }
    if let failure { throw failure }
    if control.isCancelled { throw Failure(.cancelled, "the merge was cancelled") }
  }

  // MARK: - Handing out

  private enum Work {
    case stretches(ActiveTensor, Range<Int>)
    case batch(TensorBatch)
  }

  private func work() {
    let buffers = BlockBuffers(control)
    let ownMonitor = Monitor()
    while let work = monitor.locked({ pick() }) {
      guard case .stretches(let tensor, let stretches) = work else {
        if case .batch(let batch) = work { carry(batch, buffers, ownMonitor) }
        continue
      }
      do throws(Failure) {
        try StretchRunner(tensor: tensor, buffers: buffers, budget: bufferBudget, control: control, monitor: monitor).run(
          stretches)
      } catch {
        stop(error)
      }
      heartbeat()
      let isLast = monitor.locked {
        tensor.done += stretches.count
        let last = tensor.done == tensor.partition.stretches
        if last { tensor.isAdvancing = true }
        return last
      }
      if isLast { advance(tensor) }
    }
  }

  /// The next stretches to work on; nil when there is nothing left. Under the lock.
  private func pick() -> Work? {
    while failure == nil, !control.isCancelled {
      for tensor in active { if let stretches = tensor.claim() { return .stretches(tensor, stretches) } }
      if ready.isEmpty, let batch = startBatch() { return .batch(batch) }
      if active.count <= threads, startAnother() { continue }
      if active.isEmpty, parked == 0, batches == 0 { break }
      if crew.help() { continue }
      monitor.wait()
    }
    monitor.wakeAll()
    return nil
  }

  /// Begin another tensor, if there is one and its scratch fits beside the others'. Under the lock.
  private func startAnother() -> Bool {
    if let tensor = ready.last {
      guard fits(tensor.task) else { return false }
      scratchInUse += tensor.task.scratchBytes
      active.append(ready.removeLast())
      return true
    }
    guard next < tasks.count else { return false }
    do throws(Failure) {
      let task = try tasks.task(next)
      guard fits(task) else { return false }
      scratchInUse += task.scratchBytes
      let tensor = try ActiveTensor(index: next, task: task)
      control.begin(task.context.name)
      active.append(tensor)
    } catch {
      failure = failure ?? error
      return false
    }
    next += 1
    if next < tasks.count, let following = try? tasks.task(next) {
      let range = Partition(count: following.context.count, granule: 1).range(0)
      for input in following.inputs { input.prefetch(range) }
    }
    return true
  }

  /// May a tensor's scratch be held beside that of others? One alone always may: the plan has seen to it.
  private func fits(_ task: TensorTask) -> Bool { scratchInUse == 0 || scratchInUse + task.scratchBytes <= scratchBudget }

  /// Take the small tensors that come next, if they do. Under the lock.
  private func startBatch() -> TensorBatch? {
    let room = scratchInUse == 0 ? nil : scratchBudget - scratchInUse
    let most = max(1, (tasks.count - next) / (4 * threads))
    let found: TensorBatch?
    do throws(Failure) { found = try TensorBatch(&tasks, from: next, most: most, room: room) } catch {
      failure = failure ?? error
      return nil
    }
    guard let batch = found else { return nil }
    next += batch.tasks.count
    scratchInUse += batch.scratchBytes
    batches += 1
    return batch
  }

  private func stop(_ reason: Failure) {
    monitor.locked {
      failure = failure ?? reason
      monitor.wakeAll()
    }
  }

  // MARK: - Small tensors

  private func carry(_ batch: TensorBatch, _ buffers: BlockBuffers, _ ownMonitor: Monitor) {
    var results: [(index: Int, result: TensorResult)] = []
    var trouble: Failure?
    let windows = BatchWindows(batch.tasks)
    do throws(Failure) {
      for (place, task) in batch.tasks.enumerated() {
        guard let result = try carry(task, batch.first + place, buffers, windows, ownMonitor) else { break }
        results.append((batch.first + place, result))
        control.finish()
        heartbeat()
      }
    } catch {
      trouble = error
    }
    withExtendedLifetime(windows) {}
    // Only what is in the files is done.
    do throws(Failure) { try buffers.writer.flush() } catch { (trouble, results) = (trouble ?? error, []) }
    monitor.locked {
      batches -= 1
      scratchInUse -= batch.scratchBytes
      do throws(Failure) {
        for (index, result) in results { try finished(index, result) }
        try settled()
      } catch {
        trouble = trouble ?? error
      }
      failure = failure ?? trouble
      monitor.wakeAll()
    }
  }

  /// Carry one tensor through all of its steps; nil when the run is cancelled.
  private func carry(
    _ task: TensorTask, _ index: Int, _ buffers: BlockBuffers, _ windows: BatchWindows, _ ownMonitor: Monitor
  ) throws(Failure) -> TensorResult? {
    control.begin(task.context.name)
    let tensor = try ActiveTensor(index: index, task: task)
    let runner = StretchRunner(
      tensor: tensor, buffers: buffers, budget: bufferBudget, control: control, monitor: ownMonitor,
      starts: windows.starts(task))
    while true {
      while let stretches = tensor.claim() { try runner.run(stretches) }
      if control.isCancelled { return nil }
      switch tensor.step {
      case .copy(_, let decision): return tensor.conclude(decision, copied: true)
      case .finish(let decision): return tensor.conclude(decision, copied: false)
      case .sweep(let sweep): tensor.take(try self.step(tensor, after: sweep, tensor.total(maxima: sweep.maxima)))
      }
    }
  }

  /// What comes after a sweep whose sums are the tensor's own.
  private func step(_ tensor: ActiveTensor, after sweep: Sweep, _ sums: [Double]) throws(Failure) -> Step {
    if let step = try tensor.recovery(after: sweep, sums) { return step }
    if let failure = tensor.task.artifacts?.failure { throw failure }
    return try sweep.next(sums)
  }

  // MARK: - Between sweeps

  /// All stretches of a step are done: find the next step.
  private func advance(_ tensor: ActiveTensor) {
    do throws(Failure) {
      if control.isCancelled || monitor.locked({ failure != nil }) { return }
      switch tensor.step {
      case .copy(_, let decision): try finish(tensor, decision, copied: true)
      case .finish(let decision): try finish(tensor, decision, copied: false)
      case .sweep(let sweep): try advance(tensor, after: sweep)
      }
    } catch {
      stop(error)
    }
  }

  private func advance(_ tensor: ActiveTensor, after sweep: Sweep) throws(Failure) {
    let sums = tensor.total(maxima: sweep.maxima)
    if sweep.pools, !sweep.writes, let group = tensor.task.group {
      if let step = try tensor.recovery(after: sweep, sums) { return try proceed(tensor, step) }
      sweep.beforePooling()
      return try pool(tensor, group, sums)
    }
    try proceed(tensor, try step(tensor, after: sweep, sums))
  }

  private func proceed(_ tensor: ActiveTensor, _ step: Step) throws(Failure) {
    if case .finish(let decision) = step { return try finish(tensor, decision, copied: false) }
    monitor.locked {
      tensor.take(step)
      monitor.wakeAll()
    }
  }

  private func finish(_ tensor: ActiveTensor, _ decision: Decision, copied: Bool) throws(Failure) {
    let result = tensor.conclude(decision, copied: copied)
    if let group = tensor.task.group { try leave(group) }
    let refusal: Failure? = monitor.locked {
      active.removeAll { $0 === tensor }
      scratchInUse -= tensor.task.scratchBytes
      control.finish()
      defer { monitor.wakeAll() }
      do throws(Failure) {
        try finished(tensor.index, result)
        try settled()
      } catch { return error }
      return nil
    }
    if let refusal { throw refusal }
  }

  // MARK: - Pooled sums

  /// Park a tensor until all of its group have come as far.
  private func pool(_ tensor: ActiveTensor, _ group: Int, _ sums: [Double]) throws(Failure) {
    tensor.task.release()
    monitor.locked {
      active.removeAll { $0 === tensor }
      tensor.releaseWindows()
      scratchInUse -= tensor.task.scratchBytes
      pools[group]!.waiting.append((tensor, sums))
      parked += 1
      monitor.wakeAll()
    }
    try release(group)
  }

  /// A tensor of the group is done; the others need not wait for it.
  private func leave(_ group: Int) throws(Failure) {
    monitor.locked { pools[group]!.taking -= 1 }
    try release(group)
  }

  /// If all of a group wait, add the sums up in the order of the tensors and let all go on.
  private func release(_ group: Int) throws(Failure) {
    let waiting = monitor.locked { () -> [(tensor: ActiveTensor, sums: [Double])] in
      guard let pool = pools[group], !pool.waiting.isEmpty, pool.waiting.count == pool.taking else { return [] }
      pools[group]!.waiting = []
      return pool.waiting
    }
    let members = waiting.sorted { $0.tensor.index < $1.tensor.index }
    guard var total = members.first?.sums else { return }
    if let odd = members.first(where: { $0.sums.count != total.count }) {
      throw Failure(
        .parameter,
        "'\(odd.tensor.task.context.name)' has other settings than the tensors it shares its scope with: give one value, without filters, "
          + "or scope: tensor")
    }
    for member in members.dropFirst() { for i in total.indices { total[i] += member.sums[i] } }
    var done: [(ActiveTensor, Decision)] = []
    // The last one that is ready goes on first.
    for member in members.reversed() {
      guard case .sweep(let sweep) = member.tensor.step else { continue }
      let step = try sweep.next(total)
      if case .finish(let decision) = step { done.append((member.tensor, decision)) }
      monitor.locked {
        parked -= 1
        member.tensor.take(step)
        if case .finish = step { scratchInUse += member.tensor.task.scratchBytes } else { ready.append(member.tensor) }
        monitor.wakeAll()
      }
    }
    for (tensor, decision) in done { try finish(tensor, decision, copied: false) }
  }
}
