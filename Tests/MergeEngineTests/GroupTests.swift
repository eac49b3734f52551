import Checkpoints
import Glibc
import JSON
import MergeEngine
import Platform
import TensorKernels
import Testing

/// Tensors that are ranked and counted as one: several stages of a group, one after the other.
@Suite struct GroupTests {
  /// A base of zeros and models of quarters, cut into tensors whose order in the file is not that of their names.
  private struct Parts {
    static let names = ["b", "a.10", "a.2", "Z", "empty", "one"]
    #if DEBUG
      static let counts = [900, 33, 1500, 7, 0, 1]
    #else
      static let counts = [70_000, 33, 140_000, 7, 0, 1]
    #endif
    let folder = TemporaryFolder()

    init(models: Int = 3, dtype: DType = .f32, names: [String] = names, counts: [Int] = counts) throws(Failure) {
      var generator = Generator(31)
      var all = [names.map { _ in [Float]() }]
      all[0] = counts.map { [Float](repeating: 0, count: $0) }
      for _ in 0..<models {
        all.append(
          counts.map { count in (0..<count).map { _ in (generator.next() * 8).rounded() * 0.25 } }.map { $0.map(Float.init) })
      }
      let order = names.indices.sorted { names[$0].utf8.lexicographicallyPrecedes(names[$1].utf8) }
      for (number, values) in all.enumerated() {
        let name = number == 0 ? "base" : "model-\(number - 1)"
        try write(
          names.indices.map { Stored(name: names[$0], shape: [counts[$0]], values: values[$0], dtype: dtype) },
          to: folder(name))
        let whole = order.flatMap { values[$0] }
        try write([Stored(name: "all", shape: [whole.count], values: whole, dtype: dtype)], to: folder("whole-\(name)"))
      }
    }

    func recipe(_ method: String, _ parameters: JSON, prefix: String = "", models: Int = 3) -> JSON {
      let list = (0..<models).map { JSON.object([.init(key: "model", value: .string(folder("\(prefix)model-\($0)")))]) }
      return [
        "merge_method": .string(method), "base_model": .string(folder("\(prefix)base")), "models": .array(list),
        "parameters": parameters,
      ]
    }

    func merge(_ recipe: JSON, to name: String, threads: Int = 2) throws(Failure) {
      var options = JobOptions()
      options.threads = threads
      try Job(recipe: recipe, outputPath: folder(name), options: options).run()
    }

    /// All bytes in the order of the names.
    func bytes(of output: String) throws -> [UInt8] {
      try Checkpoint(path: folder(output)).tensors.map(\.name).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        .flatMap { try MergeEngineTests.bytes(of: $0, in: folder(output)) }
    }
  }

  private static let settings: [(method: String, parameters: JSON)] = [
    ("ties", ["density": 0.5]), ("ties", ["density": 0.3, "trim": "inclusive"]),
    ("ties", ["density": 0.2, "zero_sign": "majority"]),
    ("ties", ["density": 0.3, "elect": "normmass", "trim": "exact", "zero_sign": "majority", "merge": "sum"]),
    ("ties", ["zero_sign": "majority"]), ("magnitude_prune", ["density": 0.37]),
    ("dare_ties", ["trim_density": 0.25, "zero_sign": "majority", "normalize": true]),
    ("consensus_ties", ["density": 0.3]),
  ]

  @Test(arguments: settings.indices, [DType.f32, .bf16]) func aModelIsOneTensor(index: Int, dtype: DType) throws {
    let parts = try Parts(dtype: dtype)
    let (method, parameters) = Self.settings[index]
    let grouped: JSON = .object(parameters.members! + [.init(key: "scope", value: "model")])
    try parts.merge(parts.recipe(method, parameters, prefix: "whole-"), to: "whole")
    let expected = try parts.bytes(of: "whole")
    for threads in [1, 2, 5] {
      try parts.merge(parts.recipe(method, grouped), to: "out-\(threads)", threads: threads)
      let found = try parts.bytes(of: "out-\(threads)")
      #expect(found.count == expected.count && zip(found, expected).allSatisfy { $0 == $1 }, "\(threads) threads")
    }
    // The scope matters where something is trimmed: tensor by tensor other elements stay.
    guard parameters["density"] != nil || parameters["trim_density"] != nil else { return }
    try parts.merge(parts.recipe(method, .object(parameters.members! + [.init(key: "scope", value: "tensor")])), to: "alone")
    #expect(try parts.bytes(of: "alone") != expected)
  }

