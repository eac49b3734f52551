import Glibc
import Platform
import TensorKernels
import Testing

@testable import Checkpoints

@Suite struct CheckpointWriterTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  /// Save U8 vectors.
  private func save(
    _ tensors: [(String, [UInt8])], to path: String, shardSize: Int = 1000, metadata: [(key: String, value: String)] = [],
    overwrite: Bool = false
  ) throws(Failure) {
    let all = tensors.flatMap(\.1) + [0]
    let failure: Failure? = all.withUnsafeBytes { raw in
      var offset = 0
      var views: [CheckpointWriter.Tensor] = []
      for (name, bytes) in tensors {
        views.append(.init(name: name, dtype: .u8, shape: [bytes.count], data: raw.baseAddress! + offset))
        offset += bytes.count
      }
      do throws(Failure) {
        try CheckpointWriter.save(views, to: path, shardSize: shardSize, metadata: metadata, overwrite: overwrite)
      } catch { return error }
      return nil
    }
    if let failure { throw failure }
  }

  @Test func writesASingleFile() throws {
    try save([("b", [1, 2]), ("a", [3])], to: folder("out.safetensors"), metadata: [("k", "v")])
    #expect(try FileSystem.list(folder.path) == ["out.safetensors"])
    let checkpoint = try Checkpoint(path: folder("out.safetensors"))
    #expect(try bytes(of: checkpoint, "a") == [3])
    #expect(try bytes(of: checkpoint, "b") == [1, 2])
    #expect(checkpoint.metadata.map(\.key) == ["format", "k"])
  }

  @Test func writesAFolder() throws {
    try save([("b", [1, 2]), ("a", [3])], to: folder("deep/er/model/"))
    #expect(try FileSystem.list(folder("deep/er")) == ["model"])
    #expect(try FileSystem.list(folder("deep/er/model")) == ["model.safetensors"])
    #expect(try bytes(of: Checkpoint(path: folder("deep/er/model")), "b") == [1, 2])
  }

  @Test func writesShardsWithAnIndex() throws {
    try save([("b", [1, 2]), ("a", [3]), ("c", [4, 5, 6, 7])], to: folder("model"), shardSize: 3)
    #expect(
      try FileSystem.list(folder("model")) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
      ])
    let checkpoint = try Checkpoint(path: folder("model"))
    #expect(try bytes(of: checkpoint, "a") == [3])
    #expect(try bytes(of: checkpoint, "c") == [4, 5, 6, 7])
  }

  @Test func copiesTheReferenceWritersFileByteForByte() throws {
    let source = fixtures + "/digits-vit/base/model.safetensors"
    let original = try FileSystem.read(source)
    let checkpoint = try Checkpoint(path: source)
    try original.withUnsafeBytes { raw in
      try CheckpointWriter.save(
        checkpoint.tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape, data: raw.baseAddress! + $0.offset) },
        to: folder("copy.safetensors"))
    }
    #expect(try FileSystem.read(folder("copy.safetensors")) == original)
  }

  @Test func nothingAndEmptyTensorsCanBeSaved() throws {
    try save([], to: folder("none"))
    #expect(try Checkpoint(path: folder("none")).tensors.isEmpty)
    try CheckpointWriter.save([.init(name: "e", dtype: .f32, shape: [0, 3], data: nil)], to: folder("e.safetensors"))
    #expect(try Checkpoint(path: folder("e.safetensors")).tensor(named: "e")?.shape == [0, 3])
  }

  @Test func missingDataIsRefusedBeforeAnythingIsWritten() throws {
    expectFailure(.null, "\"t\"") { () throws(Failure) in
      try CheckpointWriter.save([.init(name: "t", dtype: .f32, shape: [1], data: nil)], to: folder("x"))
    }
    expectFailure(.argument, "\"a\"") { () throws(Failure) in try save([("a", [1]), ("a", [2])], to: folder("x")) }
    #expect(try FileSystem.list(folder.path).isEmpty)
  }

  @Test(arguments: ["", "/", ".", "..", "a/..", "///"]) func pathsThatNameNothing(path: String) {
    expectFailure(.argument) { () throws(Failure) in try save([("a", [1])], to: path, overwrite: true) }
  }

  // MARK: - What is there already

  @Test func anExistingPathIsKeptUnlessOverwriting() throws {
    try folder.write("mine", to: "x.safetensors")
    try folder.write("mine", to: "model/model.safetensors")
    for name in ["x.safetensors", "model"] {
      expectFailure(.exists, folder(name)) { () throws(Failure) in try save([("a", [1])], to: folder(name)) }
    }
    #expect(try FileSystem.read(folder("x.safetensors")) == Array("mine".utf8))
    #expect(try FileSystem.list(folder.path) == ["model", "x.safetensors"])
    for name in ["x.safetensors", "model"] {
      try save([("a", [1])], to: folder(name), overwrite: true)
      #expect(try bytes(of: Checkpoint(path: folder(name)), "a") == [1])
    }
    #expect(try FileSystem.list(folder.path) == ["model", "x.safetensors"])
  }

  @Test func overwritingAFolderLeavesNothingOfTheOldOne() throws {
    try save([("a", [1]), ("b", [2])], to: folder("model"), shardSize: 1)
    try save([("c", [3])], to: folder("model"), overwrite: true)
    #expect(try FileSystem.list(folder("model")) == ["model.safetensors"])
  }

  @Test func onlyCheckpointsAreOverwritten() throws {
    try folder.write("dear diary", to: "home/diary.txt")
    try folder.write("dear diary", to: "diary")
    try FileSystem.makeFolder(folder("folder.safetensors"))
    for name in ["home", "diary", "folder.safetensors"] {
      expectFailure(.exists, "not overwritten") { () throws(Failure) in
        try save([("a", [1])], to: folder(name), overwrite: true)
      }
    }
    #expect(try FileSystem.read(folder("home/diary.txt")) == Array("dear diary".utf8))
    #expect(try FileSystem.read(folder("diary")) == Array("dear diary".utf8))
    try FileSystem.makeFolder(folder("empty"))
    try save([("a", [1])], to: folder("empty"), overwrite: true)
    #expect(try FileSystem.list(folder("empty")) == ["model.safetensors"])
  }

  @Test func aPartialOfSomeoneElseIsNotTouched() throws {
    try folder.write("journal", to: "model.partial/journal")
    expectFailure(.exists, "model.partial") { () throws(Failure) in try save([("a", [1])], to: folder("model")) }
    #expect(FileSystem.exists(folder("model.partial/journal")))
    try save([("a", [1])], to: folder("model"), overwrite: true)
    #expect(try FileSystem.list(folder.path) == ["model"])
  }

  @Test func somethingInTheWayOfSteppingAsideIsKept() throws {
    try save([("a", [1])], to: folder("model"))
    try folder.write("mine", to: "model.replaced/x")
    expectFailure(.exists, "model.replaced") { () throws(Failure) in
      try save([("a", [2])], to: folder("model"), overwrite: true)
    }
    #expect(try bytes(of: Checkpoint(path: folder("model")), "a") == [1])
    #expect(try FileSystem.list(folder.path) == ["model", "model.replaced"])
  }

  @Test func aFailureLeavesNoPartial() throws {
    try folder.write("a file", to: "blocked")
    expectFailure(.exists, "blocked") { () throws(Failure) in try save([("a", [1])], to: folder("blocked/x.safetensors")) }
    #expect(try FileSystem.list(folder.path) == ["blocked"])
    // Memory that the system cannot read makes a write fail half-way, as a full disk does.
    let nowhere = UnsafeRawPointer(bitPattern: 64)
    for name in ["big", "big.safetensors"] {
      expectFailure(.file, "write", "big") { () throws(Failure) in
        try CheckpointWriter.save(
          [.init(name: "a", dtype: .u8, shape: [4096], data: nowhere)], to: folder(name), shardSize: 1 << 30)
      }
    }
    #expect(try FileSystem.list(folder.path) == ["blocked"])
  }

  @Test func aLinkIsReplacedNotFollowed() throws {
    try save([("a", [1])], to: folder("real"))
    try folder.link("link", to: "real")
    try save([("a", [2])], to: folder("link"), overwrite: true)
    #expect(try bytes(of: Checkpoint(path: folder("real")), "a") == [1])
    #expect(try bytes(of: Checkpoint(path: folder("link")), "a") == [2])
    try folder.link("dangling.safetensors", to: "nowhere")
    try save([("a", [3])], to: folder("dangling.safetensors"), overwrite: true)
    #expect(try bytes(of: Checkpoint(path: folder("dangling.safetensors")), "a") == [3])
  }
}
