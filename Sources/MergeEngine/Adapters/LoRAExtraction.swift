import Checkpoints
import JSON
import LinearAlgebra
import Platform
import TensorKernels

/// Makes a LoRA adapter in PEFT's layout out of a model and the base it was tuned from: `extract-lora`.
///
/// Two passes over the tensors: which have changed, and then the factors of those, tensor by tensor on the workers there is memory
/// for. What a matrix of low rank cannot hold is saved whole where `save_modules` says so, and otherwise named as lost.
public final class LoRAExtraction: RunnableJob {
  public let planText: String
  public var reportText: String?
  public let control = ExecutionControl()

  private let base: Checkpoint
  private let model: Checkpoint
  private let baseName: String
  private let modelName: String
  private let outputPath: String
  private let extraction: ExtractionOptions
  private let options: JobOptions
  private let isTransposed: Bool
  private let sources: [TaskVectorSource]
  private let treatments: [ExtractionOptions.Treatment]
  private var warnings: [String] = []
  private var hasRun = false

  /// Read headers and decide what is made of each tensor that has changed. Writes nothing.
  /// - Throws: `.missingTensor` and `.shape` for models that do not belong together, `.memory`, `.exists`, `.quantized`.
  public init(
    base basePath: String, model modelPath: String, output: String, _ extraction: ExtractionOptions, options: JobOptions
  ) throws(Failure) {
    self.extraction = extraction
    self.options = options
    (baseName, modelName) = (basePath, modelPath)
    outputPath = FileSystem.trimmingSlashes(output)
    base = try Checkpoint(reference: basePath)
    model = try Checkpoint(reference: modelPath)
    let (base, model) = (self.base, self.model)
    for checkpoint in [base, model] { if let failure = try Quantization.failure(of: checkpoint) { throw failure } }
    let config = AdapterTexts.config(of: base)
    isTransposed =
      extraction.isTransposed ?? ["gpt2", "openai-gpt", "imagegpt"].contains(config?["model_type"]?.string ?? "")

    var sources: [TaskVectorSource] = []
    var treatments: [ExtractionOptions.Treatment] = []
    for record in base.tensors {
      guard let other = model.tensor(named: record.name) else {
        throw Failure(
          .missingTensor,
          "'\(record.name)' of \(base.path) is missing in \(model.path): give the base that the model was tuned from")
      }
      var treatment = extraction.treatment(record, transposes: isTransposed)
      if other.shape != record.shape || other.dtype.isFloat != record.dtype.isFloat {
        guard case .saved = treatment else {
          throw Failure(
            .shape,
            "'\(record.name)' is \(record.dtype.name) \(record.shape) in \(base.path) but \(other.dtype.name) \(other.shape) in "
              + "\(model.path): save it whole with save_modules")
        }
        treatment = .saved
      }
      if case .factored = treatment, let memory = options.maxMemory {
        let bytes = TaskFactors.bytes(
          rows: record.shape[0], columns: record.count / record.shape[0], rank: extraction.rank)
        guard bytes <= memory else {
          throw Failure(
            .memory,
            "'\(record.name)' \(record.shape) needs \(bytes) bytes, more than max_memory = \(memory): raise it, or exclude it")
        }
      }
      sources.append(TaskVectorSource(base: base, baseRecord: record, model: model, modelRecord: other))
      treatments.append(treatment)
    }
    let extras = model.tensors.filter { base.tensor(named: $0.name) == nil }.map(\.name)
    if !extras.isEmpty {
      warnings.append(
        "\(extras.count) tensors, '\(extras[0])' first, are only in \(model.path) and are lost: an adapter changes what the base has"
      )
    }
    self.sources = sources
    self.treatments = treatments
    let factored = treatments.count { if case .factored = $0 { true } else { false } }
    planText =
      JSON.object([
        .init(key: "base", value: .string(basePath)), .init(key: "model", value: .string(modelPath)),
        .init(key: "output", value: .string(outputPath)), .init(key: "rank", value: .int(extraction.rank)),
        .init(key: "tensors", value: .int(sources.count)), .init(key: "matrices", value: .int(factored)),
        .init(key: "fan_in_fan_out", value: .bool(isTransposed)),
        .init(key: "warnings", value: .array(warnings.map { .string($0) })),
      ]).serialized(indent: 2)
    try checkOutput()
  }

  private func checkOutput() throws(Failure) {
    guard !outputPath.hasSuffix(".safetensors") else {
      throw Failure(.argument, "an adapter is a folder, with its config: give the output a folder's name")
    }
    for input in [base, model] {
      for place in [input.path] + input.files
      where FileSystem.isSame(outputPath, place) || FileSystem.contains(outputPath, place) {
        throw Failure(.exists, "the output \(outputPath) is, or contains, the input \(input.path): choose another path")
      }
    }
    try OutputPlace.check(outputPath, isFile: false, overwrite: options.overwrite)
  }

  /// Each tensor of the base is read twice.
  public var bytesTotal: Int { 2 * base.totalBytes }
  public var tensorsTotal: Int { sources.count }

  // MARK: - Running

