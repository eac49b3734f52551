import Platform
import TensorKernels

/// Saves tensors that lie in memory as a checkpoint.
public enum CheckpointWriter {
  public struct Tensor {
    public var name: String
    public var dtype: DType
    /// Row-major.
    public var shape: [Int]
    /// Little-endian, contiguous, readable for the product of the shape times the element size; may be nil when that is 0.
    public var data: UnsafeRawPointer?

    public init(name: String, dtype: DType, shape: [Int], data: UnsafeRawPointer?) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
      self.data = data
    }
  }

  /// Write a checkpoint, complete or not at all: it grows in `<path>.partial` and appears at `path` by one rename.
  /// - Parameters:
  ///   - path: ends in ".safetensors": one file. Otherwise a folder, with an index when it takes more than one shard.
  ///   - shardSize: bytes of tensors per file of a folder.
  ///   - metadata: for `__metadata__`, see `CheckpointLayout`.
  ///   - overwrite: replace what is at `path` once the new checkpoint is complete. Only a checkpoint or an empty folder is ever
  ///     replaced, so that a slip of the path does not cost someone their files.
  /// - Throws: `.exists`, `.file`, `.null` for missing data, and what `CheckpointLayout` throws.
  public static func save(
    _ tensors: [Tensor], to path: String, shardSize: Int = CheckpointLayout.defaultShardSize,
    metadata: [(key: String, value: String)] = [], overwrite: Bool = false
  ) throws(Failure) {
    let path = FileSystem.trimmingSlashes(path)
    let isFile = path.hasSuffix(".safetensors")
    let layout = try CheckpointLayout(
      tensors: tensors.map { ($0.name, $0.dtype, $0.shape) }, shardSize: shardSize,
      naming: isFile ? .file(FileSystem.name(of: path)) : .folder, metadata: metadata)
    for (tensor, slot) in zip(tensors, layout.slots) where tensor.data == nil && slot.byteCount > 0 {
      throw Failure(.null, "tensor \(quoted(tensor.name)) has \(slot.byteCount) bytes but no data")
    }
    let partial = path + ".partial"
    try OutputPlace.check(path, isFile: isFile, overwrite: overwrite)
    try checkPartial(partial, overwrite: overwrite)

    do throws(Failure) {
      if isFile {
        try FileSystem.makeFolder(FileSystem.directory(of: path))
      } else {
        try FileSystem.makeFolder(partial)
      }
      try write(tensors, layout, to: isFile ? [partial] : layout.files.map { joined(partial, $0.name) })
      if let index = layout.indexText { try FileSystem.write(index, to: joined(partial, CheckpointFiles.indexName)) }
      try OutputPlace.replace(path, by: partial)
    } catch {
      try? FileSystem.remove(partial)
      throw error
    }
  }

  private static func checkPartial(_ partial: String, overwrite: Bool) throws(Failure) {
    if FileSystem.exists(partial) {
      guard overwrite else {
        throw Failure(
          .exists, "\(partial) exists: another program is writing it, or was stopped; remove it or ask to overwrite")
      }
      try FileSystem.remove(partial)
    }
  }

  private static func write(_ tensors: [Tensor], _ layout: CheckpointLayout, to paths: [String]) throws(Failure) {
    for (number, path) in paths.enumerated() {
      let file = try File(path: path, mode: .create)
      try file.write(layout.files[number].header, at: 0)
      for (tensor, slot) in zip(tensors, layout.slots) where slot.file == number && slot.byteCount > 0 {
        guard let data = tensor.data else { continue }
        try file.write(data, count: slot.byteCount, at: slot.offset)
      }
    }
  }
}
