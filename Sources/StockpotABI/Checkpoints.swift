import Checkpoints
import CStockpot
import JSON
import Platform
import TensorKernels

/// What an sp_checkpoint points to: the checkpoint, and its strings as C wants them.
private final class CheckpointHandle {
  let checkpoint: Checkpoint
  let names: [OwnedText]
  let files: [OwnedText]
  let metadata: OwnedText

  init(_ path: String) throws(Failure) {
    checkpoint = try Checkpoint(reference: path)
    names = checkpoint.tensors.map { OwnedText($0.name) }
    files = checkpoint.files.map { OwnedText($0) }
    metadata = OwnedText(
      JSON.object(checkpoint.metadata.map { .init(key: $0.key, value: .string($0.value)) }).serialized(indent: 0))
  }

  func record(_ index: Int) throws(Failure) -> TensorRecord {
    guard checkpoint.tensors.indices.contains(index) else {
      throw Failure(
        .argument, "\(checkpoint.path) has \(checkpoint.tensors.count) tensors and none with index \(UInt(bitPattern: index))")
    }
    return checkpoint.tensors[index]
  }
}

@_cdecl("sp_checkpoint_open") @implementation
public func sp_checkpoint_open(
  _ path: UnsafePointer<CChar>!, _ out: UnsafeMutablePointer<OpaquePointer?>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  out?.pointee = nil
  return attempt(error) { () throws(Failure) in
    let place = try need(out, "out")
    place.pointee = handle(try CheckpointHandle(try text(path, "path")))
  }
}

@_cdecl("sp_checkpoint_tensor_count") @implementation
public func sp_checkpoint_tensor_count(_ checkpoint: OpaquePointer!) -> Int {
  (try? object(checkpoint, as: CheckpointHandle.self, "checkpoint"))?.checkpoint.tensors.count ?? 0
}

@_cdecl("sp_checkpoint_tensor_info") @implementation
public func sp_checkpoint_tensor_info(
  _ checkpoint: OpaquePointer!, _ index: Int, _ out: UnsafeMutablePointer<sp_tensor_info>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let opened = try object(checkpoint, as: CheckpointHandle.self, "checkpoint")
    let record = try opened.record(index)
    let place = try need(out, "out")
    let size = try readable(place, place.pointee.struct_size, known: MemoryLayout<sp_tensor_info>.stride, "sp_tensor_info")
    guard record.shape.count <= 8 else {
      throw Failure(
        .shape, "'\(record.name)' of \(opened.checkpoint.path) has rank \(record.shape.count); at most 8 are described")
    }
    var info = sp_tensor_info()
    info.struct_size = place.pointee.struct_size
    info.dtype = record.dtype.rawValue
    info.rank = Int32(record.shape.count)
    withUnsafeMutableBytes(of: &info.shape) { raw in
      for (i, length) in record.shape.enumerated() { raw.bindMemory(to: Int64.self)[i] = Int64(length) }
    }
    info.bytes = UInt64(record.byteCount)
    info.name = opened.names[index].pointer
    info.file = opened.files[record.file].pointer
    UnsafeMutableRawPointer(place).copyMemory(from: &info, byteCount: size)
  }
}

@_cdecl("sp_checkpoint_find") @implementation
public func sp_checkpoint_find(
  _ checkpoint: OpaquePointer!, _ name: UnsafePointer<CChar>!, _ out_index: UnsafeMutablePointer<Int>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let opened = try object(checkpoint, as: CheckpointHandle.self, "checkpoint").checkpoint
    let wanted = try text(name, "name")
    let place = try need(out_index, "out_index")
    guard let index = opened.index(of: wanted) else {
      throw Failure(.notFound, "\(opened.path) has no tensor '\(wanted)'")
    }
    place.pointee = index
  }
}

@_cdecl("sp_checkpoint_read") @implementation
public func sp_checkpoint_read(
  _ checkpoint: OpaquePointer!, _ index: Int, _ buffer: UnsafeMutableRawPointer!, _ capacity: Int,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let opened = try object(checkpoint, as: CheckpointHandle.self, "checkpoint")
    let record = try opened.record(index)
    guard capacity >= record.byteCount else {
      throw Failure(
        .argument, "'\(record.name)' has \(record.byteCount) bytes, but the buffer only \(UInt(bitPattern: capacity))")
    }
    guard record.byteCount > 0 else { return }
    try opened.checkpoint.read(record, bytes: 0..<record.byteCount, into: try need(buffer, "buffer"))
  }
}

@_cdecl("sp_checkpoint_metadata_json") @implementation
public func sp_checkpoint_metadata_json(_ checkpoint: OpaquePointer!) -> UnsafePointer<CChar>! {
  (try? object(checkpoint, as: CheckpointHandle.self, "checkpoint"))?.metadata.pointer
}

@_cdecl("sp_checkpoint_free") @implementation
public func sp_checkpoint_free(_ checkpoint: OpaquePointer!) { release(checkpoint, as: CheckpointHandle.self) }

@_cdecl("sp_checkpoint_save") @implementation
public func sp_checkpoint_save(
  _ path: UnsafePointer<CChar>!, _ names: UnsafePointer<UnsafePointer<CChar>?>!, _ tensors: UnsafePointer<sp_view>!,
  _ number: Int, _ metadata_json: UnsafePointer<CChar>!, _ shard_size: UInt64, _ overwrite: UInt32,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let total = try count(number, 0...10_000_000, "count")
    var list: [CheckpointWriter.Tensor] = []
    for i in 0..<total {
      let view = try ProvedView(try need(tensors, "views") + i, "views[\(i)]")
      let name = try text(try need(names, "names")[i], "names[\(i)]")
      list.append(.init(name: name, dtype: view.dtype, shape: view.shape, data: UnsafeRawPointer(view.data)))
    }
    try CheckpointWriter.save(
      list, to: try text(path, "path"), shardSize: try shardBytes(shard_size) ?? CheckpointLayout.defaultShardSize,
      metadata: try metadata(metadata_json), overwrite: try flag(overwrite, "overwrite"))
  }
}

private func metadata(_ pointer: UnsafePointer<CChar>?) throws(Failure) -> [(key: String, value: String)] {
  guard pointer != nil else { return [] }
  let json = try JSON.parse(Array(try text(pointer, "metadata_json").utf8), source: "metadata_json")
  guard let members = json.members, members.allSatisfy({ $0.value.string != nil }) else {
    throw Failure(.format, "metadata_json is not a JSON object of strings")
  }
  return members.map { ($0.key, $0.value.string!) }
}

/// A shard size from C; nil for 0, the default.
func shardBytes(_ value: UInt64) throws(Failure) -> Int? {
  guard value > 0 else { return nil }
  guard let size = Int(exactly: value) else { throw Failure(.argument, "shard_size is \(value), which is too large") }
  return size
}
