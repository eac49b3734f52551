import Glibc
import Testing

@testable import Platform

@Suite struct PageMemoryTests {
  @Test(arguments: [0, 1, 4095, 1 << 20, 1 << 20 + 1, 3 << 20]) func itIsZeroedAlignedAndWritable(byteCount: Int) {
    for _ in 0..<3 {
      let memory = PageMemory(byteCount: byteCount)
      let bytes = UnsafeMutableRawBufferPointer(start: memory.start, count: byteCount)
      #expect(Int(bitPattern: memory.start) % 64 == 0)
      #expect(bytes.allSatisfy { $0 == 0 })
      for i in stride(from: 0, to: byteCount, by: 4096) { bytes[i] = 0xFF }
      if byteCount > 0 { bytes[byteCount - 1] = 0xFF }
    }
  }

  @Test func largeMemoryGoesBackToTheSystem() throws {
    func resident() -> Int {
      guard let file = fopen("/proc/self/statm", "r") else { return 0 }
      defer { fclose(file) }
      var line = [CChar](repeating: 0, count: 256)
      guard fgets(&line, 256, file) != nil else { return 0 }
      let words = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
      return words.count > 1 ? (Int(words[1]) ?? 0) * 4096 : 0
    }
    let size = 64 << 20
    let before = resident()
    for _ in 0..<8 {
      let memory = PageMemory(byteCount: size)
      for i in stride(from: 0, to: size, by: 4096) { (memory.start + i).storeBytes(of: 1, as: UInt8.self) }
    }
    // Other tests allocate at the same time; eight kept blocks would be 512 MiB.
    #expect(resident() - before < 4 * size)
  }
}
