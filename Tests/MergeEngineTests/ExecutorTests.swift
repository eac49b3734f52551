import JSON
import MergeEngine
import MergeMethods
import Platform
import Synchronization
import TensorKernels
import Testing

/// What the executor does around a method: ranges, values that are not finite, sums that leave the range, cancellation.
@Suite struct ExecutorTests {
  private struct Outcome {
    let values: [Float]
    let result: TensorResult
  }

  /// Merge arrays in memory, stored as `dtype`.
  private func merge(
    _ method: String, _ parameters: [JSON.Member] = [], _ inputs: [[Float]], dtype: DType = .f32, output: DType = .f32,
    hasBase: Bool = true, policy: NonFinitePolicy = .error, threads: Int = 2
  ) throws(Failure) -> Outcome {
    let count = inputs[0].count
    let stored = inputs.map { Stored(name: "", shape: [count], values: $0, dtype: dtype).bytes }
    let buffers = stored.map { bytes -> UnsafeMutableRawPointer in
      let buffer = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes.count), alignment: 64)
      bytes.withUnsafeBytes { if let start = $0.baseAddress { buffer.copyMemory(from: start, byteCount: bytes.count) } }
      return buffer
    }
    let out = UnsafeMutableRawPointer.allocate(byteCount: max(1, count * 8), alignment: 64)
    defer { for buffer in buffers + [out] { buffer.deallocate() } }
    let type = try Registry.method(named: method)
    let program = try Registry.make(type, parameters)
    let equalInputs = type.ofEqualInputs(try Parameters(type.schema, parameters))
    let task = TensorTask(
      context: TensorContext(name: "w", shape: [count], modelCount: inputs.count - (hasBase ? 1 : 0), hasBase: hasBase),
      inputs: buffers.map { .memory(UnsafeRawPointer($0), dtype) }, inputNames: inputs.indices.map { "input \($0)" },
      output: .memory(out), outputType: output, method: program, policy: policy,
      equalInputs: equalInputs)
    var result: TensorResult?
    try Executor(tasks: [task], threads: threads, memory: nil, control: ExecutionControl()) { result = $1 }.run()
    var values = [Float](repeating: 0, count: count)
    values.withUnsafeMutableBytes { if count > 0 { Cast.convert(out, output, count: count, into: $0.baseAddress!, .f32) } }
    return Outcome(values: values, result: result!)
  }

  private func number(_ outcome: Outcome, _ key: String) -> Double? {
    outcome.result.decision.entries.first { $0.key == key }?.value.double
  }

  @Test(arguments: [0, 1, 2, 1023, 1025, 4096])
  func lengthsAtTheEdges(count: Int) throws {
    var generator = Generator(UInt64(count))
    let base = generator.floats(count)
    let model = generator.floats(count)
    let outcome = try merge("task_arithmetic", [.init(key: "lambda", value: 0.25)], [base, model])
    for i in 0..<count {
      // Two exact binary64 operations and one rounding.
      #expect(outcome.values[i] == Float(Double(base[i]) + 0.25 * (Double(model[i]) - Double(base[i]))))
    }
  }

  @Test(arguments: [-30, -25, 0, 12, 18])
  func bfloat16SumsThatLeaveTheRangeOfBinary32AreTakenAgain(exponent: Int) throws {
    var generator = Generator(11)
    var scale: Float = 1
    for _ in 0..<abs(exponent) { scale *= exponent < 0 ? 0.125 : 8 }
    let inputs = (0..<4).map { _ in generator.floats(500).map { $0 * scale } }
    let plain = try merge("model_stock", [], inputs.map { $0.map { $0 / scale } }, dtype: .bf16, output: .bf16)
    let scaled = try merge("model_stock", [], inputs, dtype: .bf16, output: .bf16)
    // A power of two moves no digit; binary32 sums differ from binary64 ones by at most 64 roundings in 500 products.
    #expect((number(plain, "t")! - number(scaled, "t")!).magnitude < 1e-5)
    #expect(zip(plain.values, scaled.values).allSatisfy { ($0 * scale - $1).magnitude <= $1.magnitude * 0x1p-7 })
  }

  @Test func theFirstBadElementIsNamed() throws {
    var inputs = (0..<3).map { _ in [Float](repeating: 1, count: 3000) }
    inputs[2][2500] = .infinity
    inputs[1][2600] = .nan
    for method in ["linear", "yoyo_fusion"] {
      let failure = #expect(throws: Failure.self) { try merge(method, [], inputs, hasBase: false) }
      #expect(failure?.status == .nonFinite)
      #expect(failure?.message.contains("'w' of input 2") == true && failure?.message.contains("element 2500") == true)
    }
  }

  @Test func equalInputsAreCopiedWhateverTheyHold() throws {
    let values: [Float] = [1, .nan, -.infinity, -0.0]
    for method in ["linear", "model_stock", "yoyo_fusion"] {
      let outcome = try merge(method, [], [values, values, values], hasBase: method == "model_stock")
      #expect(outcome.values.map(\.bitPattern) == values.map(\.bitPattern))
      #expect(outcome.result.copied && !outcome.result.decision.warnings.isEmpty)
    }
  }

  @Test func equalInputsAreNoChangeInATaskVector() throws {
    let values: [Float] = [1, .nan, -.infinity, -0.0]
    for (method, policy) in [
      ("task_arithmetic", NonFinitePolicy.error), ("ties", .error), ("model_stock", .error), ("model_stock", .ignore),
    ] {
      let outcome = try merge(method, [.init(key: "output", value: "task_vector")], [values, values, values], policy: policy)
      #expect(outcome.values == [0, 0, 0, 0], "\(method)")
      #expect(!outcome.result.copied && !outcome.result.decision.warnings.isEmpty)
    }
  }

  @Test(arguments: [4, 100_000]) func equalInputsAreMultipliedWhateverTheyHold(count: Int) throws {
    let values: [Float] = [8, .nan, -.infinity, 3] + [Float](repeating: 1, count: count - 4)
    for (method, parameters, inputs) in [
      ("passthrough", [JSON.Member(key: "scale", value: 0.5)], 1),
      ("linear", [.init(key: "normalize", value: false), .init(key: "weight", value: 0.25)], 2),
    ] {
      let outcome = try merge(method, parameters, Array(repeating: values, count: inputs), hasBase: false)
      #expect(outcome.values[0] == 4 && outcome.values[1].isNaN && outcome.values[3] == 1.5, "\(method)")
      #expect(!outcome.values[2].isFinite && outcome.values.dropFirst(4).allSatisfy { $0 == 0.5 })
      #expect(!outcome.result.copied && outcome.result.decision.warnings.contains { $0.contains("kept in the result") })
    }
  }

  @Test func ignoringPassesBadValuesThroughElementwiseMethods() throws {
    let outcome = try merge("linear", [], [[1, .nan, 3], [1, 2, 5]], hasBase: false, policy: .ignore)
    #expect(outcome.values[0] == 1 && outcome.values[1].isNaN && outcome.values[2] == 4)
    let warned = try merge("linear", [], [[1, .nan, 3], [1, 2, 5]], hasBase: false, policy: .warn)
    #expect(!warned.result.decision.warnings.isEmpty)
  }

  @Test(arguments: [DType.f16, .bf16, .f8e5m2])
  func resultsThatDoNotFitAreCounted(output: DType) throws {
    let outcome = try merge(
      "task_arithmetic", [.init(key: "lambda", value: 3.0e38)], [[0, 0, 0], [1, 2, 0]], output: output)
    #expect(outcome.result.decision.entries.contains { $0.key == "overflowed" && ($0.value.int ?? 0) > 0 })
    #expect(outcome.values[1].isInfinite && outcome.values[2] == 0)
  }

  @Test func aCancelledRunSaysSo() throws {
    let control = ExecutionControl()
    control.cancel()
    let failure = #expect(throws: Failure.self) {
      try Executor(tasks: [], threads: 3, memory: nil, control: control) { _, _ in }.run()
    }
    #expect(failure?.status == .cancelled)
  }

  // MARK: - Ranges

  /// Counts the elements that a sweep over some ranges sees, and remembers the blocks.
  private final class Ranged: SweepProgram {
    private let ranges: [Range<Int>]
    let blocks = Mutex<[Range<Int>]>([])
    let sums = Mutex<[Double]>([])

    init(_ ranges: [Range<Int>]) { self.ranges = ranges }

    func begin(_ tensor: TensorContext) throws(Failure) -> Step {
      var sweep = Sweep(sums: 2, writes: false) { block in
        self.blocks.withLock { $0.append(block.start..<block.start + block.count) }
        block.sums[0] += Double(block.count)
        for i in 0..<block.count {
          block.sums[1] += Double(block.inputs.table[0].loadUnaligned(fromByteOffset: 4 * i, as: Float.self))
        }
      } next: { sums in
        self.sums.withLock { $0 = sums }
        return .finish(Decision())
      }
      sweep.ranges = ranges
      return .sweep(sweep)
    }
  }

  @Test(arguments: [1, 2, 5]) func namedRangesAreSweptAndNothingElse(threads: Int) throws {
    let count = 3 * 65536 + 100
    let values = (0..<count).map { Float($0 % 1000) }
    let named = [5..<6, 1000..<3100, 65536..<2 * 65536, 3 * 65536..<4 * 65536, count..<count + 10]
    let program = Ranged(named)
    try values.withUnsafeBytes {
      try MemoryMerge.run(
        program, [MemoryTensor(data: $0.baseAddress!, dtype: .f32)], into: nil, .f64, count: count, threads: threads)
    }
    // What reaches past the end is cut off there.
    let seen = program.blocks.withLock { $0 }.filter { !$0.isEmpty }.sorted { $0.lowerBound < $1.lowerBound }
    let expected = named.map { $0.clamped(to: 0..<count) }
    #expect(Array(seen.joined()) == Array(expected.joined()))
    let sum = expected.joined().reduce(0.0) { $0 + Double(values[$1]) }
    #expect(program.sums.withLock { $0 } == [Double(expected.reduce(0) { $0 + $1.count }), sum])
  }

  // MARK: - Scratch

  /// Does nothing much, with scratch, and counts how many of its tensors are in work at once.
  private final class Scratchy: SweepProgram {
    private let scratch: Int
    let running = Atomic<Int>(0)
    let most = Atomic<Int>(0)

    init(scratch: Int) { self.scratch = scratch }

    func scratchBytes(_ tensor: TensorContext) -> Int { scratch }

    func begin(_ tensor: TensorContext) throws(Failure) -> Step {
      let now = running.wrappingAdd(1, ordering: .relaxed).newValue
      most.max(now, ordering: .relaxed)
      return step(3)
    }

    private func step(_ left: Int) -> Step {
      .sweep(
        Sweep(sums: 1, writes: false) {
          $0.sums[0] += 1
        } next: { _ in
          if left > 0 { return self.step(left - 1) }
          self.running.wrappingSubtract(1, ordering: .relaxed)
          return .finish(Decision())
        })
    }
  }

  @Test(arguments: [(1, 1), (3, 3), (100, 5)]) func asManyTensorsRunAsTheirScratchFits(megabytes: Int, atMost: Int) throws {
    let program = Scratchy(scratch: 1 << 20)
    let values = [Float](repeating: 1, count: 4 * 65536)
    var done: Set<Int> = []
    try values.withUnsafeBytes { memory in
      let tasks = (0..<40).map { index in
        TensorTask(
          context: TensorContext(name: "w\(index)", shape: [values.count], modelCount: 1, hasBase: false),
          inputs: [.memory(memory.baseAddress!, .f32)], inputNames: ["values"], output: .none, outputType: .f32,
          method: program)
      }
      // A quarter of the limit is for buffers.
      try Executor(
        tasks: tasks, threads: 5, memory: megabytes * (1 << 20) * 4 / 3 + 16, control: ExecutionControl()
      ) { index, _ in done.insert(index) }.run()
    }
    #expect(done == Set(0..<40) && program.running.load(ordering: .relaxed) == 0)
    // One tensor more than there are workers may be begun, to read ahead.
    #expect(program.most.load(ordering: .relaxed) <= min(atMost, 5) + (atMost == 5 ? 1 : 0))
    if megabytes == 1 { #expect(program.most.load(ordering: .relaxed) == 1) }
  }
}
