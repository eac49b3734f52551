import Glibc
import Platform
import Testing

@testable import Checkpoints

/// A folder of its own for each test, removed with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    var template = Array("/tmp/stockpot-checkpoints-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) != nil }
    try #require(made)
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { try? FileSystem.remove(path) }

  func callAsFunction(_ name: String) -> String { path + "/" + name }

  @discardableResult func write(_ bytes: [UInt8], to name: String) throws -> String {
    try FileSystem.makeFolder(FileSystem.directory(of: self(name)))
    // A file that is written over would be waited for.
    try FileSystem.remove(self(name))
    try FileSystem.write(bytes, to: self(name))
    return self(name)
  }

  @discardableResult func write(_ text: String, to name: String) throws -> String { try write(Array(text.utf8), to: name) }

  func link(_ name: String, to target: String) throws {
    try FileSystem.makeFolder(FileSystem.directory(of: self(name)))
    try #require(symlink(target, self(name)) == 0)
  }
}

/// The bytes of a file with this header text and that much data, whatever they say of each other.
func safetensors(_ header: [UInt8], data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
  let length = length ?? UInt64(header.count)
  return (0..<8).map { UInt8(truncatingIfNeeded: length >> ($0 * 8)) } + header + data
}

func safetensors(_ header: String, data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
  safetensors(Array(header.utf8), data: data, length: length)
}

/// A sound file of U8 vectors, each filled with a number, in the order given.
func sound(_ tensors: [(name: String, count: Int)], fill: UInt8 = 1) -> [UInt8] {
  var entries: [String] = []
  var end = 0
  for (name, count) in tensors {
    entries.append(#""\#(name)":{"dtype":"U8","shape":[\#(count)],"data_offsets":[\#(end),\#(end + count)]}"#)
    end += count
  }
  return safetensors("{\(entries.joined(separator: ","))}", data: [UInt8](repeating: fill, count: end))
}

/// Run something that must fail, and check its code and words.
func expectFailure(
  _ status: Status, _ words: String..., at location: SourceLocation = #_sourceLocation, _ body: () throws(Failure) -> Void
) {
  do throws(Failure) {
    try body()
    Issue.record("nothing was thrown", sourceLocation: location)
  } catch {
    #expect(error.status == status, "\(error.message)", sourceLocation: location)
    for word in words { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
  }
}

/// Unoptimised code takes seconds for the largest headers.
#if DEBUG
  let isOptimised = false
#else
  let isOptimised = true
#endif

/// Tests/Fixtures.
let fixtures = FileSystem.directory(of: FileSystem.directory(of: #filePath)) + "/Fixtures"

func bytes(of checkpoint: Checkpoint, _ name: String) throws -> [UInt8] {
  let record = try #require(checkpoint.tensor(named: name))
  var result = [UInt8](repeating: 0, count: record.byteCount)
  try result.withUnsafeMutableBytes { raw in
    if let start = raw.baseAddress { try checkpoint.read(record, bytes: 0..<record.byteCount, into: start) }
  }
  return result
}
