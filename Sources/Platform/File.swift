import Glibc
import Synchronization

/// An open file descriptor with one method per system call. EINTR is retried here and nowhere else; short reads and writes are
/// continued; every error becomes a `Failure` that names the path and what the system said.
public final class File: @unchecked Sendable {
  // @unchecked: the descriptor is immutable, and pread/pwrite at explicit offsets are safe from any thread.
  public let path: String
  private let descriptor: Int32
  private let mapping = Mutex<Mapping>(.none)
  private let writers = Atomic<Int>(0)
  private let isLocked = Atomic<Bool>(false)

  /// The whole file in the address space.
  private enum Mapping {
    case none
    /// The system refused; it is not asked again.
    case refused
    case mapped(UInt, byteCount: Int)
  }

  public enum Mode {
    case read
    /// Created, or emptied when it exists.
    case create
    /// Opened for reading and writing, created when missing, kept when it exists.
    case update
  }

  public init(path: String, mode: Mode) throws(Failure) {
    let flags: Int32
    switch mode {
    case .read: flags = O_RDONLY | O_CLOEXEC
    case .create: flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC
    case .update: flags = O_RDWR | O_CREAT | O_CLOEXEC
    }
    let opened = retrying { open(path, flags, 0o666) }
    guard opened >= 0 else { throw systemFailure("open", path) }
    self.path = path
    self.descriptor = opened
  }

  deinit {
    if case .mapped(let address, let byteCount) = mapping.withLock({ $0 }) {
      munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
    }
    // Closing is not enough: until it runs its own program, a child of this process holds the lock too.
    if isLocked.load(ordering: .relaxed) { _ = flock(descriptor, LOCK_UN) }
    close(descriptor)
  }

