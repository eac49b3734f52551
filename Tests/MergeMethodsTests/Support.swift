import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeMethods

// Tensor sizes of the tests that run whole methods: kernels are about 1000 times slower without optimisation.
#if DEBUG
  let isOptimised = false
  let longTensor = 3 * 1024 + 7
#else
  let isOptimised = true
  let longTensor = 65536 + 3
#endif

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// In [-1, 1), 53 bits.
  mutating func signed() -> Double { Double(Int64(bitPattern: next()) >> 10) * 0x1p-53 }
  mutating func values(_ count: Int) -> [Double] { (0..<count).map { _ in signed() } }
}

// MARK: - The example of the specification (reference/methods.md, section 14)

/// 4 x 3 tensors; the expectations have nine decimals, so they are met to half a unit of the ninth and some rounding.
enum Example {
  static let shape = [4, 3]
  static let tolerance = 1e-9
  static let base = [0.50, -1.00, 0.25, 1.50, 0.10, -0.75, -0.40, 0.80, 0.60, 0.20, -0.30, 1.10]
  static let deltas = [
    [0.10, -0.04, 0.02, 0.06, 0.12, -0.08, -0.02, 0.05, 0.09, 0.03, -0.07, 0.11],
    [0.08, 0.03, -0.01, 0.09, 0.02, -0.06, 0.04, 0.07, -0.03, -0.05, -0.02, 0.10],
    [-0.03, -0.06, 0.07, 0.05, 0.08, 0.01, -0.01, 0.02, 0.06, 0.04, -0.09, 0.13],
  ]
  static let models = deltas.map { zip(base, $0).map { $0 + $1 } }
}

/// Matrices as lists, row by row.
func product(_ a: [Double], _ b: [Double], rows m: Int, inner k: Int, columns n: Int) -> [Double] {
  var result = [Double](repeating: 0, count: m * n)
  for i in 0..<m { for l in 0..<k { for j in 0..<n { result[i * n + j] += a[i * k + l] * b[l * n + j] } } }
  return result
}

func transposed(_ a: [Double], rows m: Int, columns n: Int) -> [Double] { (0..<m * n).map { a[$0 % m * n + $0 / m] } }

func identity(_ n: Int, _ scale: Double = 1) -> [Double] { (0..<n * n).map { $0 % (n + 1) == 0 ? scale : 0 } }

/// Largest difference of two lists; infinity when their lengths differ or something is NaN.
func distance(_ a: [Double], _ b: [Double]) -> Double {
  guard a.count == b.count else { return .infinity }
  return zip(a, b).reduce(0) { ($1.0 - $1.1).isNaN ? .infinity : max($0, ($1.0 - $1.1).magnitude) }
}

func norm(_ x: [Double]) -> Double { x.reduce(0) { $0 + $1 * $1 }.squareRoot() }

func members(_ value: JSON) -> [JSON.Member] { value.members! }

func make(_ name: String, _ parameters: JSON = [:]) throws(Failure) -> any MergeMethod {
  try Registry.make(Registry.method(named: name), members(parameters))
}

extension Decision {
  subscript(key: String) -> JSON? { entries.first { $0.key == key }?.value }
  func numbers(_ key: String) -> [Double] { (self[key]?.array ?? []).compactMap(\.double) }
}

// MARK: - Running a method

/// The result of a method on one tensor.
struct Merged {
  var values: [Double]
  var decision: Decision
  /// The input that was copied; nil: the values were computed.
  var copied: Int?
  var sweeps: Int
}

/// Carries out the steps of a method over one tensor in memory, block after block, in one thread.
struct Runner {
  /// The type of inputs and result.
  var dtype = DType.f64
  /// Elements of a block: a multiple of 1024; with a granule, the next smaller multiple of that (at least one).
  var block = 1024

  func merge(
    _ program: any SweepProgram, _ models: [[Double]], base: [Double]? = nil, shape: [Int]? = nil, name: String = "w",
    statistics: [[Double]?] = []
  ) throws -> Merged {
    var tensor = TensorContext(name: name, shape: shape ?? [models[0].count], modelCount: models.count, hasBase: base != nil)
    tensor.statistics = statistics
    return try run(program, tensor, ((base.map { [$0] } ?? []) + models).map { Memory($0, dtype) })
  }

  private func run(_ program: any SweepProgram, _ tensor: TensorContext, _ inputs: [Memory]) throws -> Merged {
    let output = Memory([Double](repeating: .nan, count: tensor.count), dtype)
    var step = try program.begin(tensor)
    var sweeps = 0
    while true {
      switch step {
      case .finish(let decision):
        return Merged(values: output.values, decision: decision, copied: nil, sweeps: sweeps)
      case .copy(let input, let decision):
        return Merged(values: inputs[input].values, decision: decision, copied: input, sweeps: sweeps)
      case .sweep(let sweep):
        sweeps += 1
        step = try sweep.next(carryOut(sweep, tensor.count, inputs, output))
      }
    }
  }

