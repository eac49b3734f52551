import Checkpoints
import JSON
import MergeEngine
import Platform
import Synchronization
import TensorKernels
import Testing

@Suite struct JobTests {
  static let methods: [(String, JSON)] = [
    ("linear", [:]), ("task_arithmetic", ["lambda": 0.5]), ("model_stock", [:]), ("model_stock", ["granularity": "row"]),
    ("yoyo_scale", [:]), ("geometric_median", [:]), ("geometric_median", ["start": "median"]), ("yoyo_fusion", [:]),
    ("yoyo_fusion", ["use_geometric_median": false]), ("yoyo_scale", ["scope": "model"]), ("model_stock", ["scope": "layer"]),
    ("ties", ["density": 0.5]), ("ties", ["compat": "ties_merging", "density": 0.2]), ("dare_ties", ["density": 0.5]),
    ("tsd_v2", ["trim_density": 0.5]), ("tgmd", ["drop": "della"]), ("multislerp", [:]), ("karcher", [:]),
    ("breadcrumbs", ["density": 0.5, "gamma": 0.1]), ("sce", ["select_topk": 0.5]), ("della", ["density": 0.5]),
  ]

  @Test(arguments: methods.indices, [DType.f32, .bf16])
  func sameBytesForAnyThreadsShardsAndMemory(method: Int, dtype: DType) throws {
    let family = try Family(dtype: dtype)
    let sharded = try Family(dtype: dtype, shardSize: 20_000)
    let (name, parameters) = Self.methods[method]
    try family.merge(family.recipe(name, parameters), to: "one") { $0.threads = 1 }
    let names = try Checkpoint(path: family.folder("one")).tensors.map(\.name)
    for (number, threads) in [2, 7].enumerated() {
      try family.merge(family.recipe(name, parameters), to: "threads-\(number)") { $0.threads = threads }
    }
    for (number, size) in [3000, 40_000].enumerated() {
      try family.merge(family.recipe(name, parameters), to: "shards-\(number)") { $0.shardSize = size }
    }
    // Thresholds and ranks are found with histograms of 512 KiB per model.
    // Breadcrumbs has two per model.
    let little =
      name == "breadcrumbs" ? 12_000_000 : ["ties", "tsd_v2", "tgmd", "sce", "della"].contains(name) ? 8_000_000 : 600_000
    try family.merge(family.recipe(name, parameters), to: "little-memory") { ($0.threads, $0.maxMemory) = (2, little) }
    try sharded.merge(sharded.recipe(name, parameters), to: "from-shards")
    for tensor in names {
      let expected = try bytes(of: tensor, in: family.folder("one"))
      for other in ["threads-0", "threads-1", "shards-0", "shards-1", "little-memory"] {
        #expect(try bytes(of: tensor, in: family.folder(other)) == expected, "\(tensor) of \(other)")
      }
      #expect(try bytes(of: tensor, in: sharded.folder("from-shards")) == expected, "\(tensor) from shards")
    }
  }

