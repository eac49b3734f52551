import MergeMethods
import Platform
import Synchronization
import TensorKernels
import Testing

@testable import MergeEngine

/// Small tensors that one worker carries through all their steps.
@Suite struct TensorBatchTests {
  /// Sums the elements, then writes each as its share of the sum.
  private struct Shares: SweepProgram {
    let scratch: Int
    func scratchBytes(_ tensor: TensorContext) -> Int { scratch }

    func begin(_ tensor: TensorContext) throws(Failure) -> Step {
      let first = Sweep(sums: 1, writes: false) { block in
        let values = block.inputs.table[0].assumingMemoryBound(to: Float.self)
        for i in 0..<block.count { block.sums[0] += Double(values[i]) }
      } next: { sums in
        var second = Sweep(sums: 0, writes: true) { block in
          let values = block.inputs.table[0].assumingMemoryBound(to: Float.self)
          let output = block.output!.assumingMemoryBound(to: Float.self)
          for i in 0..<block.count { output[i] = Float(Double(values[i]) / sums[0]) }
        } next: { _ in
          .finish(Decision([.init(key: "sum", value: .double(sums[0]))]))
        }
        second.wide = true
        return .sweep(second)
      }
      return .sweep(first)
    }
  }

  private func task(
    _ name: String, _ values: UnsafeMutablePointer<Float>, _ count: Int, into output: UnsafeMutablePointer<Float>,
    scratch: Int = 0,
    group: Int? = nil
  ) -> TensorTask {
    TensorTask(
      context: TensorContext(name: name, shape: [count], modelCount: 1, hasBase: false),
      inputs: [.memory(UnsafeRawPointer(values), .f32)], inputNames: ["a"], output: .memory(output), outputType: .f32,
      method: Shares(scratch: scratch), group: group)
  }

  @Test(arguments: [1, 2, 5]) func everyTensorIsMadeOnce(threads: Int) throws {
    let counts = (0..<300).map { $0 % 7 == 0 ? 70_000 : 1 + $0 % 50 }
    let total = counts.reduce(0, +)
    let values = UnsafeMutablePointer<Float>.allocate(capacity: total)
    let output = UnsafeMutablePointer<Float>.allocate(capacity: total)
    defer {
      values.deallocate()
      output.deallocate()
    }
    for i in 0..<total { (values[i], output[i]) = (Float(1 + i % 3), -1) }
    var tasks: [TensorTask] = []
    var start = 0
    for (index, count) in counts.enumerated() {
      tasks.append(task("\(index)", values + start, count, into: output + start, scratch: index % 5))
      start += count
    }
    let finished = Mutex<[Int]>([])
    try Executor(tasks: tasks, threads: threads, memory: nil, control: ExecutionControl()) { index, _ in
      finished.withLock { $0.append(index) }
    }.run()
    #expect(finished.withLock { $0.sorted() } == Array(0..<300))
    start = 0
    for count in counts {
      let sum = (start..<start + count).reduce(0.0) { $0 + Double(values[$1]) }
      #expect((start..<start + count).allSatisfy { output[$0] == Float(Double(values[$0]) / sum) })
      start += count
    }
  }

  @Test func aBatchEndsAtALargeTensorAGroupAndItsBytes() throws {
    let room = UnsafeMutablePointer<Float>.allocate(capacity: 1)
    defer { room.deallocate() }
    func length(_ tasks: [TensorTask], most: Int = 100, room: Int? = nil) throws(Failure) -> Int {
      var list = TaskList(tasks)
      return try TensorBatch(&list, from: 0, most: most, room: room)?.tasks.count ?? 0
    }
    let small = task("s", room, 1000, into: room, scratch: 10)
    let large = task("l", room, 65537, into: room)
    let grouped = task("g", room, 1000, into: room, group: 0)
    let half = task("h", room, 65536, into: room)  // 256 KiB in binary32
    #expect(try length([small, small, large, small]) == 2 && length([large]) == 0 && length([]) == 0)
    #expect(try length([small, grouped]) == 1 && length([grouped, small]) == 0)
    #expect(try length([half, half, half, half, half, half]) == 4)
    #expect(try length([small, small, small], most: 2) == 2 && length([small], room: 9) == 0 && length([small], room: 10) == 1)
  }

  @Test func aFailureKeepsWhatWasFinishedBefore() throws {
    struct Failing: SweepProgram {
      func begin(_ tensor: TensorContext) throws(Failure) -> Step { throw Failure(.method, "no") }
    }
    let room = UnsafeMutablePointer<Float>.allocate(capacity: 20)
    defer { room.deallocate() }
    room.update(repeating: 1, count: 20)
    let good = task("good", room, 10, into: room + 10)
    let bad = TensorTask(
      context: good.context, inputs: good.inputs, inputNames: ["a"], output: good.output, outputType: .f32, method: Failing())
    // Eight tensors on one thread make batches of two: the failing one is the second of the first.
    let finished = Mutex<[Int]>([])
    let failure = #expect(throws: Failure.self) {
      try Executor(
        tasks: [good, bad] + [TensorTask](repeating: good, count: 6), threads: 1, memory: nil, control: ExecutionControl()
      ) { index, _ in finished.withLock { $0.append(index) } }.run()
    }
    #expect(failure?.message == "no" && finished.withLock { $0 } == [0])
  }
}
