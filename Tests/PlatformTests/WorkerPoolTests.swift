import Glibc
import Platform
import Synchronization
import Testing

@Suite struct WorkerPoolTests {
  @Test(arguments: [1, 2, 3, 7, 32]) func everyWorkerRunsOnceAndIsDoneOnReturn(count: Int) {
    let runs = (0..<count).map { _ in Counter() }
    WorkerPool.run(count: count) { worker in
      // Later workers finish later: without a join some would still be asleep.
      usleep(UInt32(worker) * 500)
      runs[worker].add(1)
    }
    #expect(runs.map(\.value) == [Int](repeating: 1, count: count))
  }

  @Test func theCallerIsWorkerZeroAndTheOthersHaveThreadsOfTheirOwn() {
    let caller = pthread_self()
    let monitor = Monitor()
    let threads = Collected<pthread_t>()
    WorkerPool.run(count: 4) { worker in
      let isCaller = pthread_equal(pthread_self(), caller) != 0
      #expect(isCaller == (worker == 0))
      monitor.locked { threads.items.append(pthread_self()) }
      // All four at once, so that no thread's number is used again.
      monitor.locked {
        if threads.items.count == 4 { monitor.wakeAll() }
        while threads.items.count < 4 { monitor.wait() }
      }
    }
    #expect(Set(threads.items).count == 4)
  }

  @Test(arguments: [(0, 4), (1, 4), (5, 0), (5, 1), (5, 2), (3, 8), (1000, 3)]) func mapsInOrderAndEachOnce(
    count: Int, workers: Int
  ) {
    let runs = (0..<count).map { _ in Counter() }
    let squares = WorkerPool.map(count, workers: workers) { index in
      runs[index].add(1)
      return "\(index * index)"
    }
    #expect(squares == (0..<count).map { "\($0 * $0)" })
    #expect(runs.allSatisfy { $0.value == 1 })
  }

  @Test(arguments: [0, -3]) func noWorkersMeansTheCallerAlone(count: Int) {
    let runs = Counter()
    WorkerPool.run(count: count) { worker in
      #expect(worker == 0)
      runs.add(1)
    }
    #expect(runs.value == 1)
  }

  @Test func poolsMayBeNested() {
    let runs = Counter()
    WorkerPool.run(count: 3) { _ in WorkerPool.run(count: 3) { _ in runs.add(1) } }
    #expect(runs.value == 9)
  }

  @Test func bodiesAreReleasedAfterTheRun() {
    weak var remembered: Counter?
    do {
      let counter = Counter()
      remembered = counter
      WorkerPool.run(count: 4) { _ in counter.add(1) }
      #expect(counter.value == 4)
    }
    #expect(remembered == nil)
  }
}

@Suite struct MonitorTests {
  @Test func onlyOneIsInsideAtATime() {
    let monitor = Monitor()
    let box = Collected<Int>()
    box.items = [0]
    WorkerPool.run(count: 4) { _ in
      for _ in 0..<5000 { monitor.locked { box.items[0] += 1 } }
    }
    #expect(box.items == [20000])
  }

  @Test func waitersAreAllWokenAndHoldTheLockAgain() {
    let monitor = Monitor()
    let (waiting, woken) = (Collected<Int>(), Collected<Int>())
    WorkerPool.run(count: 4) { worker in
      if worker == 0 {
        while monitor.locked({ waiting.items.count }) < 3 { usleep(100) }
        monitor.locked {
          woken.items.append(-1)
          monitor.wakeAll()
        }
      } else {
        monitor.locked {
          waiting.items.append(worker)
          while woken.items.isEmpty { monitor.wait() }
          woken.items.append(worker)
        }
      }
    }
    #expect(woken.items.first == -1)
    #expect(Set(woken.items) == [-1, 1, 2, 3] && woken.items.count == 4)
  }

  @Test func aValueOrAnErrorComesOutAndTheLockIsFree() {
    let monitor = Monitor()
    #expect(monitor.locked { 42 } == 42)
    #expect(throws: Failure(.internal, "x")) { try monitor.locked { throw Failure(.internal, "x") } }
    #expect(monitor.locked { true })
  }
}

private final class Counter: Sendable {
  private let count = Atomic<Int>(0)
  func add(_ more: Int) { count.add(more, ordering: .relaxed) }
  var value: Int { count.load(ordering: .relaxed) }
}

/// Guarded by a monitor of the test.
private final class Collected<Item>: @unchecked Sendable {
  var items: [Item] = []
}
