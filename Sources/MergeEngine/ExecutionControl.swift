import Platform
import Synchronization

/// What other threads may ask of a run and see of it: cancellation and progress.
public final class ExecutionControl: Sendable {
  public enum Phase: Int, Sendable { case planned, merging, finishing, done, failed }

  private let cancelled = Atomic<Bool>(false)
  private let phaseNumber = Atomic<Int>(0)
  private let tensors = Atomic<Int>(0)
  private let bytes = Atomic<Int>(0)
  private let ranges = Atomic<Int>(0)
  private let current = Mutex<String>("")

  public init() {}

  public func cancel() { cancelled.store(true, ordering: .relaxed) }
  public var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

  public var phase: Phase { Phase(rawValue: phaseNumber.load(ordering: .relaxed)) ?? .failed }
  public func enter(_ phase: Phase) { phaseNumber.store(phase.rawValue, ordering: .relaxed) }

  public var tensorsDone: Int { tensors.load(ordering: .relaxed) }
  public var bytesDone: Int { bytes.load(ordering: .relaxed) }
  /// Of `bytesDone`, those that went from file to file without being read.
  public var bytesCopiedByRange: Int { ranges.load(ordering: .relaxed) }
  /// Name of the tensor begun last.
  public var tensor: String { current.withLock { $0 } }

  public func begin(_ name: String) { current.withLock { $0 = name } }
  public func finish(tensors count: Int = 1) { tensors.wrappingAdd(count, ordering: .relaxed) }
  public func advance(bytes count: Int, copiedByRange: Bool = false) {
    bytes.wrappingAdd(count, ordering: .relaxed)
    if copiedByRange { ranges.wrappingAdd(count, ordering: .relaxed) }
  }
}
