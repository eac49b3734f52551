import Glibc
import Platform
import Testing

/// A folder of its own for each test, removed with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    var template = Array("/tmp/stockpot-platform-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) != nil }
    try #require(made)
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  // By the shell, so that a mistake in FileSystem.remove leaves nothing behind and hides nowhere.
  deinit { system("rm -rf '\(path)'") }

  func callAsFunction(_ name: String) -> String { path + "/" + name }

  @discardableResult func file(_ name: String, _ bytes: [UInt8] = [1, 2, 3]) throws -> String {
    let file = try #require(fopen(self(name), "w"))
    defer { fclose(file) }
    try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    return self(name)
  }

  @discardableResult func folder(_ name: String) throws -> String {
    try #require(mkdir(self(name), 0o777) == 0)
    return self(name)
  }

  @discardableResult func link(_ name: String, to target: String) throws -> String {
    try #require(symlink(target, self(name)) == 0)
    return self(name)
  }

  /// The bytes of a file, read with the C library.
  func bytes(_ name: String) throws -> [UInt8] {
    let file = try #require(fopen(self(name), "r"))
    defer { fclose(file) }
    var bytes: [UInt8] = []
    while true {
      let byte = getc(file)
      if byte == EOF { return bytes }
      bytes.append(UInt8(byte))
    }
  }

  func isThere(_ name: String) -> Bool { access(self(name), F_OK) == 0 }
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
