import JSON
import Platform
import Testing

@testable import Checkpoints

@Suite struct ModelReferenceTests {
  private func part(_ path: String, _ revision: String? = nil) -> ModelReference.Part { .init(path: path, revision: revision) }

  @Test func textForm() throws {
    #expect(try ModelReference("a/b") == ModelReference(model: part("a/b")))
    #expect(try ModelReference("a/b@v1") == ModelReference(model: part("a/b", "v1")))
    #expect(
      try ModelReference("a/b@v1+c/d@v2") == ModelReference(model: part("a/b", "v1"), adapter: part("c/d", "v2")))
    for bad in ["", "+x", "x+", "a@b@c", "a@", "@a", "a+b+c"] {
      expectFailure(.recipe) { () throws(Failure) in _ = try ModelReference(bad) }
    }
  }

  /// The longest path that exists decides where the adapter begins.
  @Test func pathsThatExistWin() throws {
    let folder = try TemporaryFolder()
    for name in ["a+b", "a@b", "c+d/e"] { try FileSystem.makeFolder(folder(name)) }
    #expect(try ModelReference(folder("a+b")).model.path == folder("a+b"))
    #expect(try ModelReference(folder("a@b")).model == part(folder("a@b")))
    let both = try ModelReference(folder("c+d/e") + "+" + folder("a@b"))
    #expect(both == ModelReference(model: part(folder("c+d/e")), adapter: part(folder("a@b"))))
    #expect(try ModelReference(both.text) == both)
  }

  /// Whatever the fields are, the text reads back as the same reference.
  @Test func textReadsBack() throws {
    let odd = ["a", "a+b", "a@b", "a/b", "{", "ä b"]
    for path in odd {
      for adapter in [nil] + odd.map({ Optional($0) }) {
        for revision in [nil, "v1", "refs/pr/1"] {
          for architecture in [nil, "Llama"] {
            let reference = ModelReference(
              model: part(path, revision), adapter: adapter.map { part($0, revision) }, architecture: architecture)
            #expect(try ModelReference(reference.text) == reference)
          }
        }
      }
    }
    #expect(ModelReference(model: part("a/b", "v"), adapter: part("c")).text == "a/b@v+c")
  }

  @Test func sameModel() throws {
    let folder = try TemporaryFolder()
    try FileSystem.makeFolder(folder("a"))
    try folder.link("link", to: folder("a"))
    let (plain, linked) = (try ModelReference(folder("a")), try ModelReference(folder("link")))
    #expect(plain != linked)
    #expect(plain.isSame(linked))
    let adapted = try ModelReference(folder("a") + "+" + folder("link"))
    #expect(!plain.isSame(adapted))
    #expect(adapted.isSame(try ModelReference(folder("link") + "+" + folder("a"))))
    #expect(!ModelReference(model: part("a", "v1")).isSame(ModelReference(model: part("a", "v2"))))
  }
}
