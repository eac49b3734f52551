import Glibc
import Platform
import Synchronization
import Testing

@testable import Checkpoints

@Suite struct CheckpointTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func index(_ map: [(String, String)]) -> String {
    let entries = map.map { #""\#($0.0)": "\#($0.1)""# }.joined(separator: ", ")
    return #"{"metadata": {"total_size": 12345}, "weight_map": {\#(entries)}}"#
  }

  private func expectRefused(
    _ status: Status, _ words: String..., path: String? = nil, at location: SourceLocation = #_sourceLocation
  ) {
    do throws(Failure) {
      _ = try Checkpoint(path: path ?? folder.path)
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == status, "\(error.message)", sourceLocation: location)
      for word in words { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
    }
  }

  // MARK: - The four forms

  @Test func singleFile() throws {
    let path = try folder.write(sound([("b", 3), ("a", 5)], fill: 9), to: "lonely.safetensors")
    let checkpoint = try Checkpoint(path: path)
    #expect(checkpoint.path == path)
    #expect(!checkpoint.isFolder)
    #expect(checkpoint.folder == nil)
    #expect(checkpoint.files == [path])
    #expect(checkpoint.tensors.map(\.name) == ["a", "b"])
    #expect(checkpoint.totalBytes == 8)
    #expect(checkpoint.tensor(named: "b")?.count == 3)
    #expect(checkpoint.tensor(named: "c") == nil)
    #expect(try bytes(of: checkpoint, "a") == [9, 9, 9, 9, 9])
  }

  @Test func folderWithOneFileIgnoresOthers() throws {
    try folder.write(sound([("a", 1)]), to: "model.safetensors")
    try folder.write(sound([("b", 1)]), to: "optimizer.safetensors")
    let checkpoint = try Checkpoint(path: folder.path)
    #expect(checkpoint.folder == folder.path)
    #expect(checkpoint.files == [folder("model.safetensors")])
    #expect(checkpoint.tensors.map(\.name) == ["a"])
  }

  @Test func folderWithoutIndexReadsEveryFile() throws {
    try folder.write(sound([("b", 1)], fill: 2), to: "two.safetensors")
    try folder.write(sound([("c", 1), ("a", 1)], fill: 1), to: "one.safetensors")
    try folder.write("junk", to: ".hidden.safetensors")
    let checkpoint = try Checkpoint(path: folder.path)
    #expect(checkpoint.files == [folder("one.safetensors"), folder("two.safetensors")])
    #expect(checkpoint.tensors.map(\.name) == ["a", "b", "c"])
    #expect(try bytes(of: checkpoint, "b") == [2])
    #expect(try bytes(of: checkpoint, "c") == [1])
  }

