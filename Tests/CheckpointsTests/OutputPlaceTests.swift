import Checkpoints
import Platform
import Testing

@Suite struct OutputPlaceTests {
  private func status(_ path: String, isFile: Bool = false, overwrite: Bool) -> Status? {
    do throws(Failure) {
      try OutputPlace.check(path, isFile: isFile, overwrite: overwrite)
      return nil
    } catch { return error.status }
  }

  @Test func onlyWhatMayBeReplacedIs() throws {
    let folder = try TemporaryFolder()
    let checkpoint = folder.path + "/checkpoint"
    let photos = folder.path + "/photos"
    let empty = folder.path + "/empty"
    try FileSystem.makeFolder(checkpoint)
    try FileSystem.makeFolder(photos)
    try FileSystem.makeFolder(empty)
    try FileSystem.write("x", to: checkpoint + "/model.safetensors")
    try FileSystem.write("x", to: photos + "/cat.png")
    #expect(status(folder.path + "/new", overwrite: false) == nil)
    #expect(status(checkpoint, overwrite: false) == .exists)
    #expect(status(checkpoint, overwrite: true) == nil)
    #expect(status(empty, overwrite: true) == nil)
    #expect(status(photos, overwrite: true) == .exists)
    #expect(status(checkpoint, isFile: true, overwrite: true) == .exists)
    #expect(status(photos + "/cat.png", overwrite: true) == .exists)
    #expect(status("/", overwrite: true) != nil)
  }

  @Test func aFolderTakesThePlaceOfAnother() throws {
    let folder = try TemporaryFolder()
    let (old, new) = (folder.path + "/out", folder.path + "/out.partial")
    try FileSystem.makeFolder(old)
    try FileSystem.makeFolder(new)
    try FileSystem.write("old", to: old + "/a")
    try FileSystem.write("new", to: new + "/b")
    try OutputPlace.replace(old, by: new)
    #expect(try FileSystem.list(old) == ["b"])
    #expect(try FileSystem.list(folder.path) == ["out"])
  }

  @Test func whatIsInTheWayIsNoticedBeforeAndAfter() throws {
    let folder = try TemporaryFolder()
    let (old, new) = (folder.path + "/out", folder.path + "/out.partial")
    for name in [old, new, old + ".replaced"] {
      try FileSystem.makeFolder(name)
      try FileSystem.write("x", to: name + "/model.safetensors")
    }
    #expect(status(old, overwrite: true) == .exists)
    let failure = #expect(throws: Failure.self) { try OutputPlace.replace(old, by: new) }
    #expect(failure?.status == .exists && failure?.message.contains("out.replaced") == true)
    #expect(try FileSystem.list(folder.path) == ["out", "out.partial", "out.replaced"])
    // A file takes another's place at once.
    #expect(status(old + "/model.safetensors", isFile: true, overwrite: true) == nil)
  }

  @Test func theOldFolderComesBackWhenTheNewOneCannotCome() throws {
    let folder = try TemporaryFolder()
    let old = folder.path + "/out"
    try FileSystem.makeFolder(old)
    try FileSystem.write("old", to: old + "/a")
    #expect(throws: Failure.self) { try OutputPlace.replace(old, by: folder.path + "/nothing") }
    #expect(try FileSystem.list(old) == ["a"])
    #expect(try FileSystem.list(folder.path) == ["out"])
  }
}
