import Synchronization

/// Memory that each worker adds whole numbers to, summed up at the end of a sweep.
final class CounterPool: Sendable {
  private struct Pages: ~Copyable, @unchecked Sendable {
    // @unchecked: a page belongs to whoever has taken it from the list.
    var free: [UnsafeMutablePointer<UInt64>] = []
    var all: [UnsafeMutablePointer<UInt64>] = []
    deinit { for page in all { page.deallocate() } }
  }

  private let count: Int
  private let pages = Mutex(Pages())

  init(count: Int) { self.count = count }

  /// Lend a page of counters, zero at first, to one worker.
  func use<Result>(_ body: (UnsafeMutablePointer<UInt64>) -> Result) -> Result {
    let page = UnsafeMutablePointer<UInt64>(
      bitPattern: pages.withLock { pages -> UInt in
        if let page = pages.free.popLast() { return UInt(bitPattern: page) }
        let page = UnsafeMutablePointer<UInt64>.allocate(capacity: count)
        page.initialize(repeating: 0, count: count)
        pages.all.append(page)
        return UInt(bitPattern: page)
      })!
    defer { pages.withLock { $0.free.append(UnsafeMutablePointer(bitPattern: UInt(bitPattern: page))!) } }
    return body(page)
  }

  /// Hand each page on and let go of it: a tensor that waits for its group holds none.
  func drain(_ body: (UnsafePointer<UInt64>) -> Void) {
    pages.withLock { pages in
      for page in pages.all {
        body(page)
        page.deallocate()
      }
      (pages.all, pages.free) = ([], [])
    }
  }
}
