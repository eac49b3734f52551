import Glibc
import Synchronization
import Testing

@testable import Platform

@Suite struct CrewTests {
  /// Run `body` on one thread of a crew whose other threads have nothing else to do.
  private func crew(_ size: Int, _ body: @escaping () -> Void) {
    let monitor = Monitor()
    let crew = Crew(size: size, monitor: monitor)
    let isDone = Atomic<Bool>(false)
    WorkerPool.run(count: size) { worker in
      crew.enlist {
        if worker == 0 {
          body()
          monitor.locked {
            isDone.store(true, ordering: .sequentiallyConsistent)
            monitor.wakeAll()
          }
        } else {
          monitor.locked {
            while !isDone.load(ordering: .sequentiallyConsistent) { if !crew.help() { monitor.wait() } }
          }
        }
      }
    }
  }

  @Test(arguments: [1, 2, 3, 8], [0, 1, 2, 7, 100]) func everyPartIsDoneOnceAndInItsPlace(size: Int, count: Int) {
    let runs = Mutex([Int](repeating: 0, count: count))
    crew(size) {
      for _ in 0..<20 {
        let squares = Crew.map(count) { index in
          runs.withLock { $0[index] += 1 }
          return index * index
        }
        #expect(squares == (0..<count).map { $0 * $0 })
      }
    }
    #expect(runs.withLock { $0 } == [Int](repeating: 20, count: count))
  }

  @Test func idleThreadsTakeParts() {
    let threads = Mutex(Set<UInt>())
    crew(3) {
      Crew.each(3) { _ in
        threads.withLock { _ = $0.insert(UInt(pthread_self())) }
        // Nobody goes on before all three are here: with fewer threads this would not end.
        while threads.withLock({ $0.count }) < 3 { sched_yield() }
      }
    }
    #expect(threads.withLock { $0.count } == 3)
  }

  @Test(arguments: [1, 2, 4]) func partsMayHavePartsThemselves(size: Int) {
    let total = Atomic<Int>(0)
    crew(size) {
      Crew.each(5) { outer in
        let sums = Crew.map(6) { inner in Crew.map(3) { outer * inner * $0 }.reduce(0, +) }
        total.add(sums.reduce(0, +), ordering: .relaxed)
      }
    }
    #expect(total.load(ordering: .relaxed) == 10 * 15 * 3)
  }

  @Test func outsideACrewTheCallerDoesItAll() {
    #expect(Crew.threads == 1)
    let caller = pthread_self()
    let same = Crew.map(4) { _ in pthread_equal(pthread_self(), caller) != 0 }
    #expect(same == [true, true, true, true])
    crew(2) { #expect(Crew.threads == 2) }
    #expect(Crew.threads == 1)
  }
}
