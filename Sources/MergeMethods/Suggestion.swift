/// The known name that a mistyped one most likely means.
public enum Suggestion {
  /// - Returns: the name with the smallest edit distance, when that is at most a third of its length (at least 1).
  public static func nearest(to name: String, among known: [String]) -> String? {
    let typed = Array(name.lowercased().utf8)
    let scored = known.map { (name: $0, distance: distance(typed, Array($0.lowercased().utf8))) }
    guard let best = scored.min(by: { $0.distance < $1.distance }) else { return nil }
    return best.distance <= max(1, best.name.utf8.count / 3) ? best.name : nil
  }

  /// Edit distance in which two neighbours that have changed places count once (optimal string alignment).
  private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var before = [Int](repeating: 0, count: b.count + 1)
    var last = Array(0...b.count)
    for i in 1...max(1, a.count) where i <= a.count {
      var row = [Int](repeating: i, count: b.count + 1)
      for j in 1...max(1, b.count) where j <= b.count {
        row[j] = min(last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1), last[j] + 1, row[j - 1] + 1)
        if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { row[j] = min(row[j], before[j - 2] + 1) }
      }
      (before, last) = (last, row)
    }
    return last[b.count]
  }
}
