import Platform
import Testing

@testable import Checkpoints

@Suite struct ZipArchiveTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func archive(_ bytes: [UInt8]) throws(Failure) -> ZipArchive {
    let path = folder("x.zip")
    // A file that is written over would be waited for.
    try FileSystem.remove(path)
    try FileSystem.write(bytes, to: path)
    return try ZipArchive(File(path: path, mode: .read))
  }

  private func expectRefused(_ bytes: [UInt8], _ words: String..., at location: SourceLocation = #_sourceLocation) {
    do throws(Failure) {
      _ = try archive(bytes)
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == .format, "\(error.message)", sourceLocation: location)
      for word in words + [folder("x.zip")] {
        #expect(error.message.contains(word), "\(error.message)", sourceLocation: location)
      }
    }
  }

  private func two(_ change: (inout Zip.Entry) -> Void = { _ in }) -> Zip {
    var second = Zip.Entry("b/long name", [7, 8, 9, 10])
    change(&second)
    return Zip([Zip.Entry("a", [1, 2]), second])
  }

  /// Of each entry its bytes, where they are stored.
  private func contents(_ bytes: [UInt8]) throws -> [String: [UInt8]] {
    try archive(bytes).entries.mapValues { $0.isStored ? Array(bytes[$0.offset..<($0.offset + $0.byteCount)]) : [] }
  }

  private let expected: [String: [UInt8]] = ["a": [1, 2], "b/long name": [7, 8, 9, 10]]

  // MARK: - What is read

  @Test func storedEntries() throws {
    #expect(try contents(two().bytes) == expected)
    #expect(try contents(Zip([]).bytes).isEmpty)
    #expect(try contents(Zip([Zip.Entry("", [])]).bytes) == ["": []])
  }

  @Test func dataAfterThePaddingOfItsHeader() throws {
    // 30 bytes of header, a name, and as many of padding, which the directory does not have.
    for count in [1, 63, 65535] {
      let bytes = two { $0.padding = [UInt8](repeating: 0x5A, count: count) }.bytes
      #expect(try contents(bytes) == expected)
      #expect(try archive(bytes).entries["b/long name"]?.offset == 30 + 1 + 2 + 30 + 11 + count)
    }
  }

  @Test func aCommentAtTheEnd() throws {
    for comment in [[UInt8](repeating: 0, count: 65535), Array("PK\u{5}\u{6} in it".utf8), [0]] {
      var zip = two()
      zip.comment = comment
      #expect(try contents(zip.bytes) == expected)
    }
    expectRefused(two().bytes + [UInt8](repeating: 0, count: 65536), "no directory")
  }

  @Test func fieldsOf64Bits() throws {
    for (entries, end) in [(true, false), (false, true), (true, true)] {
      var zip = two { $0.isWide = entries }
      zip.isWide = end
      #expect(try contents(zip.bytes) == expected)
    }
  }

  @Test func compressedEntriesAreNoted() throws {
    let packed = try archive(
      two {
        $0.method = 8
        $0.byteCount = 1 << 31
      }.bytes)
    #expect(packed.entries["a"]?.isStored == true)
    #expect(packed.entries["b/long name"]?.isStored == false)
    #expect(packed.entries["b/long name"]?.byteCount == 1 << 31)
    // Stored, it says, and of another size than it takes.
    #expect(try archive(two { $0.byteCount = 3 }.bytes).entries["b/long name"]?.isStored == false)
  }

  // MARK: - What is refused

  @Test func whatHasNoDirectory() {
    for bytes in [[], [0x50, 0x4B, 3, 4], [UInt8](repeating: 0x50, count: 30), Array(two().bytes.dropLast(22))] {
      expectRefused(bytes, "no directory", "fetch it again")
    }
  }

  @Test func encryptedAndSplitArchives() {
    expectRefused(two { $0.flags = 1 }.bytes, "encrypted", "\"b/long name\"")
    for disk in [1, 0xFFFE] {
      var zip = two()
      zip.disk = UInt64(disk)
      expectRefused(zip.bytes, "volumes")
    }
  }

  @Test func twoEntriesOfOneName() {
    expectRefused(Zip([Zip.Entry("x", [1]), Zip.Entry("x", [2])]).bytes, "two entries", "\"x\"")
  }

  /// Where less than the record is left of the file.
  @Test func placesJustBeforeTheEnd() {
    var zip = two()
    zip.isWide = true
    let size = UInt64(zip.bytes.count)
    for count in UInt64(0)..<56 {
      zip.widePlace = size - count
      expectRefused(zip.bytes, "zip64", "lies outside")
    }
    for count in UInt64(0)..<30 {
      expectRefused(two { $0.place = UInt64(two().bytes.count) - count }.bytes, "\"b/long name\"", "lies outside")
    }
  }

  private static let hostile: [UInt64] = [
    1 << 63, .max, 1 << 63 - 1, 1 << 63 - 30, 1 << 62, 1 << 48, 1 << 32, 1 << 32 - 1, 1 << 32 - 2, 1 << 31, 70_000,
  ]

  @Test(arguments: hostile) func numbersOfTheDirectory(_ number: UInt64) {
    for isWide in [true, false] where isWide || number >> 32 == 0 {
      var zip = two()
      zip.isWide = isWide
      zip.directoryPlace = number
      expectRefused(zip.bytes, "lies outside", "fetch it again")
      zip.directoryPlace = nil
      zip.directorySize = number
      expectRefused(zip.bytes, "lies outside", "fetch it again")
    }
    var zip = two()
    zip.isWide = true
    zip.count = number
    expectRefused(zip.bytes, "lies outside", "fetch it again")
    zip.count = nil
    zip.widePlace = number
    expectRefused(zip.bytes, "zip64", "fetch it again")
  }

  @Test(arguments: hostile) func numbersOfAnEntry(_ number: UInt64) {
    for isWide in [true, false] where isWide || number >> 32 == 0 {
      expectRefused(
        two {
          $0.isWide = isWide
          $0.place = number
        }.bytes, "\"b/long name\"", "fetch it again")
      expectRefused(
        two {
          $0.isWide = isWide
          $0.packedCount = number
        }.bytes, "\"b/long name\"", "fetch it again")
      // The size that it would have unpacked is nobody's bytes; only a negative one is a lie by itself.
      let unpacked = two {
        $0.isWide = isWide
        $0.byteCount = number
      }.bytes
      if number >= 1 << 63 {
        expectRefused(unpacked, "\"b/long name\"")
      } else {
        #expect((try? archive(unpacked))?.entries["b/long name"]?.isStored == false)
      }
    }
  }

  @Test func aDirectoryOfOtherCounts() throws {
    var zip = two()
    // 47 and 57 bytes of directory hold no more than two entries.
    zip.count = 3
    expectRefused(zip.bytes, "outside")
    zip.count = 1
    #expect(try contents(zip.bytes) == ["a": [1, 2]])
    zip.count = 2
    zip.directorySize = 100
    expectRefused(zip.bytes, "cut short")
    zip.directorySize = nil
    zip.directoryPlace = 1
    expectRefused(zip.bytes, "cut short")
  }

  @Test func namesAndFieldsBeyondTheDirectory() {
    let sound = two().bytes
    // Length of the name, of the extra field and of the comment of the first entry in the directory.
    let first = sound.count - 22 - 57 - 47
    for field in [28, 30, 32] {
      for length: UInt64 in [104, 0x7FFF, 0xFFFF] {
        var bytes = sound
        bytes.replaceSubrange(first + field..<first + field + 2, with: Pickle.number(length, bytes: 2))
        expectRefused(bytes, "cut short")
      }
    }
    var bytes = sound
    bytes[first + 42] = 1
    expectRefused(bytes, "\"a\"", "not there")
  }

  // MARK: - Damage

  private func survives(_ bytes: [UInt8]) -> Bool {
    do throws(Failure) {
      for (_, entry) in try archive(bytes).entries {
        #expect(entry.offset >= 30 && entry.offset <= bytes.count && entry.byteCount >= 0)
        #expect(!entry.isStored || entry.byteCount <= bytes.count - entry.offset)
      }
      return true
    } catch {
      #expect(error.status == .format && error.message.contains(folder("x.zip")))
      return false
    }
  }

  private var wide: [UInt8] {
    var zip = two { $0.isWide = true }
    zip.isWide = true
    return zip.bytes
  }

  @Test func cutAtEveryByte() {
    for sound in [two().bytes, wide] {
      for count in 0..<sound.count { expectRefused(Array(sound[..<count])) }
    }
  }

  @Test func everyByteChanged() {
    for sound in [two().bytes, wide] {
      var refused = 0
      for place in sound.indices {
        for value in [0, 0xFF, 0x7F, sound[place] ^ 1, sound[place] &+ 0x80] {
          var bytes = sound
          bytes[place] = value
          if !survives(bytes) { refused += 1 }
        }
      }
      // At the least the four signatures, for every change.
      #expect(refused > 16 * 4)
    }
  }

  @Test func randomDamage() {
    var generator = SeededGenerator(seed: 4)
    for sound in [two().bytes, wide] {
      for _ in 0..<1000 { _ = survives(damaged(sound, using: &generator)) }
    }
  }
}
