import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

@Suite struct ArtifactsTests {
  private static let names = ["embed.weight", "layers.0.w", "layers.0.b", "layers.1.w", "scale"]

  /// Keeps what a method in memory makes.
  private final class Store: ArtifactSink, @unchecked Sendable {
    // @unchecked: blocks are disjoint.
    let dtype = DType.f32
    let failure: Failure? = nil
    let memory: [UnsafeMutablePointer<UInt8>]
    let size: Int

    init(models: Int, size: Int) {
      self.size = size
      memory = (0..<models).map { _ in
        let place = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, size))
        place.initialize(repeating: 0xA5, count: size)
        return place
      }
    }

    deinit { for place in memory { place.deallocate() } }

    func write(_ bytes: UnsafeRawPointer, count: Int, artifact index: Int, at offset: Int) {
      UnsafeMutableRawPointer(memory[index] + offset).copyMemory(from: bytes, byteCount: count)
    }

    var bytes: [[UInt8]] { memory.map { Array(UnsafeBufferPointer(start: $0, count: size)) } }
  }

  /// The masks that MemoryMerge makes of one tensor of a family.
  private func inMemory(_ family: Family, _ name: String, _ parameters: JSON) throws -> [[UInt8]] {
    let base = try floats(of: name, in: family.folder("base"))
    let models = try (0..<family.models).map { try floats(of: name, in: family.folder("model-\($0)")) }
    let store = Store(models: models.count, size: (base.count + 7) / 8)
    let buffers = ([base] + models).map { row -> UnsafeMutableRawPointer in
      let buffer = UnsafeMutableRawPointer.allocate(byteCount: max(4, row.count * 4), alignment: 64)
      row.withUnsafeBytes { buffer.copyMemory(from: $0.baseAddress!, byteCount: row.count * 4) }
      return buffer
    }
    defer { for buffer in buffers { buffer.deallocate() } }
    let tensors = buffers.map { MemoryTensor(data: UnsafeRawPointer($0), dtype: .f32) }
    let method = try Registry.make(try Registry.method(named: "tall_mask"), parameters.members!)
    _ = try MemoryMerge(method, policy: .error, threads: 2).run(
      models: Array(tensors[1...]), base: tensors[0], into: nil, .f32, shape: [base.count], name: name, artifacts: store)
    return store.bytes
  }

  @Test func aFolderPerModelBesideTheMergedOne() throws {
    let family = try Family()
    try family.merge(family.recipe("tall_mask", ["lambda": 0.5]), to: "out")
    let merged = try Checkpoint(path: family.folder("out/merged"))
    #expect(Set(merged.tensors.map(\.name)) == Set(Self.names + ["ids"]))
    #expect(
      Set(try FileSystem.list(family.folder("out"))).isSuperset(of: ["merged", "masks", "merge_report.json", "README.md"]))
    #expect(try Set(FileSystem.list(family.folder("out/masks"))) == ["model-0", "model-1", "model-2"])
    for model in 0..<3 {
      let masks = try Checkpoint(path: family.folder("out/masks/model-\(model)"))
      // Integers are copied, and have no mask.
      #expect(Set(masks.tensors.map(\.name)) == Set(Self.names))
      for record in masks.tensors {
        let count = merged.tensor(named: record.name)!.shape.reduce(1, *)
        #expect(record.dtype == .u8 && record.shape == [(count + 7) / 8], "\(record.name)")
      }
      let notes = Dictionary(uniqueKeysWithValues: masks.metadata.map { ($0.key, $0.value) })
      #expect(notes["stockpot.format"] == "tall_mask" && notes["stockpot.version"] == "1")
      #expect(notes["stockpot.method"] == "tall_mask" && notes["stockpot.lambda"] == "0.5")
      #expect(notes["stockpot.base"] == family.folder("base") && notes["stockpot.model"] == family.folder("model-\(model)"))
    }
  }

  @Test(arguments: [[:], ["tall_mask_lambda": 0.7]] as [JSON]) func bitsAreThoseOfMemory(settings: JSON) throws {
    let family = try Family()
    for (number, threads) in [1, 4].enumerated() {
      try family.merge(family.recipe("tall_mask", settings), to: "out-\(number)") { $0.threads = threads }
      for name in Self.names {
        let expected = try inMemory(family, name, settings)
        for model in 0..<3 {
          let found = try bytes(of: name, in: family.folder("out-\(number)/masks/model-\(model)"))
          #expect(found == expected[model], "\(name) of model \(model), \(threads) threads")
        }
      }
    }
  }

  @Test func bytesDoNotDependOnThreadsShardsOrMemory() throws {
    let family = try Family(dtype: .bf16)
    let recipe = family.recipe("tall_mask", ["use_ties": true, "density": 0.3])
    try family.merge(recipe, to: "one") { $0.threads = 1 }
    try family.merge(recipe, to: "five") { $0.threads = 5 }
    try family.merge(recipe, to: "shards") { ($0.threads, $0.shardSize) = (3, 3000) }
    for name in Self.names {
      for place in ["merged", "masks/model-0", "masks/model-1", "masks/model-2"] {
        let expected = try bytes(of: name, in: family.folder("one/\(place)"))
        for other in ["five", "shards"] {
          #expect(try bytes(of: name, in: family.folder("\(other)/\(place)")) == expected, "\(name) of \(other)/\(place)")
        }
      }
    }
  }

  // MARK: - Names of folders

  private func names(_ paths: [String]) throws -> [String] {
    let artifacts = paths.indices.map { Artifact(collection: "masks", model: $0, dtype: .u8, shape: [1]) }
    let made = try ArtifactCheckpoints(
      wanted: [(name: "w", artifacts: artifacts, models: Array(paths.indices))], inputs: paths, shardSize: 1 << 20,
      metadata: { _ in [] })
    #expect(made.entries.map(\.input) == Array(paths.indices) && made.totalBytes == paths.count)
    #expect(made.places.count == 1 && made.places[0].map(\.entry) == Array(paths.indices))
    #expect(made.places[0].allSatisfy { $0.slot == 0 })
    return made.entries.map(\.folder)
  }

  @Test func foldersAreNamedByTheModelsAndNumberedWhereTheyAreEqual() throws {
    #expect(try names(["/a/x", "b/y/", "z.safetensors"]) == ["masks/x", "masks/y", "masks/z"])
    #expect(try names(["a/m", "b/m", "c/m.safetensors"]) == ["masks/m", "masks/m-2", "masks/m-3"])
  }

  @Test(arguments: [
    ["a/m", "b/m", "c/m-2"], ["c/m-2", "a/m", "b/m"], ["a/m-2", "b/m", "c/m", "d/m-2"],
  ]) func aNumberedNameIsNotTakenTwice(paths: [String]) throws {
    let names = try names(paths)
    #expect(Set(names).count == paths.count, "\(names)")
  }

  @Test(arguments: ["tuned/.", "tuned/sub/..", ".", "..", "/"]) func aFolderHasAName(path: String) throws {
    // "masks/." would be the folder of all masks, "masks/.." the output itself.
    let name = try names([path])[0]
    #expect(name.hasPrefix("masks/") && !["", ".", "..", "/"].contains(String(name.dropFirst(6))), "\(name)")
  }

  @Test func modelsOfOneNameHaveAFolderEach() throws {
    let family = try Family(models: 2)
    try FileSystem.makeFolder(family.folder("other"))
    try FileSystem.rename(family.folder("model-1"), to: family.folder("other/model-0"))
    let list: JSON = [["model": .string(family.folder("model-0"))], ["model": .string(family.folder("other/model-0"))]]
    let recipe: JSON = ["merge_method": "tall_mask", "base_model": .string(family.folder("base")), "models": list]
    try family.merge(recipe, to: "out")
    #expect(try Set(FileSystem.list(family.folder("out/masks"))) == ["model-0", "model-0-2"])
    let second = try Checkpoint(path: family.folder("out/masks/model-0-2"))
    #expect(second.metadata.contains { $0.key == "stockpot.model" && $0.value == family.folder("other/model-0") })
  }

  // MARK: - Output

  @Test func severalCheckpointsNeedAFolder() throws {
    let family = try Family()
    let failure = #expect(throws: Failure.self) { try family.merge(family.recipe("tall_mask"), to: "out.safetensors") }
    #expect(failure?.status == .argument && failure?.message.contains("tall_mask") == true)
    #expect(failure?.message.contains("folder") == true)
  }

  @Test(arguments: [false, true]) func aResumedMergeHasTheSameBytes(usesTies: Bool) throws {
    let family = try Family()
    let recipe = family.recipe("tall_mask", ["use_ties": .bool(usesTies), "scope": "tensor"])
    try family.merge(recipe, to: "whole")
    var options = JobOptions()
    options.threads = 1
    let job = try Job(recipe: recipe, outputPath: family.folder("out"), options: options)
    let failure = #expect(throws: Failure.self) {
      try job.run { if job.control.tensorsDone >= 3 { job.control.cancel() } }
    }
    #expect(failure?.status == .cancelled && FileSystem.exists(family.folder("out.partial/masks/model-2")))
    options.resume = true
    let again = try Job(recipe: recipe, outputPath: family.folder("out"), options: options)
    try again.run()
    #expect(try JSON.parse(Array(again.reportText!.utf8), source: "report")["resumed"] == true)
    for place in ["merged", "masks/model-0", "masks/model-1", "masks/model-2"] {
      for file in try FileSystem.list(family.folder("whole/\(place)")) where file.hasSuffix(".safetensors") {
        let expected = try FileSystem.read(family.folder("whole/\(place)/\(file)"))
        #expect(try FileSystem.read(family.folder("out/\(place)/\(file)")) == expected, "\(place)/\(file)")
      }
    }
  }

  @Test func aWriteThatFailsIsKeptAndTheFirstOneReported() throws {
    let folder = TemporaryFolder()
    try FileSystem.write("abc", to: folder("file"))
    let file = try File(path: folder("file"), mode: .read)
    let sink = TensorArtifacts(dtype: .f32, targets: [(file: file, offset: 0, byteCount: 3)])
    #expect(sink.failure == nil)
    sink.write([1, 2, 3] as [UInt8], count: 3, artifact: 0, at: 0)
    #expect(sink.failure?.message.contains(folder("file")) == true)
    #expect(try FileSystem.read(folder("file")) == Array("abc".utf8))
  }
}
