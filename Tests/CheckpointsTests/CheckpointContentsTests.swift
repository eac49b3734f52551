import Platform
import Testing

@testable import Checkpoints

/// What one checkpoint was found to hold is taken for another one only where every text is the same.
@Suite struct CheckpointContentsTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private let index = #"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}}"#

  private func write(_ name: String, fill: UInt8, index: String? = nil, c: Int = 2) throws {
    try folder.write(sound([("a", 3)], fill: fill), to: name + "/one.safetensors")
    try folder.write(sound([("c", c), ("b", 5)], fill: fill), to: name + "/two.safetensors")
    try folder.write(index ?? self.index, to: name + "/model.safetensors.index.json")
  }

  @Test func theSameTextsAreReadOnce() throws {
    let known = KnownContents()
    for fill in UInt8(1)...3 { try write("\(fill)", fill: fill) }
    let first = try Checkpoint(path: folder("1"), known: known)
    for fill in UInt8(1)...3 {
      let checkpoint = try Checkpoint(path: folder("\(fill)"), known: known)
      let alone = try Checkpoint(path: folder("\(fill)"))
      #expect(checkpoint.tensors == alone.tensors && checkpoint.tensors == first.tensors)
      #expect(checkpoint.files == alone.files && checkpoint.totalBytes == alone.totalBytes)
      #expect(checkpoint.files == [folder("\(fill)/one.safetensors"), folder("\(fill)/two.safetensors")])
      // No copy of the records was made.
      let isShared = checkpoint.tensors.withUnsafeBufferPointer { own in
        first.tensors.withUnsafeBufferPointer { own.baseAddress == $0.baseAddress }
      }
      #expect(isShared)
      for name in ["a", "b", "c"] { #expect(try bytes(of: checkpoint, name).allSatisfy { $0 == fill }) }
    }
  }

  @Test func metadataIsItsOwn() throws {
    let known = KnownContents()
    for word in ["one", "two"] {
      let entry = #"{"__metadata__":{"is":"\#(word)"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#
      try folder.write(safetensors(entry, data: [7]), to: word + "/model.safetensors")
    }
    for word in ["one", "two", "one"] {
      #expect(try Checkpoint(path: folder(word), known: known).metadata.map(\.value) == [word])
    }
  }

  @Test func otherShapesAreOthers() throws {
    let known = KnownContents()
    try write("one", fill: 1)
    try write("two", fill: 1, c: 4)
    #expect(try Checkpoint(path: folder("one"), known: known).tensor(named: "c")?.count == 2)
    #expect(try Checkpoint(path: folder("two"), known: known).tensor(named: "c")?.count == 4)
    #expect(try Checkpoint(path: folder("one"), known: known).tensor(named: "c")?.count == 2)
  }

  @Test func aTruncatedFileIsNoticedAllTheSame() throws {
    let known = KnownContents()
    for name in ["whole", "cut"] { try write(name, fill: 1) }
    try folder.write(Array(sound([("c", 2), ("b", 5)]).dropLast()), to: "cut/two.safetensors")
    _ = try Checkpoint(path: folder("whole"), known: known)
    expectFailure(.format, folder("cut/two.safetensors"), "truncated") { () throws(Failure) in
      _ = try Checkpoint(path: folder("cut"), known: known)
    }
  }

  @Test func aMissingFileIsNoticedAllTheSame() throws {
    let known = KnownContents()
    for name in ["whole", "part"] { try write(name, fill: 1) }
    try FileSystem.remove(folder("part/two.safetensors"))
    _ = try Checkpoint(path: folder("whole"), known: known)
    expectFailure(.notFound, folder("part/model.safetensors.index.json"), "two.safetensors") { () throws(Failure) in
      _ = try Checkpoint(path: folder("part"), known: known)
    }
  }

  @Test func aLyingIndexBesideTheSameHeadersIsNoticed() throws {
    let known = KnownContents()
    try write("true", fill: 1)
    try write(
      "false", fill: 1, index: #"{"weight_map": {"a": "two.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}"#)
    _ = try Checkpoint(path: folder("true"), known: known)
    expectFailure(.format, folder("false/model.safetensors.index.json"), "\"a\"") { () throws(Failure) in
      _ = try Checkpoint(path: folder("false"), known: known)
    }
  }

  @Test func theSameIndexBesideOtherHeadersIsNoticed() throws {
    let known = KnownContents()
    for name in ["true", "false"] { try write(name, fill: 1) }
    try folder.write(sound([("d", 2), ("b", 5)]), to: "false/two.safetensors")
    _ = try Checkpoint(path: folder("true"), known: known)
    expectFailure(.format, folder("false/two.safetensors"), "\"d\"", "does not name") { () throws(Failure) in
      _ = try Checkpoint(path: folder("false"), known: known)
    }
  }

  @Test func aRefusedCheckpointIsNotRemembered() throws {
    let known = KnownContents()
    try folder.write(safetensors("{"), to: "broken/model.safetensors")
    try write("sound", fill: 4)
    for _ in 0..<2 {
      expectFailure(.format, "broken/model.safetensors") { () throws(Failure) in
        _ = try Checkpoint(path: folder("broken"), known: known)
      }
    }
    #expect(try Checkpoint(path: folder("sound"), known: known).tensors.count == 3)
  }
}