  /// Size in bytes. A folder, pipe or device is refused: nothing here can be read at offsets from one.
  public func size() throws(Failure) -> Int {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw systemFailure("stat", path) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw Failure(.file, "\(path) is not a regular file")
    }
    return Int(status.st_size)
  }

  /// Read exactly `count` bytes at `offset`. A file that ends before that is a `.format` failure: it has shrunk since its size
  /// was taken.
  public func read(into buffer: UnsafeMutableRawPointer, count: Int, at offset: Int) throws(Failure) {
    var done = 0
    while done < count {
      let part = retrying { pread(descriptor, buffer + done, count - done, off_t(offset + done)) }
      if part < 0 { throw systemFailure("read", path) }
      if part == 0 {
        throw Failure(
          .format,
          "\(path) ends at byte \(offset + done), before the \(count) bytes expected at \(offset): it has been truncated")
      }
      done += part
    }
  }

  /// A range without a copy; nil where the system maps no files, or the file is too short for it.
  public func window(_ range: Range<Int>) -> MappedWindow? {
    let whole = mapping.withLock { mapping -> (UInt, Int)? in
      if case .none = mapping {
        mapping = .refused
        if let byteCount = try? size(), byteCount > 0,
          let start = mmap(nil, byteCount, PROT_READ, MAP_SHARED, descriptor, 0), start != MAP_FAILED
        {
          mapping = .mapped(UInt(bitPattern: start), byteCount: byteCount)
        }
      }
      if case .mapped(let address, let byteCount) = mapping { return (address, byteCount) }
      return nil
    }
    guard let (address, byteCount) = whole, range.upperBound <= byteCount else { return nil }
    return MappedWindow(file: self, mapping: UnsafeMutableRawPointer(bitPattern: address)!, range: range)
  }

  /// Another thread is writing now. The system lets one thread at a time into a file, and those who come meanwhile wait for it
  /// with a busy processor.
  public var isBeingWritten: Bool { writers.load(ordering: .relaxed) > 0 }

  /// Write exactly `count` bytes at `offset`.
  public func write(_ buffer: UnsafeRawPointer, count: Int, at offset: Int) throws(Failure) {
    writers.add(1, ordering: .relaxed)
    defer { writers.subtract(1, ordering: .relaxed) }
    var done = 0
    while done < count {
      let part = retrying { pwrite(descriptor, buffer + done, count - done, off_t(offset + done)) }
      if part <= 0 { throw systemFailure("write", path) }
      done += part
    }
  }

  public func write(_ bytes: [UInt8], at offset: Int) throws(Failure) {
    let failure: Failure? = bytes.withUnsafeBytes { raw in
      guard let start = raw.baseAddress else { return nil }
      do throws(Failure) { try write(start, count: raw.count, at: offset) } catch { return error }
      return nil
    }
    if let failure { throw failure }
  }

  private typealias CopyFileRange =
    @convention(c) (Int32, UnsafeMutablePointer<off_t>?, Int32, UnsafeMutablePointer<off_t>?, Int, UInt32) -> Int

  /// The module of the C library does not show this call.
  private static let copyFileRange = dlsym(nil, "copy_file_range").map { unsafeBitCast($0, to: CopyFileRange.self) }

  /// Copy bytes of another file without bringing them into this process; where the file system can, both files then share them.
  /// - Returns: false when the system cannot do that between these files; nothing may be written then, or a part.
  /// - Throws: as `read` and `write` do.
  public func copy(from source: File, _ range: Range<Int>, to offset: Int) throws(Failure) -> Bool {
    guard let copyFileRange = File.copyFileRange else { return false }
    var done = 0
    while done < range.count {
      var from = off_t(range.lowerBound + done)
      var to = off_t(offset + done)
      let part = retrying { copyFileRange(source.descriptor, &from, descriptor, &to, range.count - done, 0) }
      if part < 0 {
        // Other file systems, old kernels, files that overlap: plain reading and writing says more, or does it.
        guard ![EXDEV, ENOSYS, EOPNOTSUPP, EINVAL, EPERM, EBADF, ETXTBSY].contains(errno) else { return false }
        throw systemFailure("copy from \(source.path) to", path)
      }
      // Zero at once is also what some network file systems say that cannot.
      if part == 0 { return false }
      done += part
    }
    return true
  }

  /// Set the size; the file system may leave holes.
  public func truncate(to size: Int) throws(Failure) {
    guard retrying({ ftruncate(descriptor, off_t(size)) }) == 0 else { throw systemFailure("resize", path) }
  }

  /// Ask the kernel to fetch a range, without waiting for it. Advice only: failures are ignored.
  public func prefetch(_ range: Range<Int>) {
    _ = posix_fadvise(descriptor, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_WILLNEED)
  }

  /// Lock against whoever else opens it, without waiting. False when it is locked, or no longer what the path names. On a file system that
  /// knows no locks there is nothing to wait for, and the answer is true.
  public func tryLock() -> Bool {
    guard retrying({ flock(descriptor, LOCK_EX | LOCK_NB) }) == 0 else { return errno != EWOULDBLOCK }
    isLocked.store(true, ordering: .relaxed)
    return FileSystem.identity(path) == (try? identity())
  }

  /// (device, inode): equal for two paths of one file.
  public func identity() throws(Failure) -> FileIdentity {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw systemFailure("stat", path) }
    return FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
  }
}

/// What makes two paths the same file.
public struct FileIdentity: Hashable, Sendable {
  public let device: UInt64
  public let inode: UInt64
}

/// Repeat a system call that a signal interrupted.
func retrying<Value: BinaryInteger>(_ call: () -> Value) -> Value {
  while true {
    let value = call()
    if value != -1 || errno != EINTR { return value }
  }
}

/// The failure of the system call that just returned -1.
func systemFailure(_ verb: String, _ path: String) -> Failure {
  let code = errno
  let reason = String(cString: strerror(code))
  let status: Status = code == ENOENT ? .notFound : (code == EEXIST || code == ENOTEMPTY ? .exists : .file)
  return Failure(status, "cannot \(verb) \(path): \(reason)")
}
