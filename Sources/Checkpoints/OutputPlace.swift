import Platform

/// Where an output appears: what may be there before, and how it gets there at the end.
public enum OutputPlace {
  /// - Parameters:
  ///   - isFile: is the output a single file?
  ///   - overwrite: may something be replaced? Only a checkpoint, a file or an empty folder ever is, so that a slip of the path
  ///     does not cost someone their files.
  /// - Throws: `.exists`.
  public static func check(_ path: String, isFile: Bool, overwrite: Bool) throws(Failure) {
    guard isPlainName(FileSystem.name(of: path)) else {
      throw Failure(.argument, "\(quoted(path)) is no name for a checkpoint: choose another path")
    }
    guard FileSystem.exists(path) else { return }
    guard overwrite else { throw Failure(.exists, "\(path) exists already: choose another path, or ask to overwrite it") }
    switch FileSystem.kind(path) {
    case .file where isFile, nil: break
    case .folder where !isFile:
      let names = try FileSystem.list(path)
      try checkAside(path)
      guard names.isEmpty || names.contains(where: { $0.hasSuffix(".safetensors") || $0 == "merge_report.json" }) else {
        throw Failure(.exists, "\(path) is a folder that holds no checkpoint and is not overwritten: choose another path")
      }
    default:
      throw Failure(.exists, "\(path) is not \(isFile ? "a file" : "a folder") and is not overwritten: choose another path")
    }
  }

  /// Where a folder stays until the one that takes its place is there.
  private static func aside(_ path: String) -> String { path + ".replaced" }

  private static func checkAside(_ path: String) throws(Failure) {
    guard !FileSystem.exists(aside(path)) else {
      throw Failure(.exists, "\(aside(path)) is in the way of overwriting \(path): move it away")
    }
  }

  /// Put what is at `partial` at `path`. A file takes the place of another by one rename; a folder cannot, so the old one
  /// steps aside first and comes back if that fails.
  public static func replace(_ path: String, by partial: String) throws(Failure) {
    guard FileSystem.exists(path), FileSystem.kind(path) != .file else {
      try FileSystem.rename(partial, to: path)
      return
    }
    let aside = aside(path)
    try checkAside(path)
    try FileSystem.rename(path, to: aside)
    do throws(Failure) {
      try FileSystem.rename(partial, to: path)
    } catch {
      try? FileSystem.rename(aside, to: path)
      throw error
    }
    try FileSystem.remove(aside)
  }
}
