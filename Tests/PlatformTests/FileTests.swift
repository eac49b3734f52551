import Glibc
import Platform
import Testing

@Suite struct FileTests {
  private func read(_ file: File, _ count: Int, at offset: Int) throws(Failure) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count + 2)
    let failure: Failure? = bytes.withUnsafeMutableBytes { raw in
      do throws(Failure) { try file.read(into: raw.baseAddress! + 1, count: count, at: offset) } catch { return error }
      return nil
    }
    if let failure { throw failure }
    // Not a byte more than asked for.
    #expect(bytes.first == 0xEE && bytes.last == 0xEE)
    return Array(bytes[1...count])
  }

  @Test func whatIsWrittenIsReadAtAnyOffset() throws {
    let folder = try TemporaryFolder()
    let file = try File(path: folder("a"), mode: .create)
    let content = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
    try file.write(content, at: 0)
    #expect(try file.size() == content.count)
    for (offset, count) in [(0, 1), (0, 100_000), (99_999, 1), (4095, 2), (50_000, 12_345)] {
      #expect(try read(file, count, at: offset) == Array(content[offset..<offset + count]), "\(count) at \(offset)")
    }
    #expect(try folder.bytes("a") == content)
  }

  @Test func writingPastTheEndLeavesZerosBetween() throws {
    let folder = try TemporaryFolder()
    let file = try File(path: folder("a"), mode: .create)
    try file.write([7, 8], at: 5)
    try file.write([1], at: 0)
    try file.write([], at: 1000)
    #expect(try folder.bytes("a") == [1, 0, 0, 0, 0, 7, 8])
  }

  @Test func aFileThatIsTooShortIsNamedAsTruncated() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("weights.bin", [1, 2, 3, 4])
    let file = try File(path: path, mode: .read)
    expectFailure(.format, path, "byte 4", "truncated") { () throws(Failure) in _ = try read(file, 3, at: 2) }
    expectFailure(.format, path) { () throws(Failure) in _ = try read(file, 1, at: 100) }
    #expect(try read(file, 2, at: 2) == [3, 4])
  }

  @Test func createEmptiesAndUpdateKeeps() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("a", [1, 2, 3])
    let kept = try File(path: path, mode: .update)
    try kept.write([9], at: 1)
    #expect(try folder.bytes("a") == [1, 9, 3])
    _ = try File(path: path, mode: .create)
    #expect(try folder.bytes("a") == [])
    _ = try File(path: folder("new"), mode: .update)
    #expect(folder.isThere("new"))
  }

  @Test func openingWhatIsNotThereFailsWithItsPath() throws {
    let folder = try TemporaryFolder()
    expectFailure(.notFound, "cannot open", folder("missing")) { () throws(Failure) in
      _ = try File(path: folder("missing"), mode: .read)
    }
    expectFailure(.notFound, folder("no/file")) { () throws(Failure) in _ = try File(path: folder("no/file"), mode: .create) }
    expectFailure(.file, folder.path) { () throws(Failure) in _ = try File(path: folder.path, mode: .create) }
    #expect(!folder.isThere("missing"))
  }

  @Test func aFolderHasNoSizeAndCannotBeRead() throws {
    let folder = try TemporaryFolder()
    let file = try File(path: folder.path, mode: .read)
    expectFailure(.file, folder.path, "not a regular file") { () throws(Failure) in _ = try file.size() }
    expectFailure(.file, folder.path) { () throws(Failure) in _ = try read(file, 1, at: 0) }
  }

  @Test func aPipeHasNoSize() throws {
    let folder = try TemporaryFolder()
    try #require(mkfifo(folder("pipe"), 0o666) == 0)
    // Opened for update: opening one end alone would wait for the other.
    let file = try File(path: folder("pipe"), mode: .update)
    expectFailure(.file, "not a regular file") { () throws(Failure) in _ = try file.size() }
  }

  @Test func aFileOpenedForReadingCannotBeChanged() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("a", [1, 2, 3])
    let file = try File(path: path, mode: .read)
    expectFailure(.file, "cannot write", path) { () throws(Failure) in try file.write([9], at: 0) }
    expectFailure(.file, "cannot resize", path) { () throws(Failure) in try file.truncate(to: 1) }
    #expect(try folder.bytes("a") == [1, 2, 3])
  }

  @Test func truncateSetsTheSizeBothWays() throws {
    let folder = try TemporaryFolder()
    let file = try File(path: folder("a"), mode: .create)
    try file.write([1, 2, 3, 4], at: 0)
    try file.truncate(to: 2)
    #expect(try folder.bytes("a") == [1, 2])
    try file.truncate(to: 5)
    #expect(try file.size() == 5)
    #expect(try folder.bytes("a") == [1, 2, 0, 0, 0])
    expectFailure(.file, "cannot resize") { () throws(Failure) in try file.truncate(to: -1) }
  }

  @Test func onlyOneHolderHasTheLock() throws {
    let folder = try TemporaryFolder()
    var first: File? = try File(path: folder("lock"), mode: .update)
    let second = try File(path: folder("lock"), mode: .update)
    #expect(first!.tryLock())
    #expect(!second.tryLock())
    first = nil
    #expect(second.tryLock())
  }

  @Test func identityIsThatOfTheFileAndNotOfThePath() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("a")
    try folder.link("link", to: path)
    try #require(link(path, folder("hard")) == 0)
    let identity = try File(path: path, mode: .read).identity()
    #expect(try File(path: folder("link"), mode: .read).identity() == identity)
    #expect(try File(path: folder("hard"), mode: .read).identity() == identity)
    #expect(try File(path: folder.file("other"), mode: .read).identity() != identity)
  }

  // MARK: - Copying

  /// Where the file system cannot copy ranges, nothing is promised but the bytes around them.
  @Test(arguments: [(0..<100_000, 0), (1..<2, 7), (4095..<70_001, 13), (50_000..<100_000, 200_000)])
  func aRangeIsCopiedWhereItIsWanted(range: Range<Int>, offset: Int) throws {
    let folder = try TemporaryFolder()
    let content = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
    let source = try File(path: folder.file("source", content), mode: .read)
    let target = try File(path: folder("target"), mode: .create)
    try target.write([UInt8](repeating: 0xAA, count: 300_000), at: 0)
    let isCopied = try target.copy(from: source, range, to: offset)
    let found = try folder.bytes("target")
    if isCopied { #expect(Array(found[offset..<offset + range.count]) == Array(content[range])) }
    #expect(found.count == 300_000)
    #expect(found[..<offset].allSatisfy { $0 == 0xAA } && found[(offset + range.count)...].allSatisfy { $0 == 0xAA })
    #expect(try folder.bytes("source") == content)
  }

  @Test func anEmptyRangeIsCopiedAtOnce() throws {
    let folder = try TemporaryFolder()
    let source = try File(path: folder.file("source"), mode: .read)
    let target = try File(path: folder("target"), mode: .create)
    #expect(try target.copy(from: source, 2..<2, to: 50))
    #expect(try target.size() == 0)
  }

  @Test func whatTheSystemCannotCopyIsLeftToReadingAndWriting() throws {
    let folder = try TemporaryFolder()
    let source = try File(path: folder.file("source", [1, 2, 3, 4]), mode: .read)
    let target = try File(path: folder("target"), mode: .create)
    // Beyond the end: reading it says that the file is too short.
    #expect(try !target.copy(from: source, 2..<9, to: 0))
    #expect(try !target.copy(from: source, 100..<101, to: 0))
    try target.truncate(to: 0)
    // A file that is open for reading alone, a pipe, and a range onto itself.
    let closed = try File(path: folder.file("closed", [9]), mode: .read)
    #expect(try !closed.copy(from: source, 0..<4, to: 0))
    #expect(try folder.bytes("closed") == [9])
    try #require(mkfifo(folder("pipe"), 0o666) == 0)
    let pipe = try File(path: folder("pipe"), mode: .update)
    #expect(try !target.copy(from: pipe, 0..<4, to: 0))
    let own = try File(path: folder("source"), mode: .update)
    #expect(try !own.copy(from: own, 0..<3, to: 1))
    #expect(try folder.bytes("source") == [1, 2, 3, 4] && folder.bytes("target") == [])
  }

  @Test func aFailureOfCopyingNamesBothFiles() throws {
    let folder = try TemporaryFolder()
    let source = try File(path: folder.folder("source"), mode: .read)
    let target = try File(path: folder("target"), mode: .create)
    do throws(Failure) {
      #expect(try !target.copy(from: source, 0..<4, to: 0))
    } catch {
      #expect(error.status == .file && error.message.contains(folder("source")) && error.message.contains(folder("target")))
    }
  }

  @Test func adviceLeavesTheContentAlone() throws {
    let folder = try TemporaryFolder()
    let file = try File(path: folder("a"), mode: .create)
    try file.write([1, 2, 3], at: 0)
    file.prefetch(0..<3)
    file.prefetch(100..<200)
    #expect(try folder.bytes("a") == [1, 2, 3])
    #expect(file.path == folder("a"))
  }
}
