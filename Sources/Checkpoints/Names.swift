import Glibc

/// A name as messages show it: in quotes, without control characters, and cut when it is long, since a name may be a megabyte.
func quoted(_ name: String) -> String {
  let shown = name.unicodeScalars.prefix(160).map { $0.value < 0x20 || $0.value == 0x7F ? Unicode.Scalar(0xFFFD)! : $0 }
  let cut = name.unicodeScalars.dropFirst(160).isEmpty ? "" : "..."
  return "\"" + String(String.UnicodeScalarView(shown)) + cut + "\""
}

/// Order by UTF-8 bytes, as Rust and Python sort; Swift's own order of strings normalises them first.
func precedes(_ left: String, _ right: String) -> Bool {
  let order = left.utf8.withContiguousStorageIfAvailable { left in
    right.utf8.withContiguousStorageIfAvailable { right in
      let common = min(left.count, right.count)
      let difference = common == 0 ? 0 : memcmp(left.baseAddress!, right.baseAddress!, common)
      return difference == 0 ? left.count < right.count : difference < 0
    }
  }
  return (order ?? nil) ?? left.utf8.lexicographicallyPrecedes(right.utf8)
}

/// Ordered by the bytes of the names, equal ones as they were. Most often they are already, or consist of a few runs that are.
func sortedByName<Item>(_ items: [Item], _ name: (Item) -> String) -> [Item] {
  let isSorted = items.indices.dropFirst().allSatisfy { !precedes(name(items[$0]), name(items[$0 - 1])) }
  if isSorted { return items }
  // All names in one piece, so that moving and comparing them counts no references.
  var bytes: [UInt8] = []
  var ends = [0]
  ends.reserveCapacity(items.count + 1)
  for item in items {
    bytes.append(contentsOf: name(item).utf8)
    ends.append(bytes.count)
  }
  var order = Array(items.indices)
  bytes.withUnsafeBufferPointer { bytes in
    ends.withUnsafeBufferPointer { ends in
      order.sort { left, right in
        let (count, otherCount) = (ends[left + 1] - ends[left], ends[right + 1] - ends[right])
        let common = min(count, otherCount)
        let difference = common == 0 ? 0 : memcmp(bytes.baseAddress! + ends[left], bytes.baseAddress! + ends[right], common)
        return difference != 0 ? difference < 0 : (count, left) < (otherCount, right)
      }
    }
  }
  return order.map { items[$0] }
}

/// Can `name` be joined to a folder and stay in it?
func isPlainName(_ name: String) -> Bool {
  !name.isEmpty && name != "." && name != ".." && !name.utf8.contains(UInt8(ascii: "/")) && !name.utf8.contains(0)
}

/// The product, or nil when it does not fit.
func product(_ factors: some Sequence<Int>) -> Int? {
  var result = 1
  for factor in factors {
    let (value, overflow) = result.multipliedReportingOverflow(by: factor)
    if overflow { return nil }
    result = value
  }
  return result
}
