import Glibc
import Synchronization

/// A fixed number of threads that all run one function and are joined before the call returns.
///
/// The calling thread is worker 0, so one worker means no thread at all. There is no global pool: a process may fork between
/// calls, and nothing is left behind in the host.
public enum WorkerPool {
  /// Run `body(worker)` for worker 0..<count. When the system refuses a thread, the remaining workers do its share: callers
  /// hand out work dynamically, so fewer workers means slower, never wrong.
  public static func run(count: Int, _ body: @escaping (Int) -> Void) {
    var threads: [pthread_t] = []
    for worker in 1..<max(count, 1) {
      let start = Unmanaged.passRetained(Start(worker: worker, body: body))
      var thread = pthread_t()
      let refused = pthread_create(
        &thread, nil,
        { argument in
          let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
          start.body(start.worker)
          return nil
        }, start.toOpaque())
      if refused != 0 {
        start.release()
        break
      }
      threads.append(thread)
    }
    body(0)
    for thread in threads { pthread_join(thread, nil) }
  }

  /// `body` of 0..<count, in that order, made by at most `workers` workers.
  public static func map<Value>(_ count: Int, workers: Int, _ body: @escaping (Int) -> Value) -> [Value] {
    guard workers > 1, count > 1 else { return (0..<count).map(body) }
    let values = UnsafeMutablePointer<Value?>.allocate(capacity: count)
    values.initialize(repeating: nil, count: count)
    defer {
      values.deinitialize(count: count)
      values.deallocate()
    }
    let next = Counter()
    run(count: min(workers, count)) { _ in
      while case let index = next.value.wrappingAdd(1, ordering: .relaxed).oldValue, index < count {
        values[index] = body(index)
      }
    }
    return (0..<count).map { values[$0]! }
  }

  private final class Counter { let value = Atomic<Int>(0) }

  private final class Start {
    let worker: Int
    let body: (Int) -> Void
    init(worker: Int, body: @escaping (Int) -> Void) {
      self.worker = worker
      self.body = body
    }
  }
}

/// A mutex with a condition variable.
public final class Monitor {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>

  public init() {
    mutex = .allocate(capacity: 1)
    condition = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  public func locked<Value>(_ body: () throws -> Value) rethrows -> Value {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Release the lock while `body` runs. Only inside `locked`.
  public func unlocked(_ body: () -> Void) {
    pthread_mutex_unlock(mutex)
    body()
    pthread_mutex_lock(mutex)
  }

  /// Release the lock until someone wakes us. Only inside `locked`.
  public func wait() { pthread_cond_wait(condition, mutex) }

  public func wakeAll() { pthread_cond_broadcast(condition) }
}