  @Test func linearIsTheMean() throws {
    let family = try Family()
    try family.merge(family.recipe("linear"), to: "out")
    let merged = try floats(of: "layers.0.w", in: family.folder("out"))
    var expected = [Double](repeating: 0, count: merged.count)
    for model in 0..<3 {
      for (i, value) in try floats(of: "layers.0.w", in: family.folder("model-\(model)")).enumerated() {
        expected[i] += Double(value) / 3
      }
    }
    // One rounding to binary32 of a sum in binary64.
    for (got, want) in zip(merged, expected) { #expect((Double(got) - want).magnitude <= want.magnitude * 0x1p-24 + 1e-15) }
  }

  @Test func everyTensorOfTheBaseReachesTheOutput() throws {
    let family = try Family()
    try family.merge(family.recipe("model_stock"), to: "out")
    let base = try Checkpoint(path: family.folder("base"))
    let out = try Checkpoint(path: family.folder("out"))
    #expect(base.tensors.map(\.name) == out.tensors.map(\.name))
    #expect(base.tensors.map(\.dtype) == out.tensors.map(\.dtype))
    #expect(try bytes(of: "ids", in: family.folder("out")) == bytes(of: "ids", in: family.folder("base")))
  }

  @Test func outputTypeIsChosenByTheRecipe() throws {
    let family = try Family()
    try family.merge(family.recipe("linear", adding: [.init(key: "dtype", value: "bfloat16")]), to: "bf16")
    let both = family.recipe(
      "linear", adding: [.init(key: "dtype", value: "bfloat16"), .init(key: "out_dtype", value: "float16")])
    try family.merge(both, to: "f16")
    #expect(try Checkpoint(path: family.folder("bf16")).tensor(named: "layers.0.w")?.dtype == .bf16)
    #expect(try Checkpoint(path: family.folder("f16")).tensor(named: "layers.0.w")?.dtype == .f16)
    #expect(try Checkpoint(path: family.folder("f16")).tensor(named: "ids")?.dtype == .i64)
  }

  @Test func taskVectorPlusBaseIsTheMerge() throws {
    let family = try Family()
    try family.merge(family.recipe("yoyo_scale"), to: "weights")
    try family.merge(family.recipe("yoyo_scale", ["output": "task_vector"]), to: "vector")
    let base = try floats(of: "layers.1.w", in: family.folder("base"))
    let vector = try floats(of: "layers.1.w", in: family.folder("vector"))
    let weights = try floats(of: "layers.1.w", in: family.folder("weights"))
    // Two roundings to binary32.
    for i in base.indices { #expect((base[i] + vector[i] - weights[i]).magnitude <= 2 * weights[i].magnitude * 0x1p-24 + 1e-9) }
  }

  @Test(arguments: ["out", "out.safetensors"]) func aSecondMergeToAPlaceLeavesTheFirstAlone(name: String) throws {
    let family = try Family()
    let recipe = family.recipe("linear")
    let first = try Job(recipe: recipe, outputPath: family.folder(name), options: JobOptions())
    let second = try Job(recipe: recipe, outputPath: family.folder(name), options: JobOptions())
    let refusals = Mutex<[Status]>([])
    try first.run {
      refusals.withLock { refusals in
        guard refusals.isEmpty else { return }
        do throws(Failure) { try second.run() } catch { refusals.append(error.status) }
      }
    }
    #expect(refusals.withLock { $0 } == [.exists])
    try family.merge(recipe, to: "alone")
    for tensor in ["embed.weight", "layers.0.w", "scale"] {
      #expect(try bytes(of: tensor, in: family.folder(name)) == bytes(of: tensor, in: family.folder("alone")))
    }
    #expect(!FileSystem.exists(family.folder(name + ".partial")) && !FileSystem.exists(family.folder("out/stockpot.journal")))
  }

  @Test func aSingleFileCarriesItsRecipe() throws {
    let family = try Family()
    try family.merge(family.recipe("linear"), to: "out.safetensors")
    let checkpoint = try Checkpoint(path: family.folder("out.safetensors"))
    #expect(checkpoint.metadata.contains { $0.key == "stockpot.recipe" && $0.value.contains("linear") })
    #expect(FileSystem.exists(family.folder("out.merge_report.json")))
    #expect(FileSystem.exists(family.folder("out.merge_report.csv")))
    #expect(!FileSystem.exists(family.folder("out.safetensors.partial")))
  }

  @Test func theReportSaysWhatWasDecided() throws {
    let family = try Family()
    let job = try family.merge(family.recipe("yoyo_scale"), to: "out")
    let report = try JSON.parse(Array(job.reportText!.utf8), source: "report")
    #expect(report["summary"]?["tensors"]?.int == 6)
    #expect(report["summary"]?["copied"]?.int == 1)
    let tensor = report["tensors"]?.array?.first { $0["name"]?.string == "layers.0.w" }
    #expect(tensor?["decision"]?["lambdas"]?.array?.count == 3)
    let lines = String(decoding: try FileSystem.read(family.folder("out/yoyo_scale.csv")), as: UTF8.self).split(separator: "\n")
    #expect(lines[0] == "tensor_name,model_0_lambda,model_1_lambda,model_2_lambda")
    #expect(lines.contains("ids,nan,nan,nan"))
    #expect(FileSystem.exists(family.folder("out/README.md")))
  }

  // MARK: - Output paths

  @Test func anExistingOutputIsReplacedOnlyWhenAskedAndOnlyBySuccess() throws {
    let family = try Family()
    try family.merge(family.recipe("linear"), to: "out")
    let first = try bytes(of: "layers.0.w", in: family.folder("out"))
    #expect(throws: Failure.self) { try family.merge(family.recipe("yoyo_scale"), to: "out") }
    let broken = family.recipe("yoyo_scale", ["solver": "unknown"])
    #expect(throws: Failure.self) { try family.merge(broken, to: "out") { $0.overwrite = true } }
    #expect(try bytes(of: "layers.0.w", in: family.folder("out")) == first)
    try family.merge(family.recipe("yoyo_scale"), to: "out") { $0.overwrite = true }
    #expect(try bytes(of: "layers.0.w", in: family.folder("out")) != first)
    #expect(!FileSystem.exists(family.folder("out.replaced")))
  }

  @Test(arguments: ["base", "base/", "."])
  func anInputIsNeverTheOutput(output: String) throws {
    let family = try Family()
    let failure = #expect(throws: Failure.self) {
      try family.merge(family.recipe("linear"), to: output) { $0.overwrite = true }
    }
    #expect(failure?.status == .exists)
    #expect(try Checkpoint(path: family.folder("base")).tensors.count == 6)
  }

  // MARK: - Cancelling and resuming

  @Test func aCancelledMergeLeavesNothingAndCanBeResumed() throws {
    let family = try Family()
    try family.merge(family.recipe("yoyo_scale"), to: "whole")
    var options = JobOptions()
    options.threads = 1
    let job = try Job(recipe: family.recipe("yoyo_scale"), outputPath: family.folder("out"), options: options)
    let failure = #expect(throws: Failure.self) {
      try job.run { if job.control.tensorsDone >= 2 { job.control.cancel() } }
    }
    #expect(failure?.status == .cancelled)
    #expect(!FileSystem.exists(family.folder("out")))
    #expect(FileSystem.exists(family.folder("out.partial")))
    options.resume = true
    let again = try Job(recipe: family.recipe("yoyo_scale"), outputPath: family.folder("out"), options: options)
    try again.run()
    let report = try JSON.parse(Array(again.reportText!.utf8), source: "report")
    #expect(report["resumed"]?.bool == true)
    for name in ["embed.weight", "layers.0.w", "scale", "ids"] {
      #expect(try bytes(of: name, in: family.folder("out")) == bytes(of: name, in: family.folder("whole")))
    }
    let lambdas = try FileSystem.read(family.folder("out/yoyo_scale.csv"))
    #expect(try lambdas == FileSystem.read(family.folder("whole/yoyo_scale.csv")))
  }

