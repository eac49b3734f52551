/// A pattern for tensor names: * stands for any run of characters, ? for one, everything else for itself.
public struct Glob: Sendable {
  private let pattern: [Unicode.Scalar]

  public init(_ pattern: String) { self.pattern = Array(pattern.unicodeScalars) }

  public func matches(_ name: String) -> Bool {
    let text = Array(name.unicodeScalars)
    var (p, t) = (0, 0)
    var star: (pattern: Int, text: Int)?
    while t < text.count {
      if p < pattern.count, pattern[p] == "*" {
        star = (p, t)
        p += 1
      } else if p < pattern.count, pattern[p] == "?" || pattern[p] == text[t] {
        (p, t) = (p + 1, t + 1)
      } else if let last = star {
        // Let the last star take one more character.
        star = (last.pattern, last.text + 1)
        (p, t) = (last.pattern + 1, last.text + 1)
      } else {
        return false
      }
    }
    return pattern[p...].allSatisfy { $0 == "*" }
  }
}
