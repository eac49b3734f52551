import Glibc
import Testing

@testable import Platform

@Suite(.serialized) struct MappedWindowTests {
  private let folder = try! TemporaryFolder()

  private func file(_ bytes: [UInt8]) throws -> (file: File, path: String) {
    let path = folder("mapped")
    let file = try File(path: path, mode: .create)
    try file.write(bytes, at: 0)
    return (file, path)
  }

  private static func handler() -> UnsafeRawPointer? {
    var action = sigaction()
    sigaction(SIGBUS, nil, &action)
    return unsafeBitCast(action.__sigaction_handler.sa_sigaction, to: UnsafeRawPointer?.self)
  }

  @Test func aWindowShowsTheBytesOfItsRange() throws {
    let bytes = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    let (file, _) = try file(bytes)
    for range in [0..<1, 0..<20_000, 4095..<4097, 12_345..<20_000] {
      let window = try #require(file.window(range))
      #expect(Array(UnsafeRawBufferPointer(start: window.start, count: range.count)) == Array(bytes[range]))
    }
  }

  @Test func aRangeBeyondTheEndHasNoWindow() throws {
    let (file, _) = try file([1, 2, 3])
    #expect(file.window(0..<4) == nil)
    #expect(try self.file([]).file.window(0..<1) == nil)
  }

  @Test func aWindowOutlivesTheFileObject() throws {
    var opened: File? = try file([UInt8](repeating: 9, count: 9000)).file
    let window = try #require(opened?.window(8000..<9000))
    opened = nil
    #expect(window.start.load(as: UInt8.self) == 9)
  }

  @Test func aFileThatShrinksIsNoticedAndReadAsZeros() throws {
    let (file, path) = try file([UInt8](repeating: 5, count: 3 * 4096))
    let window = try #require(file.window(0..<3 * 4096))
    var seen: [UInt8] = []
    let isComplete = try MappedWindow.whileGuarding { () -> Result<Bool, Failure> in
      Result { () throws(Failure) in
        try MappedWindow.guarded { () throws(Failure) in
          try File(path: path, mode: .update).truncate(to: 4096)
          seen = [0, 4096, 2 * 4096].map { window.start.load(fromByteOffset: $0, as: UInt8.self) }
        }
      }
    }.get()
    #expect(!isComplete && seen == [5, 0, 0])
  }

  /// In a process of its own: others that run beside it guard their windows too.
  @Test func theSignalIsGivenBack() async {
    await #expect(processExitsWith: .success) {
      let before = Self.handler()
      let inside = MappedWindow.whileGuarding { Self.handler() }
      precondition(inside != before && Self.handler() == before)
    }
  }

  @Test func whatIsThereIsReadWithoutNotice() throws {
    let (file, _) = try file([UInt8](repeating: 5, count: 4096))
    let window = try #require(file.window(0..<4096))
    let isComplete = try MappedWindow.whileGuarding {
      Result { () throws(Failure) in
        try MappedWindow.guarded { () throws(Failure) in #expect(window.start.load(as: UInt8.self) == 5) }
      }
    }.get()
    #expect(isComplete)
  }

  @Test func aFailureInsideGoesOn() {
    #expect(throws: Failure.self) {
      _ = try MappedWindow.guarded { () throws(Failure) in throw Failure(.file, "as it was") }
    }
  }
}
