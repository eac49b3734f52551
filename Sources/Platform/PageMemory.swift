import Glibc

/// Zeroed memory for large scratch that comes and goes, such as matrices.
///
/// From 1 MiB on it is mapped, so that freeing it gives it back to the system at once: the allocator would keep it, and a merge's
/// memory would grow past what was planned. Large pages are asked for: a matrix is touched whole, and its 4 KiB pages would cost a fault
/// each.
public struct PageMemory: ~Copyable {
  private static let mappedFrom = 1 << 20

  public let start: UnsafeMutableRawPointer
  private let byteCount: Int
  private let isMapped: Bool

  public init(byteCount: Int) {
    self.byteCount = max(1, byteCount)
    if byteCount >= Self.mappedFrom,
      let pages = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), pages != MAP_FAILED
    {
      // Advice: where the system has no large pages, nothing changes.
      madvise(pages, byteCount, MADV_HUGEPAGE)
      start = pages
      isMapped = true
    } else {
      start = .allocate(byteCount: self.byteCount, alignment: 64)
      start.initializeMemory(as: UInt8.self, repeating: 0, count: self.byteCount)
      isMapped = false
    }
  }

  deinit {
    if isMapped { munmap(start, byteCount) } else { start.deallocate() }
  }
}
