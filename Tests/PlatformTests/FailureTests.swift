import Glibc
import Platform
import Testing

@Suite struct FailureTests {
  /// The lines `#define SP_E_<NAME> ((sp_status)<code>)` of the header.
  private static let header: [String: Int32] = {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    guard let file = fopen("/" + root + "/include/stockpot.h", "r") else { return [:] }
    defer { fclose(file) }
    var found: [String: Int32] = [:]
    var line = [CChar](repeating: 0, count: 4096)
    while fgets(&line, Int32(line.count), file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      let words = text.split(separator: " ")
      guard words.count >= 3, words[0] == "#define", words[1].hasPrefix("SP_E_"), words[2].hasPrefix("((sp_status)") else {
        continue
      }
      found[String(words[1].dropFirst(5))] = Int32(words[2].dropFirst(12).prefix { $0.isNumber || $0 == "-" })
    }
    return found
  }()

  /// MISSING_TENSOR is missingTensor.
  private func caseName(_ name: String) -> String {
    let words = name.lowercased().split(separator: "_")
    return words[0] + words.dropFirst().map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()
  }

  @Test func headerWasRead() {
    #expect(Self.header.count == 19)
    #expect(Self.header["INTERNAL"] == -99)
  }

  @Test func everyCodeOfTheHeaderIsAStatusOfThatName() {
    for (name, code) in Self.header {
      let status = Status(rawValue: code)
      #expect(status.map { "\($0)" } == caseName(name), "SP_E_\(name) is \(code)")
    }
  }

  @Test func everyStatusIsInTheHeader() {
    let known = Set((-1000...1000).filter { Status(rawValue: $0) != nil })
    #expect(known == Set(Self.header.values))
  }

  @Test func statusCodesAreNegative() {
    for code in Int32(0)...1000 { #expect(Status(rawValue: code) == nil) }
  }

  @Test func descriptionNamesTheStatusAndTheMessage() {
    let failure = Failure(.missingTensor, "no tensor 'a'")
    #expect("\(failure)" == "missingTensor: no tensor 'a'")
    #expect(failure.status == .missingTensor && failure.message == "no tensor 'a'")
  }

  @Test func failuresAreEqualWhenBothPartsAre() {
    #expect(Failure(.file, "a") == Failure(.file, "a"))
    #expect(Failure(.file, "a") != Failure(.file, "b"))
    #expect(Failure(.file, "a") != Failure(.format, "a"))
  }
}