  @Test func anotherRecipeStartsAnew() throws {
    let family = try Family()
    var options = JobOptions()
    options.threads = 1
    let job = try Job(recipe: family.recipe("linear"), outputPath: family.folder("out"), options: options)
    #expect(throws: Failure.self) { try job.run { if job.control.tensorsDone >= 2 { job.control.cancel() } } }
    try family.merge(family.recipe("yoyo_scale"), to: "whole")
    try family.merge(family.recipe("yoyo_scale"), to: "out") { $0.resume = true }
    #expect(try bytes(of: "embed.weight", in: family.folder("out")) == bytes(of: "embed.weight", in: family.folder("whole")))
  }

  @Test func aFailureLeavesNothing() throws {
    let family = try Family(models: 2)
    var values = try floats(of: "layers.1.w", in: family.folder("model-1"))
    values[40] = .nan
    let others = [("embed.weight", Family.large), ("layers.0.w", [17, 33]), ("layers.0.b", [33])].map { name, shape in
      Stored(name: name, shape: shape, values: [Float](repeating: 1, count: shape.reduce(1, *)))
    }
    try FileSystem.remove(family.folder("model-1"))
    try write(
      others + [
        Stored(name: "layers.1.w", shape: [17, 33], values: values), Stored(name: "scale", shape: [], values: [1]),
        Stored(name: "ids", shape: [3], values: [1, 2, 3], dtype: .i64),
      ], to: family.folder("model-1"))
    let failure = #expect(throws: Failure.self) { try family.merge(family.recipe("model_stock"), to: "out") }
    #expect(failure?.status == .nonFinite)
    #expect(failure?.message.contains("layers.1.w") == true)
    #expect(failure?.message.contains("element 40") == true)
    #expect(failure?.message.contains("model-1") == true)
    #expect(!FileSystem.exists(family.folder("out")) && !FileSystem.exists(family.folder("out.partial")))
    let job = try family.merge(family.recipe("model_stock", ["on_non_finite": "warn"]), to: "warned")
    #expect(job.reportText!.contains("not finite"))
    #expect(try bytes(of: "layers.1.w", in: family.folder("warned")) == bytes(of: "layers.1.w", in: family.folder("base")))
  }
}
