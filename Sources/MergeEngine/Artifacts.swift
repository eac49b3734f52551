import Checkpoints
import MergeMethods
import Platform
import Synchronization
import TensorKernels

/// The checkpoints that a method writes beside the merged one: a folder per collection and model, "masks/tuned-on-code".
struct ArtifactCheckpoints {
  struct Entry {
    /// Relative to the output.
    let folder: String
    /// Index of the input whose it is.
    let input: Int
    let layout: CheckpointLayout
  }

  /// Where one artifact of one tensor lies.
  struct Place {
    let entry: Int
    let slot: Int
  }

  let entries: [Entry]
  /// Per tensor of the plan, its artifacts in the method's order.
  let places: [[Place]]

  var totalBytes: Int { entries.reduce(0) { $0 + $1.layout.totalBytes } }

  /// - Parameters:
  ///   - wanted: per tensor: its name, its artifacts, and the inputs that are its models.
  ///   - inputs: paths of all inputs, by which the folders are named.
  ///   - metadata: for the entries of a model.
  init(
    wanted: [(name: String, artifacts: [Artifact], models: [Int])], inputs: [String], shardSize: Int,
    metadata: (Int) -> [(key: String, value: String)]
  ) throws(Failure) {
    var keys: [(collection: String, input: Int)] = []
    var tensors: [[(name: String, dtype: DType, shape: [Int])]] = []
    var places: [[Place]] = []
    for item in wanted {
      var own: [Place] = []
      for artifact in item.artifacts {
        let key = (collection: artifact.collection, input: item.models[artifact.model])
        var entry = keys.firstIndex { $0 == key }
        if entry == nil {
          entry = keys.count
          keys.append(key)
          tensors.append([])
        }
        own.append(Place(entry: entry!, slot: tensors[entry!].count))
        tensors[entry!].append((item.name + artifact.suffix, artifact.dtype, artifact.shape))
      }
      places.append(own)
    }
    let names = Self.names(inputs)
    var entries: [Entry] = []
    for (key, list) in zip(keys, tensors) {
      entries.append(
        Entry(
          folder: "\(key.collection)/\(names[key.input])", input: key.input,
          layout: try CheckpointLayout(tensors: list, shardSize: shardSize, metadata: metadata(key.input))))
    }
    self.entries = entries
    self.places = places
  }

  /// The last component of each path, with a number where it is taken.
  private static func names(_ paths: [String]) -> [String] {
    let stems = paths.map { path in
      var name = FileSystem.name(of: FileSystem.trimmingSlashes(path))
      if name.hasSuffix(".safetensors") { name.removeLast(".safetensors".count) }
      return ["", ".", "..", "/"].contains(name) ? "model" : name
    }
    // A name that stands for itself is not given to another.
    var taken: Set<String> = []
    var names: [String] = []
    for (index, stem) in stems.enumerated() {
      var name = stem
      var number = 1
      while taken.contains(name) || (number > 1 && stems[index...].contains(name)) {
        number += 1
        name = "\(stem)-\(number)"
      }
      taken.insert(name)
      names.append(name)
    }
    return names
  }
}

/// Writes one tensor's artifacts where the plan says.
public final class TensorArtifacts: ArtifactSink {
  private let targets: [(file: File, offset: Int, byteCount: Int)]
  private let trouble = Mutex<Failure?>(nil)
  public let dtype: DType

  init(dtype: DType, targets: [(file: File, offset: Int, byteCount: Int)]) {
    self.dtype = dtype
    self.targets = targets
  }

  public var failure: Failure? { trouble.withLock { $0 } }

  public func write(_ bytes: UnsafeRawPointer, count: Int, artifact index: Int, at offset: Int) {
    let target = targets[index]
    precondition(offset >= 0 && offset + count <= target.byteCount, "an artifact is written past its end")
    do throws(Failure) {
      try target.file.write(bytes, count: count, at: target.offset + offset)
    } catch {
      trouble.withLock { $0 = $0 ?? error }
    }
  }
}