  private func carryOut(_ sweep: Sweep, _ count: Int, _ inputs: [Memory], _ output: Memory) throws -> [Double] {
    // 16-bit types stay as they are unless the sweep wants wide ones; wide inputs give binary64.
    let kernelType = sweep.wide && dtype.size == 2 ? DType.f32 : dtype
    let outputType = kernelType == dtype && dtype.size == 2 ? dtype : .f64
    let converted = kernelType == dtype ? inputs : inputs.map { $0.converted(kernelType) }
    let result = Memory([Double](repeating: .nan, count: sweep.writes ? count : 0), outputType, fill: 0xA5)
    let sums = Memory([Double](repeating: 0, count: sweep.sums - sweep.maxima), .f64, room: sweep.maxima, fill: 0xA5)
    for i in 0..<sweep.maxima { sums.doubles[sweep.sums - sweep.maxima + i] = -.infinity }
    let workspace = Memory([], .f64, room: KernelGeometry.workspaceBytes(rows: inputs.count) / 8, fill: 0xA5)
    let length = sweep.granule == 1 ? block : max(1, block / sweep.granule) * sweep.granule
    for start in stride(from: 0, to: count, by: length) {
      let part = min(length, count - start)
      let pointers = converted.map { UnsafeRawPointer($0.start + start * kernelType.size) }
      pointers.withUnsafeBufferPointer { table in
        sweep.run(
          Block(
            inputs: KernelInputs(table: table.baseAddress!, count: table.count, dtype: kernelType), start: start, count: part,
            output: sweep.writes ? result.start + start * outputType.size : nil, outputType: outputType, sums: sums.doubles,
            workspace: workspace.start))
      }
    }
    #expect(result.isIntact && sums.isIntact && workspace.isIntact && converted.allSatisfy(\.isIntact))
    if sweep.writes { Cast.convert(UnsafeRawPointer(result.start), outputType, count: count, into: output.start, dtype) }
    return (0..<sweep.sums).map { sums.doubles[$0] }
  }
}

/// Elements of one type between two margins of `fill`: 0xFF for inputs, which is a NaN in every float type, and 0xA5 for outputs,
/// which an addition changes too.
final class Memory {
  let start: UnsafeMutableRawPointer
  let dtype: DType
  private let count: Int
  private let fill: UInt8
  private let bytes: Int
  private let block: UnsafeMutableRawPointer
  private static let margin = 128

  /// - Parameter room: further elements after the values, uninitialised.
  init(_ values: [Double], _ dtype: DType, room: Int = 0, fill: UInt8 = 0xFF) {
    self.dtype = dtype
    self.fill = fill
    count = values.count
    bytes = (values.count + room) * dtype.size
    block = .allocate(byteCount: bytes + 2 * Self.margin, alignment: 64)
    start = block + Self.margin
    block.initializeMemory(as: UInt8.self, repeating: fill, count: bytes + 2 * Self.margin)
    Cast.narrow(values, count: values.count, into: start, dtype)
  }

  deinit { block.deallocate() }

  var doubles: UnsafeMutablePointer<Double> { start.assumingMemoryBound(to: Double.self) }

  var values: [Double] {
    [Double](unsafeUninitializedCapacity: count) { buffer, filled in
      if count > 0 { Cast.convert(UnsafeRawPointer(start), dtype, count: count, into: buffer.baseAddress!, .f64) }
      filled = count
    }
  }

  var isIntact: Bool {
    UnsafeRawBufferPointer(start: block, count: Self.margin).allSatisfy { $0 == fill }
      && UnsafeRawBufferPointer(start: start + bytes, count: Self.margin).allSatisfy { $0 == fill }
  }

  func converted(_ other: DType) -> Memory {
    let result = Memory([Double](repeating: 0, count: count), other)
    Cast.convert(UnsafeRawPointer(start), dtype, count: count, into: result.start, other)
    return result
  }
}

/// Run something that must fail, and check its code and words.
func expectFailure(
  _ status: Status, _ words: String..., at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) {
  do {
    try body()
    Issue.record("nothing was thrown", sourceLocation: location)
  } catch let error as Failure {
    #expect(error.status == status, "\(error.message)", sourceLocation: location)
    for word in words { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
  } catch {
    Issue.record("\(error)", sourceLocation: location)
  }
}