  @Test func aGroupThatIsResumedInPartBeginsAgain() throws {
    let parts = try Parts()
    let recipe = parts.recipe("ties", ["density": 0.3, "scope": "model", "zero_sign": "majority"])
    try parts.merge(recipe, to: "whole")
    var options = JobOptions()
    options.threads = 1
    for stop in 1...4 {
      let output = parts.folder("out-\(stop)")
      let job = try Job(recipe: recipe, outputPath: output, options: options)
      let failure = #expect(throws: Failure.self) {
        try job.run { if job.control.tensorsDone >= stop { job.control.cancel() } }
      }
      #expect(failure?.status == .cancelled)
      // Twice: the second journal follows the first.
      options.resume = true
      let second = try Job(recipe: recipe, outputPath: output, options: options)
      let stopped = #expect(throws: Failure.self) {
        try second.run { if second.control.tensorsDone >= 2 { second.control.cancel() } }
      }
      #expect(stopped?.status == .cancelled, "\(stopped?.message ?? "")")
      let again = try Job(recipe: recipe, outputPath: output, options: options)
      try again.run()
      options.resume = false
      #expect(try JSON.parse(Array(again.reportText!.utf8), source: "report")["resumed"] == true)
      #expect(again.control.tensorsDone == 6)
      #expect(try parts.bytes(of: "out-\(stop)") == parts.bytes(of: "whole"), "stopped after \(stop)")
    }
  }

  @Test func whatIsNotFiniteLeavesItsGroup() throws {
    let parts = try Parts(names: ["a", "b", "c"], counts: [40, 50, 60])
    // The same merge without the tensor that is copied.
    for model in 0..<3 {
      var values = try floats(of: "b", in: parts.folder("model-\(model)"))
      let others = try ["a", "c"].map { name in
        let row = try floats(of: name, in: parts.folder("model-\(model)"))
        return Stored(name: name, shape: [row.count], values: row)
      }
      try write(others, to: parts.folder("fewer-model-\(model)"))
      if model == 1 { values[7] = .nan }
      try FileSystem.remove(parts.folder("model-\(model)"))
      try write(others + [Stored(name: "b", shape: [50], values: values)], to: parts.folder("model-\(model)"))
    }
    try write(
      [("a", 40), ("c", 60)].map { Stored(name: $0, shape: [$1], values: [Float](repeating: 0, count: $1)) },
      to: parts.folder("fewer-base"))
    let parameters: JSON = ["density": 0.3, "scope": "model", "zero_sign": "majority", "on_non_finite": "warn"]
    try parts.merge(parts.recipe("ties", parameters, prefix: "fewer-"), to: "fewer")
    for threads in [1, 3] {
      try parts.merge(parts.recipe("ties", parameters), to: "out-\(threads)", threads: threads)
      for name in ["a", "c"] {
        #expect(try floats(of: name, in: parts.folder("out-\(threads)")) == floats(of: name, in: parts.folder("fewer")))
      }
      #expect(try floats(of: "b", in: parts.folder("out-\(threads)")) == [Float](repeating: 0, count: 50))
    }
    #expect(throws: Failure.self) {
      try parts.merge(parts.recipe("ties", ["density": 0.3, "scope": "model"]), to: "refused")
    }
  }

  // MARK: - Tensors that cannot be one

  // In a process of its own: it must end with a result or a refusal, not with a trap.
  @Test(arguments: ["ties", "yoyo_scale"]) func aModelThatLacksATensorDoesNotEndTheProcess(method: String) async throws {
    if method == "ties" {
      await #expect(processExitsWith: .success) {
        try GroupTests.mergeWithATensorMissing("ties", ["density": 0.5, "scope": "model"])
      }
    } else {
      await #expect(processExitsWith: .success) { try GroupTests.mergeWithATensorMissing("yoyo_scale", ["scope": "model"]) }
    }
  }

  private static func mergeWithATensorMissing(_ method: String, _ parameters: JSON) throws {
    for missing in ["embed.weight", "layers.0.b", "layers.1.w"] {
      let family = try Family()
      let path = family.folder("model-2")
      let kept = try Checkpoint(path: path).tensors.filter { $0.name != missing && $0.dtype == .f32 }
      let rest = try kept.map { Stored(name: $0.name, shape: $0.shape, values: try floats(of: $0.name, in: path)) }
      try FileSystem.remove(path)
      try write(rest + [Stored(name: "ids", shape: [3], values: [1, 2, 3], dtype: .i64)], to: path)
      let recipe = family.recipe(method, parameters, adding: [.init(key: "on_missing", value: "available")])
      do { try family.merge(recipe, to: "out") } catch { print(error.message) }
    }
  }

  @Test func aDensityThatDependsOnTheTensorDoesNotEndTheProcess() async {
    await #expect(processExitsWith: .success) {
      let family = try Family()
      let density: JSON = [["filter": "embed", "value": 1.0], ["filter": "layers.0", "value": 0], ["value": 0.2]]
      for zeroSign in ["plus", "majority"] {
        for elect in ["mass", "normmass"] {
          let recipe = family.recipe(
            "ties", ["density": density, "scope": "model", "zero_sign": .string(zeroSign), "elect": .string(elect)])
          do { try family.merge(recipe, to: "\(zeroSign)-\(elect)") } catch { print(error) }
        }
      }
    }
  }

  @Test func aVoteThatDependsOnTheTensorDoesNotEndTheProcess() async {
    await #expect(processExitsWith: .success) {
      let family = try Family()
      for (number, filter) in ["embed", "layers.0", "scale"].enumerated() {
        for (elect, other) in [("normmass", "mass"), ("mass", "normmass"), ("none", "normfrac")] {
          let votes: JSON = [["filter": .string(filter), "value": .string(elect)], ["value": .string(other)]]
          for density in [1, 0.5] {
            let recipe = family.recipe(
              "ties", ["density": .double(density), "scope": "model", "zero_sign": "majority", "elect": votes])
            do { try family.merge(recipe, to: "\(number)-\(elect)-\(density)") } catch { print(error) }
          }
        }
      }
    }
  }

  @Test func aDensityThatDependsOnTheTensorIsRefusedOrKept() throws {
    // One threshold for all cannot serve two densities: the first tensor's may not silently stand for the others.
    let parts = try Parts(names: ["a", "b"], counts: [1000, 1000])
    let recipe = parts.recipe(
      "magnitude_prune", ["density": [["filter": "a", "value": 0.25], ["value": 0.75]], "scope": "model"])
    guard (try? parts.merge(recipe, to: "out")) != nil else { return }
    let kept = try ["a", "b"].map { try floats(of: $0, in: parts.folder("out")).filter { $0 != 0 }.count }
    #expect(kept[1] > 2 * kept[0], "\(kept)")
  }

  // MARK: - Memory

  #if !DEBUG
    @Test func waitingTensorsHoldNoHistograms() throws {
      // 200 tensors of one element with 3 models: a histogram of 512 KiB each would be 300 MiB.
      let names = (0..<200).map { "layers.\($0).w" }
      let parts = try Parts(names: names, counts: names.map { _ in 1 })
      var options = JobOptions()
      (options.threads, options.maxMemory) = (1, 32 << 20)
      let job = try Job(
        recipe: parts.recipe("ties", ["density": 0.5, "scope": "model"]), outputPath: parts.folder("out"), options: options)
      let before = Self.residentBytes()
      var most = before
      try job.run { most = max(most, Self.residentBytes()) }
      #expect(before > 1 << 20)
      // Half of those 300 MiB: the limit is 32, and the tests that run at the same time have theirs.
      #expect(most - before < 150 << 20, "\((most - before) >> 20) MiB")
    }
  #endif

  /// Resident memory of this process that belongs to no file.
  private static func residentBytes() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var text = [UInt8](repeating: 0, count: 256)
    let length = fread(&text, 1, text.count, file)
    let pages = String(decoding: text[..<length], as: UTF8.self).split(separator: " ").compactMap { Int($0) }
    return (pages[1] - pages[2]) * sysconf(Int32(_SC_PAGESIZE))
  }
}
