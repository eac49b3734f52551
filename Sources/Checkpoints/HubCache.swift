import Platform

/// The local cache of huggingface_hub, read only: what has been fetched before can be merged without it.
///
///     <root>/models--org--name/refs/<branch or tag>      the commit, as text
///     <root>/models--org--name/snapshots/<commit>/       the files
///
/// The root is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
enum HubCache {
  /// The folder that holds the repositories; nil where the environment does not say.
  /// - Parameter variable: of the environment; nil where it is not set.
  static func root(_ variable: (String) -> String? = Machine.environment) -> String? {
    func expanded(_ path: String) -> String {
      guard path == "~" || path.hasPrefix("~/"), let home = variable("HOME") else { return path }
      return home + path.dropFirst()
    }
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
      if let path = variable(name), !path.isEmpty { return expanded(path) }
    }
    if let home = variable("HF_HOME"), !home.isEmpty { return joined(expanded(home), "hub") }
    if let cache = variable("XDG_CACHE_HOME"), !cache.isEmpty { return joined(expanded(cache), "huggingface/hub") }
    return variable("HOME").map { joined($0, ".cache/huggingface/hub") }
  }

  /// Can it be the name of a repository, `name` or `org/name`?
  static func isRepository(_ name: String) -> Bool {
    let parts = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), name.utf8.count <= 96, !name.contains("--"), !name.contains("..") else { return false }
    return parts.allSatisfy { part in
      guard let first = part.first, isLetterOrDigit(first) || first == UInt8(ascii: "_") else { return false }
      return part.allSatisfy { isLetterOrDigit($0) || "._-".utf8.contains($0) }
    }
  }

  private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
  }

  /// The folder with the files of a revision: a branch or tag that was fetched, or a commit, of which the first digits are enough.
  /// - Throws: `.notFound`, with the command that fetches it.
  static func snapshot(of repository: String, revision: String?, in root: String? = root()) throws(Failure) -> String {
    let wanted = revision ?? "main"
    let fetch =
      "fetch it with 'hf download \(repository)\(revision.map { " --revision " + $0 } ?? "")', install stockpot[hub] so that it is "
      + "fetched by itself, or give the path of a folder"
    guard let root, FileSystem.kind(root) == .folder else {
      throw Failure(.notFound, "\(repository) is no folder here, and there is no Hugging Face cache: \(fetch)")
    }
    let folder = joined(root, "models--" + repository.split(separator: "/").joined(separator: "--"))
    guard FileSystem.kind(folder) == .folder else {
      throw Failure(.notFound, "\(repository) is neither a folder here nor in the Hugging Face cache \(root): \(fetch)")
    }
    let snapshots = joined(folder, "snapshots")
    let parts = wanted.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard parts.allSatisfy(isPlainName) else {
      throw Failure(.notFound, "\(quoted(wanted)) cannot be a revision of \(repository): give a branch, tag or commit")
    }
    let reference = joined(folder, "refs/" + wanted)
    if FileSystem.kind(reference) == .file {
      let bytes = try readSmallFile(reference, limit: 4096)
      let commit = String(decoding: bytes.prefix { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
      if isPlainName(commit), FileSystem.kind(joined(snapshots, commit)) == .folder { return joined(snapshots, commit) }
    }
    let commits = (try? FileSystem.list(snapshots)) ?? []
    if parts.count == 1, commits.contains(wanted) { return joined(snapshots, wanted) }
    let matches = commits.filter { wanted.utf8.count >= 4 && $0.utf8.starts(with: wanted.utf8) }
    if matches.count == 1 { return joined(snapshots, matches[0]) }
    if matches.count > 1 {
      throw Failure(
        .notFound, "\(quoted(wanted)) begins \(matches.count) commits of \(repository) in \(snapshots): give more of its digits"
      )
    }
    throw Failure(
      .notFound, "the Hugging Face cache \(root) has \(repository), but not its revision \(quoted(wanted)): \(fetch)")
  }
}
