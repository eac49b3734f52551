import Glibc

/// What this process may use of the machine, and the clock.
public enum Machine {
  /// CPUs that this process may run on: its affinity mask, cut to the cgroup's quota.
  public static func usableCPUs() -> Int {
    var count = affinityCount() ?? 0
    // A guest's mask may name CPUs that it does not have.
    let online = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    count = count < 1 ? online : min(count, online)
    if let quota = cgroupQuota() { count = min(count, max(1, quota)) }
    return count
  }

  /// CPUs in the affinity mask: the bits of Cpus_allowed, whose system call is not visible from Swift.
  private static func affinityCount() -> Int? {
    guard let bytes = try? FileSystem.readPseudoFile("/proc/self/status") else { return nil }
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    guard let mask = lines.first(where: { $0.hasPrefix("Cpus_allowed:") })?.split(separator: "\t").last else { return nil }
    return mask.reduce(0) { $0 + ($1.hexDigitValue?.nonzeroBitCount ?? 0) }
  }

  /// Whole CPUs of the cgroup v2 quota, rounded up; nil when there is none.
  private static func cgroupQuota() -> Int? {
    guard let bytes = try? FileSystem.readPseudoFile("/sys/fs/cgroup/cpu.max") else { return nil }
    let words = String(decoding: bytes, as: UTF8.self).split(whereSeparator: { $0 == " " || $0 == "\n" })
    guard words.count == 2, let quota = Double(words[0]), let period = Double(words[1]), period > 0 else { return nil }
    return Int((quota / period).rounded(.up))
  }

  /// Give the system back what has been freed: of headers of tens of thousands of tensors, megabytes.
  public static func trimMemory() {
    // glibc's own, which its module does not declare; other systems have none.
    guard let symbol = dlsym(nil, "malloc_trim") else { return }
    _ = unsafeBitCast(symbol, to: (@convention(c) (Int) -> Int32).self)(0)
  }

  /// A variable of the environment; nil where it is not set.
  public static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

  /// Seconds on a clock that never goes back.
  public static func seconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  /// The date and time in UTC, as 2026-01-31T12:00:00Z.
  public static func timestamp() -> String {
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    var text = [CChar](repeating: 0, count: 32)
    let length = strftime(&text, text.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
    return String(decoding: text[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

extension FileSystem {
  /// A file of /proc or /sys, whose size the system gives as 0; the first 16 KiB.
  static func readPseudoFile(_ path: String) throws(Failure) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw systemFailure("open", path) }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 16384)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    return count > 0 ? Array(bytes[..<count]) : []
  }
}