  public func run(heartbeat: @escaping () -> Void = {}) throws(Failure) {
    guard !hasRun else { throw Failure(.argument, "this job has run before: create another") }
    hasRun = true
    control.enter(.merging)
    let partial = outputPath + ".partial"
    do throws(Failure) {
      try checkOutput()
      try Journal.work(in: partial, fingerprint: "extract-lora", resume: false, canResume: false) { (_) throws(Failure) in
        try extract(to: partial, heartbeat)
        try Journal.publish(partial, at: outputPath)
      }
    } catch {
      control.enter(.failed)
      throw error
    }
    control.enter(.done)
  }

  private func extract(to folder: String, _ heartbeat: @escaping () -> Void) throws(Failure) {
    let started = Machine.seconds()
    let results = sources.map { ExtractedTensor($0) }
    try forEach(Array(sources.indices), heartbeat, bytes: { _ in TaskVectorSource.blockBytes }) { index throws(Failure) in
      try results[index].compare(self.treatments[index])
      self.control.advance(bytes: self.sources[index].baseRecord.byteCount)
    }
    for (index, result) in results.enumerated() {
      result.plan(treatments[index], rank: extraction.rank, dtype: extraction.dtype)
      if result.entries.isEmpty { pass(index) }
    }
    let entries = results.flatMap(\.entries)
    guard !entries.isEmpty else {
      throw Failure(
        .argument,
        "no tensor that an adapter can hold differs between \(baseName) and \(modelName): there is nothing to extract")
    }
    let layout = try CheckpointLayout(
      tensors: entries.map { ($0.name, $0.dtype, $0.shape) }, naming: .file("adapter_model.safetensors"))
    let file = try File(path: folder + "/adapter_model.safetensors", mode: .create)
    try file.truncate(to: layout.files[0].size)
    try file.write(layout.files[0].header, at: 0)
    let offsets = Dictionary(uniqueKeysWithValues: layout.slots.map { ($0.name, $0.offset) })
    let wanted = results.indices.filter { !results[$0].entries.isEmpty }
    try forEach(
      wanted, heartbeat, bytes: { results[$0].workBytes(rank: self.extraction.rank) }
    ) { index throws(Failure) in
      self.control.begin(self.sources[index].name)
      try results[index].write(to: file, offsets, rank: self.extraction.rank, dtype: self.extraction.dtype)
      self.pass(index)
    }
    control.enter(.finishing)
    let lost = results.filter { $0.lostReason != nil }
    if !lost.isEmpty {
      warnings.append(
        "\(lost.count) tensors that differ, '\(lost[0].source.name)' first, are not in the adapter and are lost: see the report"
      )
    }
    let texts = AdapterTexts(
      results: results, base: base, baseName: baseName, modelName: modelName, rank: extraction.rank, dtype: extraction.dtype,
      isTransposed: isTransposed, adapterBytes: layout.totalBytes, modelBytes: model.totalBytes,
      seconds: Machine.seconds() - started, warnings: warnings)
    try FileSystem.write(texts.config.serialized(indent: 2), "\n", to: folder + "/adapter_config.json")
    let report = texts.report.serialized(indent: 2)
    try FileSystem.write(report, "\n", to: folder + "/extract_report.json")
    try FileSystem.write(texts.csv, to: folder + "/extract_report.csv")
    reportText = report
  }

  private func pass(_ index: Int) {
    control.finish()
    control.advance(bytes: sources[index].baseRecord.byteCount)
  }

  /// Run `body` for indices on the workers, as many at once as their bytes fit in the memory there is. The first failure stops.
  private func forEach(
    _ indices: [Int], _ heartbeat: @escaping () -> Void, bytes: @escaping (Int) -> Int,
    _ body: @escaping (Int) throws(Failure) -> Void
  ) throws(Failure) {
    let threads = options.threads > 0 ? options.threads : Machine.usableCPUs()
    let queue = WorkQueue(indices, limit: options.maxMemory ?? .max, bytes: bytes)
    WorkerPool.run(count: min(threads, max(1, indices.count))) { [control] _ in
      while let index = queue.take(unless: control) {
        var failure: Failure?
        do throws(Failure) { try body(index) } catch { failure = error }
        queue.giveBack(index, failure)
        heartbeat()
      }
    }
    if let failure = queue.failure { throw failure }
    if control.isCancelled { throw Failure(.cancelled, "the extraction was cancelled") }
  }
}

/// Hands out work in order, as long as what is in work fits in a limit; one piece always does.
private final class WorkQueue: @unchecked Sendable {
  // @unchecked: everything mutable is guarded by the monitor.
  private let monitor = Monitor()
  private let indices: [Int]
  private let limit: Int
  private let bytes: (Int) -> Int
  private var next = 0
  private var inUse = 0
  private(set) var failure: Failure?

  init(_ indices: [Int], limit: Int, bytes: @escaping (Int) -> Int) {
    (self.indices, self.limit, self.bytes) = (indices, limit, bytes)
  }

  func take(unless control: ExecutionControl) -> Int? {
    monitor.locked {
      while next < indices.count, failure == nil, !control.isCancelled {
        let needed = bytes(indices[next])
        if inUse == 0 || needed <= limit - inUse {
          inUse += needed
          next += 1
          return indices[next - 1]
        }
        monitor.wait()
      }
      monitor.wakeAll()
      return nil
    }
  }

  func giveBack(_ index: Int, _ reason: Failure?) {
    monitor.locked {
      inUse -= bytes(index)
      failure = failure ?? reason
      monitor.wakeAll()
    }
  }
}
