import JSON
import MergeMethods
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// What a plan needs, and what becomes of a limit.
@Suite struct PlanMemoryTests {
  private let folder = TemporaryFolder()

  private func save(_ shapes: [(String, [Int])], models: Int = 3, dtype: DType = .f32) throws(Failure) {
    var generator = Generator(3)
    for model in ["base"] + (0..<models).map({ "model-\($0)" }) {
      if FileSystem.exists(folder(model)) { try FileSystem.remove(folder(model)) }
      try write(
        shapes.map { Stored(name: $0.0, shape: $0.1, values: generator.floats($0.1.reduce(1, *)), dtype: dtype) },
        to: folder(model))
    }
  }

  private func plan(
    _ method: String, memory: Int? = nil, threads: Int = 4, models: Int = 3, _ parameters: JSON = [:]
  ) throws(Failure) -> Plan {
    let list = (0..<models).map { JSON.string(folder("model-\($0)")) }
    let recipe: JSON = [
      "merge_method": .string(method), "base_model": .string(folder("base")), "models": .array(list), "parameters": parameters,
    ]
    var options = JobOptions()
    (options.threads, options.maxMemory) = (threads, memory)
    return try Job(recipe: recipe, outputPath: nil, options: options).plan
  }

  /// The bytes to which a refusal asks to raise the limit.
  private func asked(_ failure: Failure?) throws -> Int {
    let words = try #require(failure).message.split(separator: " ").map { $0.filter { $0 != "," } }
    let place = try #require(words.indices.first { words[$0] == "raise" && words[$0 + 1] == "it" && words[$0 + 2] == "to" })
    return try #require(Int(words[place + 3]))
  }

  private static let shapes = [
    ("embed.weight", [300, 64]), ("layers.0.w", [64, 64]), ("layers.1.w", [64, 64]), ("norm", [64]), ("scale", []),
  ]

  // MARK: - A limit

  @Test(
    arguments: [
      ("linear", [:]), ("model_stock", [:]), ("model_stock", ["granularity": "row"]), ("ties", ["density": 0.5]),
      ("ties", ["density": 0.5, "scope": "model"]), ("della", ["density": 0.5]), ("iso_c", [:]), ("tsvm", [:]),
    ] as [(String, JSON)])
  func theBytesThatARefusalAsksForSuffice(method: String, parameters: JSON) throws {
    try save(Self.shapes)
    let failure = #expect(throws: Failure.self) { try plan(method, memory: 1000, parameters) }
    #expect(failure?.status == .memory && failure?.message.contains("max_memory = 1000") == true)
    let least = try asked(failure)
    let fitting = try plan(method, memory: least, parameters)
    #expect(fitting.threads >= 1 && fitting.plannedMemory == least)
    // Not a byte less.
    #expect(try asked(#expect(throws: Failure.self) { try plan(method, memory: least - 1, parameters) }) == least)
    // The merge itself keeps to it: what one tensor holds is within what is left beside the plan.
    // A chunk of the output at least comes on top.
    #expect(try fitting.largestScratch() + 1024 * 4 <= fitting.workMemory!)
  }

  @Test func moreMemoryAllowsMoreWorkersUpToThoseAskedFor() throws {
    try save(Self.shapes)
    let least = try asked(#expect(throws: Failure.self) { try plan("linear", memory: 1) })
    var found: [Int] = []
    for limit in stride(from: least, to: least + 2_000_000, by: 50_000) {
      found.append(try plan("linear", memory: limit).threads)
    }
    #expect(found == found.sorted() && found.first == 1 && found.last == 4)
    #expect(try plan("linear", memory: .max).threads == 4 && plan("linear").threads == 4)
  }

  @Test(arguments: [0, -1, Int.min]) func aLimitThatLeavesNothingIsRefused(memory: Int) throws {
    try save(Self.shapes)
    let failure = #expect(throws: Failure.self) { try plan("linear", memory: memory) }
    #expect(failure?.status == .memory && failure?.message.contains("max_memory = \(memory)") == true)
  }

  @Test func leavingOutTheTensorThatIsNamedHelps() throws {
    try save([("large.weight", [400, 300]), ("small.weight", [20, 30]), ("norm.weight", [30])])
    let all = try asked(#expect(throws: Failure.self) { try plan("iso_c", memory: 1) })
    let failure = #expect(throws: Failure.self) { try plan("iso_c", memory: all - 1) }
    for words in ["'large.weight'", "[400, 300]", "exclude_keys"] {
      #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
    }
    #expect(try plan("iso_c", memory: all - 1, ["exclude_keys": ["large*"]]).threads >= 1)
  }

  @Test func theWorkGetsWhatThePlanLeaves() throws {
    try save(Self.shapes)
    let limited = try plan("linear", memory: 100_000_000)
    #expect(limited.workMemory == 100_000_000 - limited.ownBytes && limited.plannedMemory == 100_000_000)
    let free = try plan("linear")
    #expect(free.workMemory! >= Executor.defaultMemory && free.plannedMemory > 0)
    #expect(try free.plannedMemory <= free.workMemory! + free.largestScratch())
    // A matrix that is to be decomposed is as large as it is.
    #expect(try plan("iso_c").workMemory == nil)
  }

  // MARK: - What is needed

  @Test func aPlansOwnBytesGrowWithItsTensorsAndInputs() throws {
    try save((0..<50).map { ("layers.\($0).w", [2]) }, models: 4)
    let few = try plan("linear", models: 2).ownBytes
    let more = try plan("linear", models: 4).ownBytes
    #expect(more > few && few >= 50 * 1000)
    try save((0..<100).map { ("layers.\($0).w", [2]) }, models: 4)
    #expect(try plan("linear", models: 2).ownBytes == 2 * few)
  }

  @Test func scratchIsThatOfTheLargestTensor() throws {
    try save([("a", [10, 10]), ("b", [40, 50]), ("c", [3, 5])])
    let all = try plan("iso_c").largestScratch()
    try save([("b", [40, 50])])
    #expect(try plan("iso_c").largestScratch() == all)
    // More than the matrix itself, in binary64.
    #expect(all >= 40 * 50 * 8)
    #expect(try plan("linear").largestScratch() == 0)
  }

  @Test func tensorsOfOneKindAreLookedAtOnce() throws {
    try save((0..<20).map { ("layers.\($0).w", [4, 6]) } + [("a", [24]), ("b", [6, 4]), ("c", [4, 6, 1]), ("d", [4, 6])])
    let found = try plan("linear")
    #expect(Set(found.kinds.map { found.tensors[$0].shape }) == [[4, 6], [24], [6, 4], [4, 6, 1]] && found.kinds.count == 4)
    // A gradient gives each of them other parameters.
    let filtered = try plan("linear", ["weight": [["filter": "layers.3.", "value": 2], ["value": 1]]])
    #expect(filtered.kinds.count == 5)
    #expect(filtered.kinds.contains { filtered.tensors[$0].name == "layers.3.w" })
  }

  @Test func anotherElementSizeIsAnotherKind() throws {
    try save([("a", [4]), ("b", [4]), ("c", [4])], models: 1)
    let tensors = [("a", DType.f32), ("b", .bf16), ("c", .f32)].map {
      Stored(name: $0.0, shape: [4], values: [1, 2, 3, 4], dtype: $0.1)
    }
    try write(tensors, to: folder("model-1"))
    let found = try plan("linear", models: 2)
    #expect(found.kinds.map { found.tensors[$0].name } == ["a", "b"])
  }
}
