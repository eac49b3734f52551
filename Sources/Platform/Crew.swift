import Glibc

/// The workers of one call, and how work inside one tensor is shared among those of them that have nothing else to do.
///
/// Whoever calls `each` does the parts itself; workers that wait for a tensor take parts as well. The parts are fixed by the caller, so
/// who does them changes no bit. A part may call `each` again. Outside a crew, and in a crew of one, the caller does it all.
public final class Crew {
  // All state is guarded by `monitor`.
  private let monitor: Monitor
  public let size: Int
  private var open: [Batch] = []

  private final class Batch {
    let count: Int
    let body: (Int) -> Void
    var next = 0
    var done = 0

    init(_ count: Int, _ body: @escaping (Int) -> Void) {
      (self.count, self.body) = (count, body)
    }
  }

  /// - Parameter monitor: on which idle workers wait.
  public init(size: Int, monitor: Monitor) {
    self.size = size
    self.monitor = monitor
  }

  // MARK: - Membership

  private static let key: pthread_key_t = {
    var key = pthread_key_t()
    precondition(pthread_key_create(&key, nil) == 0)
    return key
  }()

  /// The crew that this thread works for.
  private static var current: Crew? {
    pthread_getspecific(key).map { Unmanaged<Crew>.fromOpaque($0).takeUnretainedValue() }
  }

  /// Make the calling thread a member while `body` runs.
  public func enlist(_ body: () -> Void) {
    let before = pthread_getspecific(Self.key)
    pthread_setspecific(Self.key, Unmanaged.passUnretained(self).toOpaque())
    body()
    pthread_setspecific(Self.key, before)
  }

  /// How many threads could share the work of the calling one.
  public static var threads: Int { current?.size ?? 1 }

  // MARK: - Sharing

  /// Run `body` for every index, in any order and on any worker, and return when all are done.
  public static func each(_ count: Int, _ body: (Int) -> Void) {
    guard count > 1, let crew = current, crew.size > 1 else {
      for index in 0..<max(0, count) { body(index) }
      return
    }
    withoutActuallyEscaping(body) { crew.share(Batch(count, $0)) }
  }

  /// The results of `body` for every index, computed as by `each`.
  public static func map<Value>(_ count: Int, _ body: (Int) -> Value) -> [Value] {
    [Value](unsafeUninitializedCapacity: count) { space, used in
      let first = space.baseAddress
      each(count) { index in (first! + index).initialize(to: body(index)) }
      used = count
    }
  }

  private func share(_ batch: Batch) {
    monitor.locked {
      open.append(batch)
      monitor.wakeAll()
      while batch.next < batch.count { part(of: batch) }
      open.removeAll { $0 === batch }
      while batch.done < batch.count { monitor.wait() }
    }
  }

  /// Take one part of somebody's work, if there is any. Under the lock, which is released meanwhile.
  /// - Returns: was there any?
  public func help() -> Bool {
    guard let batch = open.last(where: { $0.next < $0.count }) else { return false }
    part(of: batch)
    return true
  }

  private func part(of batch: Batch) {
    let index = batch.next
    batch.next += 1
    monitor.unlocked { batch.body(index) }
    batch.done += 1
    if batch.done == batch.count { monitor.wakeAll() }
  }
}
