import Checkpoints
import Glibc
import JSON
import MergeEngine
import Platform
import TensorKernels

/// A folder that is removed with its content when the value goes.
final class TemporaryFolder {
  let path: String

  init() {
    var template = Array("/tmp/stockpot-engine-XXXXXX".utf8CString)
    path = String(cString: mkdtemp(&template)!)
  }

  deinit { try? FileSystem.remove(path) }

  func callAsFunction(_ name: String) -> String { path + "/" + name }
}

/// SplitMix64: the same numbers on every machine.
struct Generator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }

  mutating func next() -> Double {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Double((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1
  }

  mutating func floats(_ count: Int, scale: Double = 1) -> [Float] { (0..<count).map { _ in Float(next() * scale) } }
}

/// A tensor to be written: binary32 values, stored as a type of choice.
struct Stored {
  let name: String
  let shape: [Int]
  let values: [Float]
  var dtype = DType.f32

  var bytes: [UInt8] {
    [UInt8](unsafeUninitializedCapacity: values.count * dtype.size) { buffer, count in
      if dtype == .i64 {
        for (i, value) in values.enumerated() {
          buffer.baseAddress!.withMemoryRebound(to: Int64.self, capacity: values.count) { $0[i] = Int64(value) }
        }
      } else if !values.isEmpty {
        Cast.convert(values, .f32, count: values.count, into: buffer.baseAddress!, dtype)
      }
      count = values.count * dtype.size
    }
  }
}

func write(_ tensors: [Stored], to path: String, shardSize: Int = CheckpointLayout.defaultShardSize) throws(Failure) {
  let contents = tensors.map(\.bytes)
  let pointers = contents.map { bytes -> UnsafeMutableRawPointer in
    let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes.count), alignment: 8)
    bytes.withUnsafeBytes { if let start = $0.baseAddress { copy.copyMemory(from: start, byteCount: bytes.count) } }
    return copy
  }
  defer { for pointer in pointers { pointer.deallocate() } }
  try CheckpointWriter.save(
    zip(tensors, pointers).map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape, data: UnsafeRawPointer($1)) }, to: path,
    shardSize: shardSize)
}

func bytes(of name: String, in path: String) throws(Failure) -> [UInt8] {
  let checkpoint = try Checkpoint(path: path)
  guard let record = checkpoint.tensor(named: name) else { throw Failure(.notFound, name) }
  var result = [UInt8](repeating: 0, count: record.byteCount)
  let failure: Failure? = result.withUnsafeMutableBytes { buffer in
    guard let start = buffer.baseAddress else { return nil }
    do throws(Failure) { try checkpoint.read(record, bytes: 0..<record.byteCount, into: start) } catch { return error }
    return nil
  }
  if let failure { throw failure }
  return result
}

func floats(of name: String, in path: String) throws(Failure) -> [Float] {
  let raw = try bytes(of: name, in: path)
  return raw.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
}

/// A base and models around it: matrices, a vector, a scalar and integers, some larger than a stretch in release.
struct Family {
  #if DEBUG
    static let large = [40, 60]
  #else
    static let large = [300, 701]
  #endif
  let folder = TemporaryFolder()
  let models: Int

  init(models: Int = 3, dtype: DType = .f32, shardSize: Int = CheckpointLayout.defaultShardSize) throws(Failure) {
    self.models = models
    var generator = Generator(7)
    let shapes: [(String, [Int])] = [
      ("embed.weight", Self.large), ("layers.0.w", [17, 33]), ("layers.0.b", [33]), ("layers.1.w", [17, 33]), ("scale", []),
    ]
    let base = shapes.map { Stored(name: $0.0, shape: $0.1, values: generator.floats($0.1.reduce(1, *)), dtype: dtype) }
    let ids = Stored(name: "ids", shape: [3], values: [1004, 1005, 1008], dtype: .i64)
    try write(base + [ids], to: folder("base"), shardSize: shardSize)
    for model in 0..<models {
      let tuned = base.map { tensor in
        let delta = generator.floats(tensor.values.count, scale: 0.1)
        return Stored(name: tensor.name, shape: tensor.shape, values: zip(tensor.values, delta).map { $0 + $1 }, dtype: dtype)
      }
      try write(tuned + [ids], to: folder("model-\(model)"), shardSize: shardSize)
    }
  }

  func recipe(_ method: String, _ parameters: JSON = [:], adding members: [JSON.Member] = []) -> JSON {
    let list = (0..<models).map { JSON.object([.init(key: "model", value: .string(folder("model-\($0)")))]) }
    return .object(
      [
        .init(key: "merge_method", value: .string(method)), .init(key: "base_model", value: .string(folder("base"))),
        .init(key: "models", value: .array(list)), .init(key: "parameters", value: parameters),
      ] + members)
  }

  @discardableResult
  func merge(_ recipe: JSON, to name: String, _ configure: (inout JobOptions) -> Void = { _ in }) throws(Failure) -> Job {
    var options = JobOptions()
    configure(&options)
    let job = try Job(recipe: recipe, outputPath: folder(name), options: options)
    try job.run()
    return job
  }
}
