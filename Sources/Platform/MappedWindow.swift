import CPageGuard
import Glibc

/// A range of a file in the address space: read without a copy, and given back as soon as nobody holds the window.
///
/// The pages belong to the system's cache, not to the process. The file may shrink under it: read only inside
/// `MappedWindow.guarded`.
public final class MappedWindow {
  /// The range's first byte.
  public let start: UnsafeRawPointer
  private let file: File
  private let pages: UnsafeMutableRawPointer
  /// Of the pages that are mapped.
  public let byteCount: Int

  /// Ranges below this are cheaper to read than to map.
  public static let smallest = 65536

  init(file: File, mapping: UnsafeMutableRawPointer, range: Range<Int>) {
    let page = Int(getpagesize())
    let first = range.lowerBound / page * page
    self.file = file
    start = UnsafeRawPointer(mapping + range.lowerBound)
    pages = mapping + first
    byteCount = range.upperBound - first
    // All at once rather than fault by fault. Older systems do not know it, and then pages come one by one.
    _ = madvise(pages, byteCount, MADV_POPULATE_READ)
  }

  deinit { madvise(pages, byteCount, MADV_DONTNEED) }

  /// While jobs run: missing pages are noticed instead of ending the process.
  public static func whileGuarding<Result>(_ body: () -> Result) -> Result {
    page_guard_install()
    defer { page_guard_remove() }
    return body()
  }

  /// Run `body` on this thread. False when a page was missing, and read as zeros.
  public static func guarded(_ body: () throws(Failure) -> Void) throws(Failure) -> Bool {
    page_guard_enter()
    do throws(Failure) { try body() } catch {
      _ = page_guard_leave()
      throw error
    }
    return page_guard_leave() == 0
  }
}
