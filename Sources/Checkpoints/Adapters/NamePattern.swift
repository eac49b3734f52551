import Glibc
import Platform

/// A key of PEFT's `rank_pattern` or `alpha_pattern`: a regular expression that a module's name has to end with, whole or after a
/// dot. POSIX's extended expressions, with Python's \d; what only Python knows is refused.
final class NamePattern: @unchecked Sendable {
  // @unchecked: regexec only reads what regcomp made.
  private var expression = regex_t()

  init(_ key: String, source: String) throws(Failure) {
    let text = key.split(separator: "\\d", omittingEmptySubsequences: false).joined(separator: "[0-9]")
    guard !key.contains("(?"), !key.contains("*?"), !key.contains("+?"),
      regcomp(&expression, "^(.*\\.)?(\(text))$", REG_EXTENDED | REG_NOSUB) == 0
    else {
      throw Failure(.format, "\(source) has the pattern \(quoted(key)), which is not understood: write the modules' names")
    }
  }

  deinit { regfree(&expression) }

  func matches(_ name: String) -> Bool { regexec(&expression, name, 0, nil, 0) == 0 }
}