  @Test func folderWithIndexReadsExactlyItsFiles() throws {
    try folder.write(sound([("a", 1)], fill: 1), to: "model-00001-of-00002.safetensors")
    try folder.write(sound([("b", 2)], fill: 2), to: "model-00002-of-00002.safetensors")
    try folder.write("not a checkpoint", to: "consolidated.safetensors")
    try folder.write(
      index([("b", "model-00002-of-00002.safetensors"), ("a", "model-00001-of-00002.safetensors")]),
      to: "model.safetensors.index.json")
    let checkpoint = try Checkpoint(path: folder.path + "/")
    #expect(
      checkpoint.files.map { FileSystem.name(of: $0) } == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      ])
    #expect(checkpoint.tensors.map(\.name) == ["a", "b"])
    #expect(try bytes(of: checkpoint, "b") == [2, 2])
    #expect(checkpoint.totalBytes == 3)
  }

  @Test func metadataIsTheFirstFiles() throws {
    try folder.write(safetensors(#"{"__metadata__":{"format":"pt","n":"1"}}"#), to: "a.safetensors")
    try folder.write(safetensors(#"{"__metadata__":{"n":"2"}}"#), to: "b.safetensors")
    let metadata = try Checkpoint(path: folder.path).metadata
    #expect(metadata.map(\.key) == ["format", "n"])
    #expect(metadata.map(\.value) == ["pt", "1"])
  }

  @Test func theHubsCacheOfLinksIsFollowed() throws {
    try folder.write(sound([("a", 1)], fill: 5), to: "blobs/0123abc")
    try folder.write(index([("a", "model-00001-of-00001.safetensors")]), to: "blobs/4567def")
    try folder.link("snapshots/main/model-00001-of-00001.safetensors", to: "../../blobs/0123abc")
    try folder.link("snapshots/main/model.safetensors.index.json", to: "../../blobs/4567def")
    let checkpoint = try Checkpoint(path: folder("snapshots/main"))
    #expect(try bytes(of: checkpoint, "a") == [5])
  }

  @Test func namesAreOrderedByBytes() throws {
    // In UTF-16 the last two would change places; Swift's own order would put the decomposed é beside e.
    let names = ["z", "e\u{301}", "B", "a", "é!", "\u{FFFD}", "😀", "layers.10", "layers.9"]
    let path = try folder.write(sound(names.map { ($0, 1) }), to: "x.safetensors")
    let expected = names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    #expect(try Checkpoint(path: path).tensors.map { Array($0.name.utf8) } == expected.map { Array($0.utf8) })
  }

  @Test func realCheckpoints() throws {
    let sharded = try Checkpoint(path: fixtures + "/goldens/models/inputs/a")
    #expect(sharded.files.count == 2)
    #expect(sharded.totalBytes == 39232)
    #expect(sharded.tensor(named: "lm_head.weight")?.shape == [64, 32])
    #expect(sharded.metadata.map(\.value) == ["pt"])
    let vit = try Checkpoint(path: fixtures + "/digits-vit/base")
    #expect(vit.tensor(named: "visual.class_embedding")?.dtype == .f32)
  }

  // MARK: - What is not there

  @Test func missingPath() {
    expectRefused(.notFound, "/nonexistent/model", path: "/nonexistent/model")
    expectRefused(.notFound, "org/name", "on this machine", path: "org/name")
    expectRefused(.notFound, path: "")
  }

  @Test func emptyFolderSaysWhatWasLookedFor() throws {
    try folder.write("{}", to: "config.json")
    expectRefused(.notFound, "model.safetensors.index.json", "*.safetensors", folder.path)
  }

  @Test(arguments: ["pytorch_model.bin", "consolidated.00.pt", "model.ckpt", "model-Q4.gguf", "weights.pth"])
  func otherFormatsAreNamed(file: String) throws {
    try folder.write("x", to: file)
    expectRefused(.format, file, "convert", "safetensors")
  }

  @Test func anIndexItselfIsNoCheckpoint() throws {
    let path = try folder.write(index([]), to: "model.safetensors.index.json")
    expectRefused(.format, "folder", path: path)
  }

  @Test func pipesAndFoldersAreRefusedWithoutWaiting() throws {
    try #require(mkfifo(folder("pipe.safetensors"), 0o600) == 0)
    expectRefused(.file, "pipe.safetensors", path: folder("pipe.safetensors"))
    expectRefused(.file, "pipe.safetensors")
    try FileSystem.makeFolder(folder("sub/model.safetensors"))
    expectRefused(.file, "not a regular file", path: folder("sub"))
    try #require(mkfifo(folder("sub/model.safetensors.index.json"), 0o600) == 0)
    expectRefused(.file, "index.json", path: folder("sub"))
  }

  @Test func missingShardOfASeriesIsNoticedWithoutAnIndex() throws {
    try folder.write(sound([("a", 1)]), to: "model-00001-of-00003.safetensors")
    try folder.write(sound([("b", 1)]), to: "model-00003-of-00003.safetensors")
    expectRefused(.notFound, "only 2 of the 3", "fetch")
    try folder.write(sound([("c", 1)]), to: "model-00002-of-00003.safetensors")
    #expect(try Checkpoint(path: folder.path).tensors.count == 3)
    try folder.write(sound([("d", 1)]), to: "some-of-them.safetensors")
    #expect(try Checkpoint(path: folder.path).tensors.count == 4)
  }

  // MARK: - Contradictions

  @Test func oneNameInTwoFiles() throws {
    try folder.write(sound([("a", 1), ("same", 1)]), to: "x.safetensors")
    try folder.write(sound([("same", 1), ("b", 1)]), to: "y.safetensors")
    expectRefused(.format, "\"same\"", "x.safetensors", "y.safetensors")
    try folder.write(
      index([("a", "x.safetensors"), ("same", "x.safetensors"), ("b", "y.safetensors")]), to: "model.safetensors.index.json")
    expectRefused(.format, "\"same\"", "x.safetensors", "y.safetensors")
  }

  @Test func namesThatOnlyUnicodeTellsApart() throws {
    try folder.write(sound([("e\u{301}", 1), ("\u{e9}", 1)]), to: "x.safetensors")
    expectRefused(.format, "Unicode")
    try folder.write(index([("e\u{301}", "x.safetensors"), ("\u{e9}", "x.safetensors")]), to: "model.safetensors.index.json")
    expectRefused(.format, "Unicode", "index.json")
    try FileSystem.remove(folder("model.safetensors.index.json"))
    try folder.write(sound([("e\u{301}", 1)]), to: "x.safetensors")
    try folder.write(sound([("\u{e9}", 1)]), to: "y.safetensors")
    expectRefused(.format, "Unicode")
  }

  @Test func aLyingIndex() throws {
    try folder.write(sound([("a", 1)]), to: "x.safetensors")
    try folder.write(sound([("b", 1)]), to: "y.safetensors")
    func with(_ map: [(String, String)]) throws { try folder.write(index(map), to: "model.safetensors.index.json") }
    try with([("a", "x.safetensors"), ("b", "y.safetensors"), ("ghost", "y.safetensors")])
    expectRefused(.format, "\"ghost\"", "y.safetensors", "index.json")
    try with([("a", "x.safetensors"), ("b", "x.safetensors"), ("ghost", "y.safetensors")])
    expectRefused(.format, "\"b\"", "x.safetensors", "y.safetensors")
    try with([("a", "x.safetensors"), ("ghost", "y.safetensors")])
    expectRefused(.format, "\"b\"", "y.safetensors", "does not name")
    try with([("a", "y.safetensors"), ("b", "x.safetensors")])
    expectRefused(.format, "\"a\"")
    try with([("a", "x.safetensors"), ("b", "z.safetensors")])
    expectRefused(.notFound, "\"z.safetensors\"", "incomplete")
    try with([])
    expectRefused(.format, "empty")
    try with([("a", "x.safetensors")])
    #expect(try Checkpoint(path: folder.path).tensors.map(\.name) == ["a"])
  }

  @Test(
    arguments: [
      "../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "./x.safetensors", "x.safetensors/",
    ])
  func anIndexCannotLeaveItsFolder(file: String) throws {
    try folder.write(sound([("a", 1)]), to: "x.safetensors")
    try folder.write(sound([("a", 1)]), to: "model/sub/x.safetensors")
    try folder.write(sound([("a", 1)]), to: "model/x.safetensors")
    try folder.write(index([("a", file)]), to: "model/model.safetensors.index.json")
    expectRefused(.format, "index.json", "\"\(file)\"", "plain name", path: folder("model"))
  }

  @Test(
    arguments: [
      "", "[]", "{}", "null", #"{"weight_map": []}"#, #"{"weight_map": {"a": 1}}"#, #"{"weight_map": {"a": null}}"#,
      #"{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}"#, #"{"weight_map": {"a": "x.safetensors\u0000"}}"#,
      #"{"weight_map": {"a\u0000b": "x.safetensors"}}"#, #"{"weight_map": {"a": "x.safetensors"}"#,
    ])
  func aBrokenIndex(text: String) throws {
    try folder.write(sound([("a", 1)]), to: "x.safetensors")
    try folder.write(text, to: "model.safetensors.index.json")
    expectRefused(.format, "model.safetensors.index.json")
  }

  @Test func aBrokenShardIsNamed() throws {
    try folder.write(sound([("a", 4)]), to: "x.safetensors")
    try folder.write(Array(sound([("b", 4)]).dropLast()), to: "y.safetensors")
    expectRefused(.format, "y.safetensors", "\"b\"", "truncated")
  }

  // MARK: - Reading

  @Test func readsRangesAndRefusesOthers() throws {
    let header =
      #"{"t":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"after":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}}"#
    let path = try folder.write(safetensors(header, data: [0, 1, 2, 3, 4, 5, 6, 7]), to: "x.safetensors")
    let checkpoint = try Checkpoint(path: path)
    let record = try #require(checkpoint.tensor(named: "t"))
    var buffer = [UInt8](repeating: 99, count: 8)
    try checkpoint.read(record, bytes: 2..<5, into: &buffer)
    #expect(buffer == [2, 3, 4, 99, 99, 99, 99, 99])
    try checkpoint.read(record, bytes: 6..<6, into: &buffer)
    #expect(buffer[0] == 2)
    for range in [0..<7, -1..<3, 6..<8, Int.max - 1..<Int.max, Int.min..<0] {
      expectFailure(.argument, "\"t\"", path) { () throws(Failure) in
        try checkpoint.read(record, bytes: range, into: &buffer)
      }
      checkpoint.prefetch(record, bytes: range)
    }
    #expect(buffer == [2, 3, 4, 99, 99, 99, 99, 99])
    let stranger = TensorRecord(name: "s", dtype: .u8, shape: [1], file: 7, offset: 0, count: 1, byteCount: 1)
    expectFailure(.argument, "\"s\"") { () throws(Failure) in try checkpoint.read(stranger, bytes: 0..<1, into: &buffer) }
    checkpoint.prefetch(stranger, bytes: 0..<1)
  }

  @Test func aFileThatShrankIsNoticed() throws {
    let path = try folder.write(sound([("t", 100)]), to: "x.safetensors")
    let checkpoint = try Checkpoint(path: path)
    try File(path: path, mode: .update).truncate(to: 120)
    expectFailure(.format, "\"t\"", path, "truncated") { () throws(Failure) in
      var buffer = [UInt8](repeating: 0, count: 100)
      try checkpoint.read(checkpoint.tensors[0], bytes: 0..<100, into: &buffer)
    }
  }

  /// More files than are kept open, read by several threads, while the limit of descriptors would not allow them all.
  @Test func manyFilesAndThreads() throws {
    for number in 0..<150 {
      try folder.write(sound([("t\(number)", 1000)], fill: UInt8(number)), to: "\(number).safetensors")
    }
    let checkpoint = try Checkpoint(path: folder.path)
    #expect(checkpoint.tensors.count == 150)
    let wrong = Atomic(0)
    WorkerPool.run(count: 4) { worker in
      for step in 0..<600 {
        let number = (step * 37 + worker * 11) % 150
        guard let content = try? bytes(of: checkpoint, "t\(number)"), content.allSatisfy({ $0 == UInt8(number) }) else {
          wrong.add(1, ordering: .relaxed)
          continue
        }
      }
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
    let ours = try FileSystem.list("/proc/self/fd").filter { name in
      (FileSystem.canonical("/proc/self/fd/" + name) ?? "").hasPrefix(folder.path + "/")
    }
    #expect(ours.count <= 64)
    #expect(!ours.isEmpty)
  }

  @Test func aFileReplacedBetweenReadsIsNoticed() throws {
    for number in 0..<100 { try folder.write(sound([("t\(number)", 10)]), to: "\(number).safetensors") }
    let checkpoint = try Checkpoint(path: folder.path)
    let first = FileSystem.name(of: checkpoint.files[0])
    try folder.write(sound([("t0", 10)], fill: 77), to: "new")
    try FileSystem.rename(folder("new"), to: folder(first))
    expectFailure(.format, first, "replaced") { () throws(Failure) in
      var buffer = [UInt8](repeating: 0, count: 10)
      try checkpoint.read(checkpoint.tensor(named: "t0")!, bytes: 0..<10, into: &buffer)
    }
  }

  @Test func twentyThousandTensorsInManyFiles() throws {
    var map: [(String, String)] = []
    for file in 0..<20 {
      let name = "model-\(file).safetensors"
      let tensors = (0..<1000).map { ("model.layers.\(file).mlp.experts.\($0).up_proj.weight", 2) }
      try folder.write(sound(tensors), to: name)
      map += tensors.map { ($0.0, name) }
    }
    try folder.write(index(map), to: "model.safetensors.index.json")
    let start = Machine.seconds()
    let checkpoint = try Checkpoint(path: folder.path)
    print("opened 20,000 tensors in \(Machine.seconds() - start) s")
    #expect(checkpoint.tensors.count == 20_000)
    #expect(checkpoint.totalBytes == 40_000)
    try folder.write("junk, and nothing but", to: "model-7.safetensors")
    expectRefused(.format, "model-7.safetensors")
  }
}
