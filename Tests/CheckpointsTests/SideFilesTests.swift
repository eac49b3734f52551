import Platform
import Testing

@testable import Checkpoints

@Suite struct SideFilesTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  @Test func carriesWhatAModelNeeds() throws {
    let wanted = [
      "LICENSE", "LICENSE.md", "NOTICE.txt", "added_tokens.json", "additional_chat_templates/tool_use.jinja",
      "chat_template.jinja", "chat_template.json", "config.json", "config_sentence_transformers.json", "generation_config.json",
      "image_preprocessor_config.json", "merges.txt", "preprocessor_config.json", "processor_config.json",
      "sentence_bert_config.json", "sentencepiece.bpe.model", "source.spm", "special_tokens_map.json", "tokenizer.json",
      "tokenizer.model", "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json", "vocab.txt",
    ]
    for name in wanted { try folder.write("{}", to: name) }
    let side = try SideFiles(in: folder.path)
    #expect(side.carried == wanted)
    #expect(side.left.isEmpty)
  }

  @Test func carriesUnknownSmallJSON() throws {
    try folder.write("{}", to: "custom_settings.json")
    try folder.write("{}", to: "feature_extractor_config.json")
    try File(path: folder("huge.json"), mode: .create).truncate(to: 100_000_000)
    let side = try SideFiles(in: folder.path)
    #expect(side.carried == ["custom_settings.json", "feature_extractor_config.json"])
    #expect(side.left == ["huge.json"])
  }

  @Test func aNamedFileGoesAlongWhateverItsSize() throws {
    try File(path: folder("tokenizer.json"), mode: .create).truncate(to: 100_000_000)
    #expect(try SideFiles(in: folder.path).carried == ["tokenizer.json"])
  }

  @Test func leavesWeightsTrainingStatesAndCardsBehind() throws {
    let unwanted = [
      "README.md", "adapter_config.json", "all_results.json", "flax_model.msgpack", "merge_report.json", "mergekit_config.yml",
      "model-00001-of-00001.safetensors", "model.gguf", "model.safetensors.index.json", "optimizer.bin", "optimizer.pt",
      "optimizer_config.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "rng_state.pth", "rng_state_0.json",
      "scheduler.pt", "trainer_state.json", "training_args.bin", "x.ckpt",
    ]
    for name in unwanted { try folder.write("{}", to: name) }
    for name in [".git/config", ".gitattributes", ".cache/x.json", "checkpoint-500/config.json", "runs/log.json"] {
      try folder.write("{}", to: name)
    }
    let side = try SideFiles(in: folder.path)
    #expect(side.carried.isEmpty)
    #expect(side.left == (unwanted + ["checkpoint-500/", "runs/"]).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
  }

  @Test func weightsOfTheCheckpointAreNotCalledLeftBehind() throws {
    try folder.write(sound([("a", 1)]), to: "model.safetensors")
    try folder.write(sound([("a", 1)]), to: "other.safetensors")
    try folder.write("{}", to: "config.json")
    let side = try SideFiles(of: Checkpoint(path: folder.path))
    #expect(side.carried == ["config.json"])
    #expect(side.left == ["other.safetensors"])
    let single = try SideFiles(of: Checkpoint(path: folder("model.safetensors")))
    #expect(single.carried.isEmpty)
    #expect(single.left.isEmpty)
  }

  @Test func codeGoesAlongWhenAConfigNamesIt() throws {
    try folder.write("pass", to: "modeling_x.py")
    try folder.write("pass", to: "helpers.py")
    try folder.write("{}", to: "config.json")
    #expect(try SideFiles(in: folder.path).left == ["helpers.py", "modeling_x.py"])
    try folder.write(#"{"auto_map": {"AutoModel": "modeling_x.XModel"}}"#, to: "config.json")
    #expect(try SideFiles(in: folder.path).carried == ["config.json", "helpers.py", "modeling_x.py"])
    try folder.write("{}", to: "config.json")
    try folder.write(#"{"auto_map": {"AutoTokenizer": ["x.T", null]}}"#, to: "tokenizer_config.json")
    #expect(try SideFiles(in: folder.path).carried == ["config.json", "helpers.py", "modeling_x.py", "tokenizer_config.json"])
    try folder.write("not JSON", to: "tokenizer_config.json")
    #expect(try SideFiles(in: folder.path).left == ["helpers.py", "modeling_x.py"])
  }

  @Test func modulesOfSentenceTransformersGoAlongWhole() throws {
    try folder.write(
      #"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "../outside"}, {"path": "/tmp"}, {"path": 3}, {}]"#,
      to: "modules.json")
    for name in ["1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/deep/x.txt", "3_Other/config.json"] {
      try folder.write("{}", to: name)
    }
    let side = try SideFiles(in: folder.path)
    #expect(side.carried == ["1_Pooling/config.json", "2_Dense/deep/x.txt", "2_Dense/model.safetensors", "modules.json"])
    #expect(side.left == ["3_Other/"])
  }

  @Test(arguments: ["..", ".", "../x", "/", "a/../..", "checkpoint-5", ".git", "1_Pooling/..", ""])
  func modulesCannotLeaveTheFolder(path: String) throws {
    try folder.write("secret", to: "x/secret.txt")
    try folder.write(#"[{"path": "\#(path)"}]"#, to: "model/modules.json")
    for name in ["1_Pooling/a.json", "checkpoint-5/a.json", ".git/a.json", "a/a.json"] {
      try folder.write("{}", to: "model/" + name)
    }
    #expect(try SideFiles(in: folder("model")).carried == ["modules.json"])
  }

  @Test func circularLinksEnd() throws {
    try folder.write(#"[{"path": "1_Pooling"}]"#, to: "modules.json")
    try folder.write("{}", to: "1_Pooling/config.json")
    try folder.link("1_Pooling/again", to: ".")
    try folder.link("1_Pooling/dangling.json", to: "nowhere")
    #expect(try SideFiles(in: folder.path).carried == ["1_Pooling/config.json", "modules.json"])
  }

  @Test func copiesFollowingLinks() throws {
    let text = String(repeating: "tokens ", count: 500_000)
    try folder.write(text, to: "blobs/1")
    try folder.link("snapshot/tokenizer.json", to: "../blobs/1")
    try folder.write("{}", to: "snapshot/config.json")
    try folder.write("", to: "snapshot/merges.txt")
    try folder.write("x", to: "snapshot/README.md")
    try folder.write("t", to: "snapshot/additional_chat_templates/a.jinja")
    let side = try SideFiles(in: folder("snapshot"))
    try side.copy(from: folder("snapshot"), to: folder("out"), except: ["config.json"])
    #expect(try FileSystem.list(folder("out")) == ["additional_chat_templates", "merges.txt", "tokenizer.json"])
    #expect(try FileSystem.read(folder("out/tokenizer.json")) == Array(text.utf8))
    #expect(try FileSystem.read(folder("out/additional_chat_templates/a.jinja")) == Array("t".utf8))
    try FileSystem.remove(folder("blobs"))
    #expect(try FileSystem.read(folder("out/tokenizer.json")).count == text.utf8.count)
  }

  @Test func aMissingFolderIsAnError() {
    expectFailure(.notFound, "nowhere") { () throws(Failure) in _ = try SideFiles(in: folder("nowhere")) }
  }

  @Test func realFolder() throws {
    let side = try SideFiles(of: Checkpoint(path: fixtures + "/goldens/models/inputs/a"))
    #expect(
      side.carried == [
        "config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
      ])
    #expect(side.left.isEmpty)
  }
}
