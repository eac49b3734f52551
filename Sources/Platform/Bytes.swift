import Glibc

// Text looked at by its UTF-8 bytes. Names of tensors come by tens of thousands; Swift's own comparisons and splits go by characters.

extension String {
  /// Call `body` with the UTF-8 bytes, in place where they lie in one piece.
  @inlinable @inline(__always)
  public func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
    if let result = utf8.withContiguousStorageIfAvailable(body) { return result }
    return Array(utf8).withUnsafeBufferPointer(body)
  }

  /// Does `part` occur, byte by byte?
  public func containsText(_ part: String) -> Bool {
    withBytes { text in
      part.withBytes { part in
        guard let first = part.first else { return true }
        var start = 0
        while start + part.count <= text.count, let from = text.baseAddress.map({ $0 + start }),
          let found = memchr(from, Int32(first), text.count - start - part.count + 1)
        {
          if memcmp(found, part.baseAddress!, part.count) == 0 { return true }
          start += found - UnsafeMutableRawPointer(mutating: from) + 1
        }
        return false
      }
    }
  }

  /// Are the last bytes those of `ending`?
  public func hasEnding(_ ending: StaticString) -> Bool {
    let count = ending.utf8CodeUnitCount
    return withBytes { $0.count >= count && memcmp($0.baseAddress! + ($0.count - count), ending.utf8Start, count) == 0 }
  }

  /// For "model.embed_tokens.weight": "embed_tokens", the component before the last, if the last one is `last`; nil: it is not.
  public func component(before last: StaticString) -> String? {
    guard hasEnding(last) else { return nil }
    let length = last.utf8CodeUnitCount
    return withBytes { text in
      let dot = UInt8(ascii: ".")
      var end = text.count - length
      guard end > 0, text[end - 1] == dot else { return nil }
      while end > 0, text[end - 1] == dot { end -= 1 }
      guard end > 0 else { return nil }
      let start = text[..<end].lastIndex(of: dot).map { $0 + 1 } ?? 0
      return String(decoding: text[start..<end], as: UTF8.self)
    }
  }

  /// The whole numbers of up to 9 digits among the components of a name between its dots: what comes before each (without the
  /// dot), and the number.
  public var numberedComponents: [(before: String, number: Int)] {
    withBytes { text in
      var found: [(before: String, number: Int)] = []
      var (start, number, isNumber) = (0, 0, true)
      for place in 0...text.count {
        if place == text.count || text[place] == UInt8(ascii: ".") {
          if isNumber, place > start, place - start < 10 {
            found.append((String(decoding: text[..<max(0, start - 1)], as: UTF8.self), number))
          }
          (start, number, isNumber) = (place + 1, 0, true)
        } else if isNumber {
          let digit = Int(text[place]) - 48
          isNumber = (0...9).contains(digit) && place - start < 10
          if isNumber { number = 10 * number + digit }
        }
      }
      return found
    }
  }
}
