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
    statistics: [[Double]?] = [], artifacts: (any ArtifactSink)? = nil
  ) throws -> Merged {
    var tensor = context(name, shape ?? [models[0].count], models: models.count, hasBase: base != nil)
    tensor.statistics = statistics
    tensor.artifacts = artifacts
    return try run(program, tensor, memory(models, base))
  }

  private func context(_ name: String, _ shape: [Int], models: Int, hasBase: Bool) -> TensorContext {
    var tensor = TensorContext(name: name, shape: shape, modelCount: models, hasBase: hasBase)
    tensor.isDouble = dtype == .f64
    return tensor
  }

  private func memory(_ models: [[Double]], _ base: [Double]?) -> [Memory] {
    ((base.map { [$0] } ?? []) + models).map { Memory($0, dtype) }
  }

  private func run(_ program: any SweepProgram, _ tensor: TensorContext, _ inputs: [Memory]) throws -> Merged {
    var progress = Progress(try program.begin(tensor), tensor, inputs, dtype)
    while case .sweep(let sweep) = progress.step { try progress.go(on: sweep.next(carryOut(sweep, progress))) }
    return progress.merged
  }

  /// Tensors of one group: each goes on until it waits, then the sums of all are added up in their order.
  func mergeGroup(
    _ program: any SweepProgram, _ tensors: [(name: String, base: [Double], models: [[Double]])]
  ) throws -> [Merged] {
    let group = GroupStorage()
    var all: [Progress] = []
    for (name, base, models) in tensors {
      var tensor = context(name, [base.count], models: models.count, hasBase: true)
      tensor.group = group
      all.append(Progress(try program.begin(tensor), tensor, memory(models, base), dtype))
    }
    while true {
      var waiting: [(index: Int, sweep: Sweep, sums: [Double])] = []
      for index in all.indices {
        while case .sweep(let sweep) = all[index].step {
          let sums = carryOut(sweep, all[index])
          if sweep.pools, !sweep.writes {
            sweep.beforePooling()
            waiting.append((index, sweep, sums))
            break
          }
          try all[index].go(on: sweep.next(sums))
        }
      }
      guard let first = waiting.first else { return all.map(\.merged) }
      let total = waiting.dropFirst().reduce(first.sums) { sum, next in zip(sum, next.sums).map { $0 + $1 } }
      for (index, sweep, _) in waiting { try all[index].go(on: sweep.next(total)) }
    }
  }

  /// A tensor on its way.
  private struct Progress {
    private(set) var step: Step
    let tensor: TensorContext
    let inputs: [Memory]
    let output: Memory
    private var sweeps: Int

    init(_ step: Step, _ tensor: TensorContext, _ inputs: [Memory], _ dtype: DType) {
      self.step = step
      self.tensor = tensor
      self.inputs = inputs
      output = Memory([Double](repeating: .nan, count: tensor.count), dtype)
      sweeps = 0
    }

    mutating func go(on next: Step) {
      sweeps += 1
      step = next
    }

    var merged: Merged {
      switch step {
      case .finish(let decision): Merged(values: output.values, decision: decision, copied: nil, sweeps: sweeps)
      case .copy(let input, let decision):
        Merged(values: inputs[input].values, decision: decision, copied: input, sweeps: sweeps)
      case .sweep: preconditionFailure("the tensor is not done")
      }
    }
  }

  private func carryOut(_ sweep: Sweep, _ progress: Progress) -> [Double] {
    let (count, inputs, output) = (progress.tensor.count, progress.inputs, progress.output)
    // 16-bit types stay as they are unless the sweep wants wide ones; wide inputs give binary64.
    let kernelType = sweep.wide && dtype.size == 2 ? DType.f32 : dtype
    let outputType = kernelType == dtype && dtype.size == 2 ? dtype : .f64
    let converted = kernelType == dtype ? inputs : inputs.map { $0.converted(kernelType) }
    let result = Memory([Double](repeating: .nan, count: sweep.writes ? count : 0), outputType, fill: 0xA5)
    let sums = Memory([Double](repeating: 0, count: sweep.sums - sweep.maxima), .f64, room: sweep.maxima, fill: 0xA5)
    for i in 0..<sweep.maxima { sums.doubles[sweep.sums - sweep.maxima + i] = -.infinity }
    let workspace = Memory([], .f64, room: KernelGeometry.workspaceBytes(rows: inputs.count) / 8, fill: 0xA5)
    let length = sweep.granule == 1 ? block : max(1, block / sweep.granule) * sweep.granule
    for (start, part) in blocks(sweep, of: count, by: length) {
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

  /// First element and length of each block, in the stretches that the sweep names.
  private func blocks(_ sweep: Sweep, of count: Int, by length: Int) -> [(start: Int, count: Int)] {
    (sweep.ranges ?? [0..<count]).map { $0.clamped(to: 0..<count) }.flatMap { range in
      stride(from: range.lowerBound, to: range.upperBound, by: length).map { ($0, min(length, range.upperBound - $0)) }
    }
  }
}

/// Keeps the bytes of artifacts.
final class ArtifactStore: ArtifactSink, @unchecked Sendable {
  // @unchecked: the runner has one thread.
  let dtype: DType
  let failure: Failure? = nil
  private(set) var bytes: [[UInt8]]

  /// - Parameter sizes: bytes of each artifact.
  init(_ sizes: [Int], dtype: DType = .f32) {
    self.dtype = dtype
    bytes = sizes.map { [UInt8](repeating: 0xA5, count: $0) }
  }

  func write(_ source: UnsafeRawPointer, count: Int, artifact index: Int, at offset: Int) {
    for i in 0..<count { bytes[index][offset + i] = source.load(fromByteOffset: i, as: UInt8.self) }
  }
}

// MARK: - Plain references of the elementwise methods

/// Random numbers by element, from docs/masks.md.
enum Philox {
  static func isKept(_ name: String, seed: UInt64 = 0, model: Int, _ e: Int, _ probability: Double) -> Bool {
    let hash = name.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    var x = [UInt32(truncatingIfNeeded: e / 4), UInt32(truncatingIfNeeded: (e / 4) >> 32), UInt32(model), 0]
    var key = [UInt32(truncatingIfNeeded: hash ^ seed), UInt32(truncatingIfNeeded: (hash ^ seed) >> 32)]
    for _ in 0..<10 {
      let (first, second) = (UInt64(0xD251_1F53) * UInt64(x[0]), UInt64(0xCD9E_8D57) * UInt64(x[2]))
      x = [
        UInt32(second >> 32) ^ x[1] ^ key[0], UInt32(truncatingIfNeeded: second), UInt32(first >> 32) ^ x[3] ^ key[1],
        UInt32(truncatingIfNeeded: first),
      ]
      key = [key[0] &+ 0x9E37_79B9, key[1] &+ 0xBB67_AE85]
    }
    return Double(x[e % 4]) < (probability * 0x1p32 + 0.5).rounded(.down)
  }

  /// A task vector after the drop.
  static func dropped(_ d: [Double], _ name: String = "w", seed: UInt64 = 0, model: Int, _ probability: Double) -> [Double] {
    d.enumerated().map { isKept(name, seed: seed, model: model, $0.offset, probability) ? $0.element : 0 }
  }
}

enum Plain {
  static func differences(_ models: [[Double]], _ base: [Double]) -> [[Double]] {
    models.map { zip($0, base).map { $0 - $1 } }
  }

  /// The `kept` largest magnitudes, ties by the lowest index.
  static func trimmed(_ d: [Double], kept: Int) -> [Double] {
    let order = d.indices.sorted { (d[$0].magnitude, $1) > (d[$1].magnitude, $0) }
    let stays = Set(order.prefix(kept))
    return d.indices.map { stays.contains($0) ? d[$0] : 0 }
  }

  /// All magnitudes from the k-th smallest on, k = n - floor(density * n).
  static func trimmedInclusive(_ d: [Double], density: Double) -> [Double] {
    let k = d.count - Int(Double(d.count) * density)
    let threshold = d.map(\.magnitude).sorted()[max(k, 1) - 1]
    return d.map { $0.magnitude >= threshold ? $0 : 0 }
  }

  static func sign(_ x: Double) -> Double { x > 0 ? 1 : x < 0 ? -1 : 0 }

  /// The elected sign of each element.
  static func signs(_ e: [[Double]], byCount: Bool = false, zero: Double) -> [Double] {
    e[0].indices.map { i in
      let vote = e.reduce(0.0) { $0 + (byCount ? sign($1[i]) : $1[i]) }
      return vote == 0 ? zero : sign(vote)
    }
  }

  /// Mean, sum or the largest of what agrees.
  static func merged(_ e: [[Double]], _ signs: [Double], _ rule: String, weights: [Double]? = nil) -> [Double] {
    e[0].indices.map { i in
      let some = e.indices.filter { e[$0][i] != 0 && sign(e[$0][i]) == signs[i] }
      let sum = some.reduce(0.0) { $0 + e[$1][i] }
      switch rule {
      case "sum": return sum
      case "mean":
        let divisor = some.reduce(0.0) { $0 + (weights?[$1] ?? 1) }
        return sum / (divisor == 0 ? 1 : divisor)
      default: return some.map { e[$0][i] }.reduce(0) { $1.magnitude >= $0.magnitude ? $1 : $0 }
      }
    }
  }

  static func sum(_ e: [[Double]], weights: [Double]? = nil) -> [Double] {
    e[0].indices.map { i in e.indices.reduce(0.0) { $0 + (weights?[$1] ?? 1) * e[$1][i] } }
  }
}

/// Multiples of a quarter between -2 and 2, zeros among them: differences and sums are exact in every type, with many ties.
func quarters(_ count: Int, _ random: inout SplitMix64) -> [Double] {
  (0..<count).map { _ in Double(random.next() % 17) * 0.25 - 2 }
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
