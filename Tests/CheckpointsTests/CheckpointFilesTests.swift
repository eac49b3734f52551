import Glibc
import Platform
import Testing

@testable import Checkpoints

/// Which files are a checkpoint's, by their names alone: nothing of them is read.
@Suite struct CheckpointFilesTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  /// The names that are chosen in a folder of empty files.
  private func chosen(_ names: [String]) throws -> [String] {
    let path = folder("\(Int.random(in: 0..<Int.max))")
    try FileSystem.makeFolder(path)
    for name in names { try FileSystem.write([], to: path + "/" + name) }
    let found = try CheckpointFiles(path: path, known: nil)
    #expect(found.path == path && found.folder == path && found.index == nil)
    #expect(found.paths.allSatisfy { FileSystem.directory(of: $0) == path })
    return found.paths.map { FileSystem.name(of: $0) }
  }

  private func expectRefused(
    _ status: Status, _ words: String..., path: String? = nil, files: [String] = [],
    at location: SourceLocation = #_sourceLocation
  ) throws {
    let path = path ?? folder("\(Int.random(in: 0..<Int.max))")
    if !files.isEmpty {
      try FileSystem.makeFolder(path)
      for name in files { try FileSystem.write([], to: path + "/" + name) }
    }
    do throws(Failure) {
      _ = try CheckpointFiles(path: path, known: nil)
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == status, "\(error.message)", sourceLocation: location)
      for word in words + [path] { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
    }
  }

  private func index(_ members: [(tensor: String, file: String)]) throws(Failure) -> CheckpointFiles.Index {
    let map = members.map { #""\#($0.tensor)": "\#($0.file)""# }.joined(separator: ", ")
    return try CheckpointFiles.Index(Array(#"{"weight_map": {\#(map)}}"#.utf8), path: "the/index")
  }

  // MARK: - Which files

  @Test func oneFileOfAnyName() throws {
    for name in ["x.safetensors", "weights", "x.bin", "adapter.json"] {
      let path = try folder.write("", to: name)
      let found = try CheckpointFiles(path: path, known: nil)
      #expect(found.paths == [path] && found.path == path && found.folder == nil && found.index == nil)
    }
  }

  @Test func theOrderOfKinds() throws {
    let ordered = ["model.safetensors", "other.safetensors", "pytorch_model.bin"]
    for first in ordered.indices { #expect(try chosen(Array(ordered[first...])) == [ordered[first]]) }
    #expect(try chosen(["b.safetensors", "a.safetensors", "x.bin", "config.json"]) == ["a.safetensors", "b.safetensors"])
    #expect(try chosen(["pytorch_model.bin", "a.pt", "b.pt"]) == ["pytorch_model.bin"])
    #expect(try chosen([".a.safetensors", "a.bin", ".b.bin"]) == ["a.bin"])
  }

  @Test func aFileOfPyTorchAmongWhatTrainingLeaves() throws {
    let states = [
      "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state_0.pth", "training_args.bin", "random_states_0.pt",
      "optimizer.bin",
    ]
    for name in ["consolidated.00.pth", "weights.pt", "last.ckpt", "x.bin"] { #expect(try chosen(states + [name]) == [name]) }
    try expectRefused(.notFound, "no checkpoint", files: states)
  }

  @Test func seriesOfNumberedFiles() throws {
    let series = (1...3).map { "model-0000\($0)-of-00003.safetensors" }
    #expect(try chosen(series) == series)
    let torch = (1...2).map { "pytorch_model-0000\($0)-of-00002.bin" }
    #expect(try chosen(torch + ["optimizer.pt"]) == torch)
    // Two series side by side, each whole.
    #expect(try chosen(series + ["text-1-of-1.safetensors"]).count == 4)
    for missing in series {
      try expectRefused(
        .notFound, "only 2 of the 3", "00003.safetensors", "fetch", files: series.filter { $0 != missing })
      try expectRefused(
        .notFound, "only 2 of the 3",
        files: series.filter { $0 != missing } + ["x-00003-of-00003.safetensors", "y.safetensors"])
    }
    try expectRefused(.notFound, "only 1 of the 2", torch[0], files: [torch[0]])
  }

  @Test(arguments: [
    "a-of-b.safetensors", "of-3.safetensors", "1-of-.safetensors", "-1-of.safetensors", "x-1-of-3-.safetensors",
    "x-1-off-3.safetensors", "x-one-of-3.safetensors", "x-1-of-99999999999999999999.safetensors", "-of-.safetensors",
    ".-of-3.pt",
    "x-1-of-0.safetensors", "--of--3.safetensors",
  ])
  func namesThatOnlyLookNumbered(_ name: String) throws {
    #expect(try chosen([name, "z.safetensors"]).contains("z.safetensors"))
  }

  @Test func aSeriesOfAnyLength() throws {
    try expectRefused(.notFound, "only 1 of the \(Int.max)", files: ["x-1-of-\(Int.max).safetensors"])
  }

  @Test func severalFilesOfPyTorchAreNoCheckpoint() throws {
    try expectRefused(.format, "2 files", "\"a.pt\"", "\"b.pt\"", "path of the one", files: ["b.pt", "a.pt"])
    try expectRefused(.format, "\"a-1-of-2.pt\"", files: ["a-1-of-2.pt", "a-2-of-2.pt", "b.pt"])
  }

  // MARK: - What is none

  @Test func whatIsNotThereOrNoFile() throws {
    try expectRefused(.notFound, "no checkpoint", "folder")
    try expectRefused(.notFound, "no checkpoint", "model.safetensors", files: ["config.json", "README.md"])
    try expectRefused(.format, "\"x.gguf\"", "convert", files: ["x.gguf", "config.json"])
    for name in ["model.safetensors.index.json", "pytorch_model.bin.index.json", "other.index.json"] {
      try expectRefused(.format, "folder", path: folder.write("{}", to: name))
    }
    try #require(mkfifo(folder("pipe"), 0o600) == 0)
    try expectRefused(.file, "neither a file nor a folder", path: folder("pipe"))
    try folder.link("dangling", to: folder("nothing"))
    try expectRefused(.notFound, path: folder("dangling"))
  }

  // MARK: - The index

  @Test func filesAndTensorsInOrder() throws {
    let found = try index([("d", "2"), ("a", "10"), ("c", "2"), ("b", "1"), ("e", "10")])
    #expect(found.files == ["1", "10", "2"])
    #expect(found.entries.map(\.tensor) == ["a", "b", "c", "d", "e"])
    #expect(found.entries.map { found.files[$0.file] } == ["10", "1", "2", "2", "10"])
    #expect(found.path == "the/index")
  }

  /// Whatever the order of its members, an index says the same.
  @Test func theOrderOfMembersDoesNotCount() throws {
    let members = (0..<40).map { (tensor: "t\($0 * 7 % 40)", file: "file \($0 % 6)") }
    let expected = Dictionary(uniqueKeysWithValues: members.map { ($0.tensor, $0.file) })
    var generator = SeededGenerator(seed: 9)
    for _ in 0..<20 {
      let found = try index(members.shuffled(using: &generator))
      #expect(found.files == (0..<6).map { "file \($0)" })
      #expect(found.entries.map(\.tensor) == expected.keys.sorted())
      for entry in found.entries { #expect(found.files[entry.file] == expected[entry.tensor]) }
    }
  }

  @Test func theIndexOfSafetensorsCountsFirst() throws {
    for (name, file) in [("pytorch_model.bin.index.json", "x.bin"), ("model.safetensors.index.json", "x.safetensors")] {
      try folder.write("", to: file)
      try folder.write(#"{"weight_map": {"a": "\#(file)"}}"#, to: name)
      let found = try CheckpointFiles(path: folder.path, known: nil)
      #expect(found.paths == [folder(file)])
      #expect(found.index?.path == folder(name))
    }
    // Files of safetensors do without an index of PyTorch's.
    try FileSystem.remove(folder("model.safetensors.index.json"))
    #expect(try CheckpointFiles(path: folder.path, known: nil).paths == [folder("x.safetensors")])
  }

  @Test func aFileThatTheIndexNamesIsMissing() throws {
    try folder.write(#"{"weight_map": {"a": "x", "b": "y"}}"#, to: "model.safetensors.index.json")
    try folder.write("", to: "x")
    try expectRefused(.notFound, "\"y\"", "model.safetensors.index.json", "incomplete", "fetch", path: folder.path)
  }

  @Test(arguments: ["", ".", "..", "/", "../x", "a/b", "a/", "/etc/passwd"]) func filesElsewhere(_ file: String) {
    expectFailure(.format, "the/index", "\"t\"", "\"\(file)\"", "plain name") { () throws(Failure) in
      _ = try index([("t", file)])
    }
  }

  @Test(arguments: [
    "", "{", "[]", "3", "{}", #"{"weight_map": null}"#, #"{"weight_map": []}"#, #"{"weight_map": {}}"#, #"{"weight_map": "x"}"#,
    #"{"weight_map": {"a": 1}}"#, #"{"weight_map": {"a": ["x"]}}"#, #"{"weight_map": {"a": "x", "a": "y"}}"#,
  ])
  func textsThatAreNoIndex(_ text: String) {
    expectFailure(.format, "the/index") { () throws(Failure) in
      _ = try CheckpointFiles.Index(Array(text.utf8), path: "the/index")
    }
  }

  @Test func namesThatOnlyUnicodeTellsApart() throws {
    expectFailure(.format, "the/index", "Unicode") { () throws(Failure) in
      _ = try index([("e\u{301}", "x"), ("z", "x"), ("\u{E9}", "x")])
    }
    for middle in [[], [(tensor: "c", file: "x")]] {
      expectFailure(.format, "the/index", "two files", "Unicode") { () throws(Failure) in
        _ = try index([("a", "e\u{301}")] + middle + [("b", "\u{E9}")])
      }
    }
    #expect(try index([("a", "e\u{301}"), ("b", "x"), ("c", "e\u{301}")]).entries.map(\.file) == [0, 1, 0])
  }

  @Test func anIndexCutAtEveryByteAndDamaged() throws {
    let sound = Array(#"{"metadata": {"n": [1, {}]}, "weight_map": {"a": "x", "b\u00e9": "y", "c": "x"}}"#.utf8)
    func survives(_ text: [UInt8]) -> Bool {
      do throws(Failure) {
        let found = try CheckpointFiles.Index(text, path: "the/index")
        #expect(found.entries.allSatisfy { found.files.indices.contains($0.file) } && found.files.allSatisfy(isPlainName))
        return true
      } catch {
        #expect(error.status == .format && error.message.contains("the/index"))
        return false
      }
    }
    #expect(survives(sound))
    for count in 0..<sound.count { #expect(!survives(Array(sound[..<count]))) }
    var generator = SeededGenerator(seed: 10)
    for _ in 0..<2000 { _ = survives(damaged(sound, using: &generator)) }
  }

  // MARK: - Small files

  @Test func readSmallFileHasALimit() throws {
    let path = try folder.write([1, 2, 3], to: "x")
    #expect(try readSmallFile(path, limit: 3) == [1, 2, 3])
    expectFailure(.format, path, "3 bytes", "limit is 2") { () throws(Failure) in _ = try readSmallFile(path, limit: 2) }
    #expect(try readSmallFile(folder.write([], to: "empty"), limit: 0).isEmpty)
    expectFailure(.notFound, folder("none")) { () throws(Failure) in _ = try readSmallFile(folder("none"), limit: 9) }
    expectFailure(.file, folder.path) { () throws(Failure) in _ = try readSmallFile(folder.path, limit: 9) }
    // Opening a pipe that nobody writes to would wait for ever.
    try #require(mkfifo(folder("pipe"), 0o600) == 0)
    expectFailure(.file, folder("pipe")) { () throws(Failure) in _ = try readSmallFile(folder("pipe"), limit: 9) }
    expectFailure(.file, "/dev/zero") { () throws(Failure) in _ = try readSmallFile("/dev/zero", limit: 9) }
  }

  @Test func joinedNames() {
    #expect(joined("a", "b") == "a/b")
    #expect(joined("a/", "b") == "a/b")
    #expect(joined("/", "b") == "/b")
  }
}
