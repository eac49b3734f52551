import Glibc
import Platform
import Testing

@Suite struct FileSystemTests {
  // MARK: - What is there

  @Test func kindFollowsLinks() throws {
    let folder = try TemporaryFolder()
    let file = try folder.file("file")
    try folder.link("to-file", to: file)
    try folder.link("to-folder", to: folder.path)
    try folder.link("dangling", to: "nowhere")
    try #require(mkfifo(folder("pipe"), 0o666) == 0)
    #expect(FileSystem.kind(file) == .file)
    #expect(FileSystem.kind(folder.path) == .folder)
    #expect(FileSystem.kind(folder("to-file")) == .file)
    #expect(FileSystem.kind(folder("to-folder")) == .folder)
    #expect(FileSystem.kind(folder("pipe")) == .other)
    #expect(FileSystem.kind(folder("dangling")) == nil)
    #expect(FileSystem.kind(folder("nothing")) == nil)
    #expect(FileSystem.kind("") == nil)
  }

  @Test func existsCountsADanglingLink() throws {
    let folder = try TemporaryFolder()
    try folder.link("dangling", to: "nowhere")
    #expect(FileSystem.exists(folder.path))
    #expect(FileSystem.exists(folder("dangling")))
    #expect(!FileSystem.exists(folder("nothing")))
  }

  @Test func listIsSortedByBytesWithoutDots() throws {
    let folder = try TemporaryFolder()
    let names = ["b", "B", "a", ".hidden", "a10", "a2", "é", "z", "\u{1F372}"]
    for name in names { try folder.file(name) }
    #expect(try FileSystem.list(folder.path) == [".hidden", "B", "a", "a10", "a2", "b", "z", "é", "\u{1F372}"])
    #expect(try FileSystem.list(folder.folder("empty")) == [])
  }

  @Test func listOfNoFolderFailsWithItsPath() throws {
    let folder = try TemporaryFolder()
    expectFailure(.notFound, "cannot list", folder("no")) { () throws(Failure) in _ = try FileSystem.list(folder("no")) }
    let file = try folder.file("file")
    expectFailure(.file, file) { () throws(Failure) in _ = try FileSystem.list(file) }
  }

  @Test func isSameAndIdentitySeeThroughLinks() throws {
    let folder = try TemporaryFolder()
    let (a, b) = (try folder.file("a"), try folder.file("b"))
    try folder.link("link", to: a)
    try folder.link("here", to: folder.path)
    #expect(FileSystem.isSame(a, a))
    #expect(FileSystem.isSame(a, folder("link")))
    #expect(FileSystem.isSame(folder.path, folder("here")))
    #expect(FileSystem.isSame(a, folder("here/./a")))
    #expect(!FileSystem.isSame(a, b))
    #expect(!FileSystem.isSame(folder("no"), folder("no")))
    #expect(!FileSystem.isSame(a, folder("no")))
    #expect(FileSystem.identity(a) == FileSystem.identity(folder("link")))
    #expect(FileSystem.identity(folder("no")) == nil)
  }

  @Test func containsIsAtAnyDepthAndThroughLinks() throws {
    let folder = try TemporaryFolder()
    for name in ["outer", "outer/mid", "outer/mid/inner", "outer2"] { try folder.folder(name) }
    try folder.file("outer/file")
    try folder.link("alias", to: folder("outer"))
    try folder.link("outer/out", to: folder("outer2"))
    #expect(FileSystem.contains(folder("outer"), folder("outer/mid")))
    #expect(FileSystem.contains(folder("outer"), folder("outer/mid/inner")))
    #expect(FileSystem.contains(folder("outer/"), folder("outer/file")))
    #expect(FileSystem.contains(folder("alias"), folder("outer/mid")))
    #expect(FileSystem.contains(folder("outer"), folder("alias/mid")))
    #expect(FileSystem.contains("/", folder.path))
    // Not itself, not a sibling whose name goes on, not its parent, not what a link inside points at.
    #expect(!FileSystem.contains(folder("outer"), folder("outer")))
    #expect(!FileSystem.contains(folder("outer"), folder("alias")))
    #expect(!FileSystem.contains(folder("outer"), folder("outer2")))
    #expect(!FileSystem.contains(folder("outer/mid"), folder("outer")))
    #expect(!FileSystem.contains(folder("outer"), folder("outer/out")))
    #expect(!FileSystem.contains(folder("outer"), folder("outer/nothing")))
    #expect(!FileSystem.contains(folder("nothing"), folder("outer")))
  }

