import Platform
import Testing

@testable import Checkpoints

@Suite struct HubCacheTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private let commit = "0123456789abcdef0123456789abcdef01234567"
  private let other = "0123ffffffffffffffffffffffffffffffffffff"

  /// Put an empty snapshot into the cache.
  private func add(_ repository: String, _ commit: String, reference: String? = nil, text: String? = nil) throws {
    try FileSystem.makeFolder(folder("\(repository)/snapshots/\(commit)"))
    if let reference { try folder.write(text ?? commit, to: "\(repository)/refs/\(reference)") }
  }

  /// The commit whose folder is found.
  private func found(_ repository: String = "org/name", _ revision: String? = nil) throws -> String {
    let path = try HubCache.snapshot(of: repository, revision: revision, in: folder.path)
    #expect(FileSystem.kind(path) == .folder)
    #expect(path.hasPrefix(folder("models--") + repository.split(separator: "/").joined(separator: "--") + "/snapshots/"))
    return FileSystem.name(of: path)
  }

  private func expectRefused(
    _ revision: String?, _ words: String..., repository: String = "org/name", root: String?? = nil, status: Status = .notFound,
    at location: SourceLocation = #_sourceLocation
  ) {
    do throws(Failure) {
      let path = try HubCache.snapshot(of: repository, revision: revision, in: root ?? folder.path)
      Issue.record("found \(path)", sourceLocation: location)
    } catch {
      #expect(error.status == status, "\(error.message)", sourceLocation: location)
      for word in words { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
    }
  }

  // MARK: - The root

  @Test func theFirstVariableThatSaysSoCounts() {
    // In the order in which huggingface_hub looks at them.
    let ordered = [
      ("HF_HUB_CACHE", "/a", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b", "/b"), ("HF_HOME", "/c", "/c/hub"),
      ("XDG_CACHE_HOME", "/d/", "/d/huggingface/hub"), ("HOME", "/e", "/e/.cache/huggingface/hub"),
    ]
    for first in ordered.indices {
      for empty in [false, true] {
        // Those before it are not set, or empty, which is the same.
        let root = HubCache.root { name in
          guard let place = ordered.firstIndex(where: { $0.0 == name }) else { return nil }
          return place < first ? (empty ? "" : nil) : ordered[place].1
        }
        #expect(root == ordered[first].2)
      }
    }
    #expect(HubCache.root { _ in nil } == nil)
  }

  @Test func tildeIsTheHome() {
    func root(_ variables: [String: String]) -> String? { HubCache.root { variables[$0] } }
    #expect(root(["HF_HUB_CACHE": "~", "HOME": "/home/me"]) == "/home/me")
    #expect(root(["HF_HUB_CACHE": "~/x", "HOME": "/home/me"]) == "/home/me/x")
    #expect(root(["HF_HOME": "~/x", "HOME": "/home/me"]) == "/home/me/x/hub")
    #expect(root(["XDG_CACHE_HOME": "~/x", "HOME": "/home/me"]) == "/home/me/x/huggingface/hub")
    #expect(root(["HF_HUB_CACHE": "~other/x", "HOME": "/home/me"]) == "~other/x")
    #expect(root(["HF_HUB_CACHE": "~/x"]) == "~/x")
  }

  // MARK: - Repositories

  @Test func repositories() {
    for name in ["gpt2", "org/name", "org/na.me-1_x", "_a/b", "A/Z9", String(repeating: "a", count: 96)] {
      #expect(HubCache.isRepository(name), "\(name)")
    }
    let none = [
      "", "/", "/a", "a/", "a/b/c", "./a", "../a", "a/..", "a..b", "a/.b", "a--b", "a b", "-a", "a/-b", "~", "~/a", "ä", "aä",
      "a@b", "[a", "a\u{0}", "a\n", "a\\b", String(repeating: "a", count: 97),
    ]
    for name in none { #expect(!HubCache.isRepository(name), "\(name)") }
  }

  // MARK: - Revisions

  @Test func branchesTagsAndCommits() throws {
    try add("models--org--name", commit, reference: "main")
    try add("models--org--name", other, reference: "refs/pr/7")
    #expect(try found() == commit)
    #expect(try found("org/name", "main") == commit)
    #expect(try found("org/name", "refs/pr/7") == other)
    #expect(try found("org/name", commit) == commit)
    #expect(try found("org/name", other) == other)
  }

  @Test func repositoriesWithoutAnOrganisation() throws {
    try add("models--gpt2", commit, reference: "main")
    #expect(try found("gpt2") == commit)
    expectRefused(nil, "gpt2", "hf download gpt2'", repository: "gpt2", root: .some("/nonexistent"))
  }

  @Test func fourDigitsOfACommitAreEnoughWhereOneHasThem() throws {
    try add("models--org--name", commit)
    #expect(try found("org/name", "0123") == commit)
    expectRefused("012", "\"012\"", "hf download org/name --revision 012'")
    try add("models--org--name", other)
    expectRefused("0123", "\"0123\"", "2 commits", "org/name", "digits")
    #expect(try found("org/name", "01234") == commit)
    #expect(try found("org/name", "0123f") == other)
    expectRefused("123456789", "123456789")
    // The whole of one that also begins another.
    try add("models--org--name", commit + "0")
    #expect(try found("org/name", commit) == commit)
  }

  @Test func aReferenceMayEndWithANewline() throws {
    try add("models--org--name", commit, reference: "main", text: commit + "\n")
    #expect(try found() == commit)
  }

  @Test(arguments: ["", "\n", "../..", "/etc", ".", "..", "fedcba98", "0123456789abcdef\u{0}", "\u{7F}", "\u{E9}"])
  func aReferenceThatNamesNoSnapshot(_ text: String) throws {
    try add("models--org--name", commit, reference: "main", text: text)
    expectRefused(nil, "org/name", "\"main\"", folder.path, "hf download org/name'")
  }

  @Test func aReferenceOfAnyBytesAndAnyLength() throws {
    try add("models--org--name", commit)
    var generator = SeededGenerator(seed: 6)
    for _ in 0..<100 {
      let count = Int.random(in: 0...60, using: &generator)
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      try folder.write(bytes, to: "models--org--name/refs/main")
      expectRefused(nil, "\"main\"")
    }
    try folder.write([UInt8](repeating: 0x30, count: 4097), to: "models--org--name/refs/main")
    expectRefused(nil, folder("models--org--name/refs/main"), "4097", status: .format)
  }

  @Test(arguments: ["", ".", "..", "/", "/main", "main/", "../../etc", "main/..", "a//b", "a\u{0}b", "x/./y"])
  func revisionsThatLeaveTheirFolder(_ revision: String) throws {
    try add("models--org--name", commit, reference: "main")
    try folder.write(commit, to: "models--org--name/etc")
    expectRefused(revision, "cannot be a revision", "org/name", "branch")
  }

  // MARK: - What is not there

  @Test func whatIsMissingIsNamedWithTheCommandThatFetchesIt() throws {
    expectRefused(nil, "org/name", "no Hugging Face cache", "hf download org/name'", "stockpot[hub]", root: .some(nil))
    expectRefused("v1", "hf download org/name --revision v1'", root: .some("/nonexistent"))
    try folder.write("", to: "file")
    expectRefused(nil, "no Hugging Face cache", root: .some(folder("file")))
    expectRefused(nil, "org/name", folder.path, "hf download org/name'")
    try FileSystem.makeFolder(folder("models--org--name"))
    expectRefused("v1", "org/name", folder.path, "\"v1\"", "hf download org/name --revision v1'")
    try add("models--org--name", commit, reference: "main")
    expectRefused("v1", "\"v1\"")
    // A folder of branches is no branch.
    try add("models--org--name", commit, reference: "refs/pr/7")
    expectRefused("refs/pr", "\"refs/pr\"")
  }
}
