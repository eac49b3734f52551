import Glibc
import Platform
import Synchronization
import Testing

@testable import LinearAlgebra

@Suite struct OpenBLASTests {
  @Test func itIsLinkedWithTheLock() {
    #expect(OpenBLAS.isLocked)
  }

  @Test func threadsDoNotShareABuffer() throws {
    // Without the lock, dsytrd is wrong in seven of ten runs at order 700 (COpenBLASLock).
    let n = isOptimised ? 500 : 80
    var random = SplitMix64(state: 123)
    let a = Matrix(rows: n, columns: n, random.gram(n, rank: n))
    let alone = a.dense
    let values = try #require(SymmetricSpectrum.decompose(alone.view))
    let copies = (0..<12).map { _ in a.dense }
    nonisolated(unsafe) let shared = copies
    let agreeing = Mutex(0)
    WorkerPool.run(count: 3) { worker in
      for copy in shared[(4 * worker)..<(4 * worker + 4)] where SymmetricSpectrum.decompose(copy.view) == values {
        agreeing.withLock { $0 += 1 }
      }
    }
    #expect(agreeing.withLock { $0 } == 12)
    for copy in copies { #expect(memcmp(copy.values, alone.values, n * n * 8) == 0) }
  }
}
