import Glibc

/// Paths and folders: what is there, make, list, copy, rename, remove.
public enum FileSystem {
  public enum Kind { case file, folder, other }

  /// What a path names, links followed; nil when nothing is there.
  public static func kind(_ path: String) -> Kind? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    switch status.st_mode & S_IFMT {
    case S_IFREG: return .file
    case S_IFDIR: return .folder
    default: return .other
    }
  }

  /// True when something is there, a dangling link included.
  public static func exists(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0
  }

  public static func identity(_ path: String) -> FileIdentity? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    return FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
  }

  /// Names in a folder, sorted by their bytes; without "." and "..".
  public static func list(_ path: String) throws(Failure) -> [String] {
    guard let folder = opendir(path) else { throw systemFailure("list", path) }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
        tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// Make a folder, and its parents where they are missing.
  public static func makeFolder(_ path: String) throws(Failure) {
    if kind(path) == .folder { return }
    let parent = directory(of: path)
    if parent != path, kind(parent) == nil { try makeFolder(parent) }
    // Somebody else may have made it meanwhile; a file of that name is in the way.
    guard mkdir(path, 0o777) == 0 || (errno == EEXIST && kind(path) == .folder) else {
      throw kind(path) == nil
        ? systemFailure("make the folder", path) : Failure(.exists, "cannot make the folder \(path): a file has that name")
    }
  }

  public static func rename(_ old: String, to new: String) throws(Failure) {
    guard Glibc.rename(old, new) == 0 else { throw systemFailure("rename \(old) to", new) }
  }

  /// Remove a file, or a folder with all it holds; links are removed, not followed. Nothing there is no error.
  public static func remove(_ path: String) throws(Failure) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    if status.st_mode & S_IFMT == S_IFDIR {
      for name in try list(path) { try remove(path + "/" + name) }
      guard rmdir(path) == 0 || errno == ENOENT else { throw systemFailure("remove", path) }
    } else {
      guard unlink(path) == 0 || errno == ENOENT else { throw systemFailure("remove", path) }
    }
  }

  /// The whole of a small file (a config, an index, a tokenizer).
  public static func read(_ path: String) throws(Failure) -> [UInt8] {
    let file = try File(path: path, mode: .read)
    let size = try file.size()
    var bytes = [UInt8](repeating: 0, count: size)
    let failure: Failure? = bytes.withUnsafeMutableBytes { raw in
      guard let start = raw.baseAddress else { return nil }
      do throws(Failure) { try file.read(into: start, count: size, at: 0) } catch { return error }
      return nil
    }
    if let failure { throw failure }
    return bytes
  }

  public static func write(_ bytes: [UInt8], to path: String) throws(Failure) {
    let file = try File(path: path, mode: .create)
    try file.write(bytes, at: 0)
  }

  /// Write texts one after another.
  public static func write(_ texts: String..., to path: String) throws(Failure) {
    let file = try File(path: path, mode: .create)
    var end = 0
    for var text in texts {
      // Without a copy: a report may have tens of megabytes.
      let failure: Failure? = text.withUTF8 { bytes in
        guard let start = bytes.baseAddress else { return nil }
        do throws(Failure) { try file.write(start, count: bytes.count, at: end) } catch { return error }
        return nil
      }
      if let failure { throw failure }
      end += text.utf8.count
    }
  }

  /// Free bytes on the file system of the nearest folder that exists above `path`; nil when the system does not say.
  public static func freeBytes(near path: String) -> Int? {
    var folder = path
    while kind(folder) == nil {
      let parent = directory(of: folder)
      if parent == folder { return nil }
      folder = parent
    }
    var status = statvfs()
    guard statvfs(folder, &status) == 0 else { return nil }
    return Int(status.f_bavail) * Int(status.f_frsize)
  }

  /// The path with links and dots resolved; nil when it does not exist.
  public static func canonical(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// The folder a path lies in: "a/b" gives "a", "a" gives ".", "/" gives "/".
  public static func directory(of path: String) -> String {
    // By bytes: as characters, a slash and a combining mark after it would be one.
    let trimmed = Array(trimmingSlashes(path).utf8)
    guard let slash = trimmed.lastIndex(of: slash) else { return "." }
    let parent = trimmingSlashes(String(decoding: trimmed[..<slash], as: UTF8.self))
    return parent.isEmpty ? "/" : parent
  }

  /// The last component of a path: "a/b/" gives "b", "/" gives "".
  public static func name(of path: String) -> String {
    let trimmed = Array(trimmingSlashes(path).utf8)
    guard let slash = trimmed.lastIndex(of: slash) else { return String(decoding: trimmed, as: UTF8.self) }
    return String(decoding: trimmed[(slash + 1)...], as: UTF8.self)
  }

  /// Without slashes at the end; "/" stays.
  public static func trimmingSlashes(_ path: String) -> String {
    var bytes = Array(path.utf8)
    while bytes.count > 1, bytes.last == slash { bytes.removeLast() }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static let slash = UInt8(ascii: "/")
}

extension FileSystem {
  /// Size and time of the last change of a file, as text that differs when the file does; "" when it is not there.
  public static func stamp(_ path: String) -> String {
    var status = stat()
    guard stat(path, &status) == 0 else { return "" }
    return "\(path) \(status.st_size) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
  }
}

extension FileSystem {
  /// Do both paths name one existing thing, through links too?
  public static func isSame(_ a: String, _ b: String) -> Bool {
    guard let identity = identity(a) else { return false }
    return identity == FileSystem.identity(b)
  }

  /// Does the folder `outer` hold the existing `inner`, at any depth?
  public static func contains(_ outer: String, _ inner: String) -> Bool {
    guard let outer = canonical(outer), let inner = canonical(inner) else { return false }
    return inner.utf8.starts(with: (outer == "/" ? outer : outer + "/").utf8)
  }
}
