import Platform

/// The table of contents of a zip archive whose entries are stored, not compressed, as PyTorch writes them: where each entry's
/// bytes lie in the file. Zip64 is read; several volumes and encryption are refused.
///
///     local header, data | ... | central directory | zip64 end, its locator | end of central directory
struct ZipArchive {
  struct Entry {
    /// Of the first byte of its data, from the start of the file.
    let offset: Int
    let byteCount: Int
    let isStored: Bool
  }

  let entries: [String: Entry]
  private static let longestDirectory = 256 << 20

  /// - Throws: `.format` for an archive that contradicts itself or its file.
  init(_ file: File) throws(Failure) {
    let size = try file.size()
    func damaged(_ what: String) -> Failure {
      Failure(.format, "\(file.path) is no sound zip archive, \(what): it has been truncated or damaged; fetch it again")
    }
    // The end record is the last thing in the file, but for a comment of at most 65535 bytes.
    let tailCount = min(size, 22 + 65535)
    let tail = Bytes(try file.bytes(count: tailCount, at: size - tailCount))
    let wanted: [UInt8] = [0x50, 0x4B, 5, 6]
    guard tailCount >= 22,
      let end = stride(from: tailCount - 22, through: 0, by: -1).first(where: { tail.matches(wanted, at: $0) })
    else { throw damaged("for it has no directory") }
    // Writers of 64-bit fields may leave this one to them.
    guard [0, 0xFFFF].contains(tail.number(2, at: end + 4)) else {
      throw Failure(.format, "\(file.path) is one of several volumes of a zip archive, which are not read: join them first")
    }
    var count = tail.number(2, at: end + 10)
    var directorySize = tail.number(4, at: end + 12)
    var directoryOffset = tail.number(4, at: end + 16)
    let locator = end - 20
    if locator >= 0, tail.matches([0x50, 0x4B, 6, 7], at: locator) {
      let place = tail.number(8, at: locator + 8)
      guard place >= 0, place <= size - 56 else { throw damaged("whose zip64 directory lies outside of it") }
      let record = Bytes(try file.bytes(count: 56, at: place))
      guard record.matches([0x50, 0x4B, 6, 6], at: 0) else { throw damaged("whose zip64 directory is missing") }
      (count, directorySize, directoryOffset) = (record.number(8, at: 32), record.number(8, at: 40), record.number(8, at: 48))
    }
    guard directoryOffset >= 0, directorySize >= 0, directorySize <= Self.longestDirectory, directoryOffset <= size,
      directorySize <= size - directoryOffset, count >= 0, count <= directorySize / 46
    else { throw damaged("whose directory lies outside of it") }
    let directory = Bytes(try file.bytes(count: directorySize, at: directoryOffset))

    var entries: [String: Entry] = [:]
    entries.reserveCapacity(count)
    var position = 0
    for _ in 0..<count {
      guard position <= directorySize - 46, directory.matches([0x50, 0x4B, 1, 2], at: position) else {
        throw damaged("whose directory is cut short")
      }
      let nameLength = directory.number(2, at: position + 28)
      let extraLength = directory.number(2, at: position + 30)
      let length = 46 + nameLength + extraLength + directory.number(2, at: position + 32)
      guard length <= directorySize - position else { throw damaged("whose directory is cut short") }
      let name = String(decoding: directory.all[(position + 46)..<(position + 46 + nameLength)], as: UTF8.self)
      guard directory.number(2, at: position + 8) & 1 == 0 else {
        throw Failure(
          .format, "entry \(quoted(name)) of \(file.path) is encrypted, which is not read: save it without a password")
      }
      var fields = [
        directory.number(4, at: position + 24), directory.number(4, at: position + 20), directory.number(4, at: position + 42),
      ]
      // What does not fit in 32 bits is in the zip64 field, in this order.
      let extra = (position + 46 + nameLength)..<(position + 46 + nameLength + extraLength)
      if fields.contains(0xFFFF_FFFF), var wide = directory.field(1, in: extra) {
        for i in fields.indices where fields[i] == 0xFFFF_FFFF {
          guard wide.count >= 8 else { throw damaged("whose directory is cut short") }
          fields[i] = directory.number(8, at: wide.lowerBound)
          wide = (wide.lowerBound + 8)..<wide.upperBound
        }
      }
      let (byteCount, packed, header) = (fields[0], fields[1], fields[2])
      guard header >= 0, header <= size - 30 else { throw damaged("whose entry \(quoted(name)) lies outside of it") }
      let local = Bytes(try file.bytes(count: 30, at: header))
      guard local.matches([0x50, 0x4B, 3, 4], at: 0) else { throw damaged("whose entry \(quoted(name)) is not there") }
      let offset = header + 30 + local.number(2, at: 26) + local.number(2, at: 28)
      guard packed >= 0, byteCount >= 0, offset <= size, packed <= size - offset else {
        throw damaged("whose entry \(quoted(name)) lies outside of it")
      }
      let isStored = directory.number(2, at: position + 10) == 0 && packed == byteCount
      guard entries.updateValue(Entry(offset: offset, byteCount: byteCount, isStored: isStored), forKey: name) == nil else {
        throw damaged("with two entries \(quoted(name))")
      }
      position += length
    }
    self.entries = entries
  }
}

/// Little-endian numbers out of bytes.
private struct Bytes {
  let all: [UInt8]

  init(_ all: [UInt8]) { self.all = all }

  func matches(_ signature: [UInt8], at offset: Int) -> Bool {
    offset >= 0 && offset + signature.count <= all.count && all[offset..<(offset + signature.count)].elementsEqual(signature)
  }

  /// Negative where the 64 bits do not fit.
  func number(_ count: Int, at offset: Int) -> Int {
    var value: UInt64 = 0
    for i in stride(from: count - 1, through: 0, by: -1) { value = value << 8 | UInt64(all[offset + i]) }
    return Int(truncatingIfNeeded: value)
  }

  /// The content of an extra field.
  func field(_ wanted: Int, in extra: Range<Int>) -> Range<Int>? {
    var position = extra.lowerBound
    while position + 4 <= extra.upperBound {
      let (tag, length) = (number(2, at: position), number(2, at: position + 2))
      guard length <= extra.upperBound - position - 4 else { return nil }
      if tag == wanted { return (position + 4)..<(position + 4 + length) }
      position += 4 + length
    }
    return nil
  }
}