  @Test func canonicalResolvesLinksAndDots() throws {
    let folder = try TemporaryFolder()
    try folder.folder("a")
    try folder.link("l", to: "a")
    let root = try #require(FileSystem.canonical(folder.path))
    #expect(FileSystem.canonical(folder("l/../a/./")) == root + "/a")
    #expect(FileSystem.canonical(folder("l")) == root + "/a")
    #expect(FileSystem.canonical(folder("nothing")) == nil)
  }

  @Test func stampChangesWithTheFile() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("a", [1])
    let first = FileSystem.stamp(path)
    #expect(first.contains(path) && first == FileSystem.stamp(path))
    try folder.file("a", [1, 2])
    #expect(FileSystem.stamp(path) != first)
    let second = FileSystem.stamp(path)
    var times = [timespec(tv_sec: 1, tv_nsec: 2), timespec(tv_sec: 3, tv_nsec: 4)]
    try #require(utimensat(AT_FDCWD, path, &times, 0) == 0)
    #expect(FileSystem.stamp(path) != second)
    #expect(FileSystem.stamp(folder("nothing")) == "")
  }

  @Test func freeBytesAreThoseOfTheNearestFolder() throws {
    let folder = try TemporaryFolder()
    #expect(try #require(FileSystem.freeBytes(near: folder.path)) > 0)
    #expect(FileSystem.freeBytes(near: folder("not/yet/there")) != nil)
    #expect(FileSystem.freeBytes(near: "not-yet-there") != nil)
  }

  // MARK: - Make, rename, remove

  @Test func foldersAreMadeWithTheirParents() throws {
    let folder = try TemporaryFolder()
    try FileSystem.makeFolder(folder("a/b/c"))
    try FileSystem.makeFolder(folder("a/b/c"))
    try FileSystem.makeFolder(folder("d/"))
    #expect(FileSystem.kind(folder("a/b/c")) == .folder && FileSystem.kind(folder("d")) == .folder)
    expectFailure(.notFound) { () throws(Failure) in try FileSystem.makeFolder("") }
  }

  @Test func aFileInTheWayOfAFolderIsAFailure() throws {
    let folder = try TemporaryFolder()
    let file = try folder.file("a")
    expectFailure(.file, folder("a/b")) { () throws(Failure) in try FileSystem.makeFolder(folder("a/b")) }
    expectFailure(.exists, file) { () throws(Failure) in try FileSystem.makeFolder(file) }
    #expect(FileSystem.kind(file) == .file)
  }

  @Test func renameReplacesAFileAndMovesAFolder() throws {
    let folder = try TemporaryFolder()
    try folder.file("a", [1])
    try folder.file("b", [2])
    try FileSystem.rename(folder("a"), to: folder("b"))
    #expect(try folder.bytes("b") == [1] && !folder.isThere("a"))
    try folder.folder("old")
    try folder.file("old/x")
    try FileSystem.rename(folder("old"), to: folder("new"))
    #expect(folder.isThere("new/x") && !folder.isThere("old"))
  }

  @Test func renameThatCannotBeNamesBothPaths() throws {
    let folder = try TemporaryFolder()
    try folder.folder("full")
    try folder.file("full/x")
    try folder.folder("other")
    expectFailure(.exists, folder("other"), folder("full")) { () throws(Failure) in
      try FileSystem.rename(folder("other"), to: folder("full"))
    }
    expectFailure(.notFound, folder("no"), folder("x")) { () throws(Failure) in
      try FileSystem.rename(folder("no"), to: folder("x"))
    }
    #expect(folder.isThere("other") && folder.isThere("full/x"))
  }

  @Test func removeTakesATreeButFollowsNoLink() throws {
    let folder = try TemporaryFolder()
    try folder.folder("kept")
    try folder.file("kept/precious")
    for name in ["tree", "tree/a", "tree/a/b"] { try folder.folder(name) }
    try folder.file("tree/x")
    try folder.file("tree/a/b/.hidden")
    try folder.link("tree/a/link", to: folder("kept"))
    try folder.link("tree/dangling", to: "nowhere")
    try FileSystem.remove(folder("tree"))
    #expect(!FileSystem.exists(folder("tree")))
    #expect(folder.isThere("kept/precious"))
    try folder.link("link", to: folder("kept"))
    try FileSystem.remove(folder("link"))
    #expect(!FileSystem.exists(folder("link")) && folder.isThere("kept/precious"))
    try FileSystem.remove(folder("kept/precious"))
    #expect(!folder.isThere("kept/precious"))
    try FileSystem.remove(folder("nothing"))
  }

  // MARK: - Small files

  @Test func smallFilesAreReadAndWrittenWhole() throws {
    let folder = try TemporaryFolder()
    for content in [[], [0], (0..<5000).map { UInt8(truncatingIfNeeded: $0) }] as [[UInt8]] {
      try FileSystem.write(content, to: folder("a"))
      #expect(try folder.bytes("a") == content)
      #expect(try FileSystem.read(folder("a")) == content)
    }
    try FileSystem.write("shorter é", to: folder("a"))
    #expect(try FileSystem.read(folder("a")) == Array("shorter é".utf8))
  }

  @Test func readAndWriteFailuresNameThePath() throws {
    let folder = try TemporaryFolder()
    expectFailure(.notFound, folder("no")) { () throws(Failure) in _ = try FileSystem.read(folder("no")) }
    expectFailure(.file, folder.path) { () throws(Failure) in _ = try FileSystem.read(folder.path) }
    expectFailure(.notFound, folder("no/file")) { () throws(Failure) in try FileSystem.write([1], to: folder("no/file")) }
  }

  // MARK: - Names

  private static let names: [(path: String, directory: String, name: String)] = [
    ("a/b", "a", "b"), ("a", ".", "a"), ("/", "/", ""), ("/a", "/", "a"), ("a/b/", "a", "b"), ("a/b//", "a", "b"),
    ("a//b", "a", "b"), ("/a/b/c", "/a/b", "c"), ("//a", "/", "a"), ("a/", ".", "a"), ("", ".", ""), (".", ".", "."),
    ("..", ".", ".."), ("../a", "..", "a"), ("///", "/", ""), ("a b/c d.x", "a b", "c d.x"), ("é/ü", "é", "ü"),
  ]

  @Test(arguments: names) func directoryAndNameTakeAPathApart(path: String, directory: String, name: String) {
    #expect(FileSystem.directory(of: path) == directory)
    #expect(FileSystem.name(of: path) == name)
  }

  @Test func aSlashBeforeACombiningMarkIsASlash() {
    // As the system sees it: U+0301 would make one Character of itself and the slash.
    #expect(FileSystem.directory(of: "a/\u{301}b") == "a")
    #expect(Array(FileSystem.name(of: "a/\u{301}b").utf8) == Array("\u{301}b".utf8))
  }

  @Test func trimmingKeepsTheRoot() {
    #expect(FileSystem.trimmingSlashes("a///") == "a")
    #expect(FileSystem.trimmingSlashes("/") == "/")
    #expect(FileSystem.trimmingSlashes("//") == "/")
    #expect(FileSystem.trimmingSlashes("") == "")
    #expect(FileSystem.trimmingSlashes("/a") == "/a")
  }
}
