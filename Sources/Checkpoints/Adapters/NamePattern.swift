import Glibc
import Platform

/// A key of PEFT's `rank_pattern` or `alpha_pattern`: a regular expression that a module's name has to end with, whole or after a
/// dot. POSIX's extended expressions, with Python's \d; what only Python knows is refused, and what no list of modules needs.
final class NamePattern: @unchecked Sendable {
  // @unchecked: regexec only reads what regcomp made.
  private var expression = regex_t()

  init(_ key: String, source: String) throws(Failure) {
    let text = key.split(separator: "\\d", omittingEmptySubsequences: false).joined(separator: "[0-9]")
    guard !key.contains("(?"), !key.contains("*?"), !key.contains("+?"), Self.isModest(key),
      regcomp(&expression, "^(.*\\.)?(\(text))$", REG_EXTENDED | REG_NOSUB) == 0
    else {
      throw Failure(.format, "\(source) has the pattern \(quoted(key)), which is not understood: write the modules' names")
    }
  }

  deinit { regfree(&expression) }

  /// The C library nests its calls as deep as parentheses, writes repetitions out, and tries whatever \1 may stand for: a few bytes
  /// can take the stack, the memory, or years.
  private static func isModest(_ key: String) -> Bool {
    var length = key.utf8.count
    guard length <= 1000, key.utf8.count(where: { $0 == UInt8(ascii: "(") }) <= 100 else { return false }
    let recalls = zip(key.utf8, key.utf8.dropFirst()).contains { $0 == UInt8(ascii: "\\") && (0x31...0x39).contains($1) }
    guard !recalls else { return false }
    for bounds in key.split(separator: "{").dropFirst() {
      for bound in bounds.prefix(while: { $0 != "}" }).split(separator: ",") {
        guard let times = Int(bound), times > 0 else { continue }
        guard times <= 4000 / length else { return false }
        length *= times
      }
    }
    return true
  }

  func matches(_ name: String) -> Bool { regexec(&expression, name, 0, nil, 0) == 0 }
}
