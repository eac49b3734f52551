import JSON
import Platform
import Testing

@testable import MergeEngine

@Suite struct TokenizerFilesTests {
  private func write(_ text: String, _ path: String) throws { try FileSystem.write(text, to: path) }
  private func read(_ path: String) throws -> String { String(decoding: try FileSystem.read(path), as: UTF8.self) }

  @Test func givenFilesTakeThePlaceOfTheDonorsTokenizer() throws {
    let family = try Family(models: 1)
    try write("{}", family.folder("base") + "/config.json")
    try write("old", family.folder("base") + "/tokenizer.json")
    try write("old", family.folder("base") + "/merges.txt")
    try write("{}", family.folder("base") + "/generation_config.json")
    try FileSystem.makeFolder(family.folder("files"))
    try write("new", family.folder("files") + "/tokenizer.json")
    let vocabulary: JSON = ["size": .int(Family.large[0]), "files": .string(family.folder("files"))]
    let recipe = family.recipe(
      "linear", adding: [.init(key: "vocabulary", value: vocabulary), .init(key: "chat_template", value: "chatml")])
    let job = try family.merge(recipe, to: "out")
    #expect(try read(family.folder("out") + "/tokenizer.json") == "new")
    #expect(try read(family.folder("out") + "/chat_template.jinja").contains("<|im_start|>"))
    #expect(FileSystem.kind(family.folder("out") + "/generation_config.json") == .file)
    #expect(FileSystem.kind(family.folder("out") + "/merges.txt") == nil)
    let sides = try JSON.parse(job.planText, source: "plan")["side_files"]
    #expect(sides?["written"]?.array == ["tokenizer.json", "chat_template.jinja"])
    #expect(sides?["left"]?.array == ["merges.txt", "tokenizer.json"])
  }

  @Test func aFolderIsNeeded() throws {
    let family = try Family(models: 1)
    let vocabulary: JSON = ["size": .int(Family.large[0]), "files": .string(family.folder("none"))]
    let recipe = family.recipe("linear", adding: [.init(key: "vocabulary", value: vocabulary)])
    let failure = #expect(throws: Failure.self) { try Job(recipe: recipe, outputPath: nil, options: JobOptions()) }
    #expect(failure?.status == .notFound)
  }
}
