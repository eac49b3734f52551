import Glibc
import MergeMethods
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// Results on their way into a file that others write to.
@Suite struct ResultWriterTests {
  /// Blocks of 700 elements, 7000 in all, with the element's number as value.
  private func fill(_ output: TensorOutput, _ control: ExecutionControl, capacity: Int) throws -> [Int] {
    let writer = ResultWriter(control)
    try writer.begin(output, from: 4 * 300, block: 2800, room: 4 * capacity)
    var done: [Int] = []
    for start in stride(from: 300, to: 7300, by: 700) {
      let place = writer.place.assumingMemoryBound(to: Float.self)
      for i in 0..<700 { place[i] = Float(start + i) }
      try writer.take(2800, following: 2800)
      done.append(control.bytesDone)
    }
    try writer.flush()
    #expect(control.bytesDone == 28_000)
    return done
  }

  private func contents(_ file: File, from element: Int, count: Int) throws -> [Float] {
    let values = UnsafeMutablePointer<Float>.allocate(capacity: count)
    defer { values.deallocate() }
    try file.read(into: values, count: 4 * count, at: 64 + 4 * element)
    return Array(UnsafeBufferPointer(start: values, count: count))
  }

  @Test func everyBlockIsWrittenWhereNobodyElseWrites() throws {
    let folder = TemporaryFolder()
    let file = try File(path: folder("out"), mode: .create)
    let done = try fill(.stored(file, offset: 64), ExecutionControl(), capacity: 2800)
    #expect(done == (1...10).map { $0 * 2800 })
    #expect(try contents(file, from: 300, count: 7000) == (300..<7300).map(Float.init))
  }

  @Test func blocksThatAreKeptAreWrittenInTheEnd() throws {
    let folder = TemporaryFolder()
    let file = try File(path: folder("out"), mode: .create)
    let other = [UInt8](repeating: 7, count: 1 << 20)
    let end = ExecutionControl()
    var kept = 0
    WorkerPool.run(count: 2) { worker in
      if worker == 1 {
        while !end.isCancelled { try? file.write(other, at: 1 << 20) }
        return
      }
      while !file.isBeingWritten { usleep(100) }
      for _ in 0..<20 {
        let control = ExecutionControl()
        let done = (try? self.fill(.stored(file, offset: 64), control, capacity: 2800)) ?? []
        // Never more than the buffer holds.
        for (block, bytes) in done.enumerated() { #expect((block + 1) * 2800 - bytes < 4 * 2800) }
        kept += zip(1..., done).count { $0 * 2800 != $1 }
      }
      end.cancel()
    }
    #expect(kept > 0)
    #expect(try contents(file, from: 300, count: 7000) == (300..<7300).map(Float.init))
  }

  @Test func tensorsThatFollowOneAnotherAreWrittenTogether() throws {
    let folder = TemporaryFolder()
    let file = try File(path: folder("out"), mode: .create)
    let (control, other) = (ExecutionControl(), [UInt8](repeating: 7, count: 1 << 20))
    let end = ExecutionControl()
    var together = 0
    WorkerPool.run(count: 2) { worker in
      if worker == 1 {
        while !end.isCancelled { try? file.write(other, at: 1 << 20) }
        return
      }
      let writer = ResultWriter(control)
      // Tensors of 160 elements one after another, then one that leaves a gap.
      for tensor in 0..<1000 {
        let first = tensor < 999 ? 64 + 640 * tensor : 64 + 640 * 1000
        while tensor < 2, !file.isBeingWritten { usleep(100) }
        do {
          try writer.begin(.stored(file, offset: first), from: 0, block: 640, room: 1 << 16)
          let place = writer.place.assumingMemoryBound(to: Float.self)
          for i in 0..<160 { place[i] = Float(160 * tensor + i) }
          let before = control.bytesDone
          try writer.take(640, following: 640)
          if control.bytesDone - before > 640 { together += 1 }
        } catch { Issue.record(error) }
      }
      do { try writer.flush() } catch { Issue.record(error) }
      end.cancel()
    }
    #expect(together > 0)
    #expect(control.bytesDone == 640_000)
    #expect(try contents(file, from: 0, count: 159_840) == (0..<159_840).map(Float.init))
    #expect(try contents(file, from: 160_000, count: 160) == (159_840..<160_000).map(Float.init))
  }

  @Test func memoryIsWrittenInPlace() throws {
    let memory = UnsafeMutablePointer<Float>.allocate(capacity: 10_000)
    defer { memory.deallocate() }
    let done = try fill(.memory(memory), ExecutionControl(), capacity: 700)
    #expect(done == (1...10).map { $0 * 2800 })
    #expect((300..<7300).allSatisfy { memory[$0] == Float($0) })
  }
}
