import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// Rebuilds a task model from a merged one and a TALL mask or a low-rank plus sparse correction (docs/masks.md).
///
/// Streams as a merge does, works in `<output>.partial`, and appears by one rename. Every tensor of the merged model reaches the
/// output: what the correction does not mention is copied.
public final class Reconstruction: RunnableJob {
  public let planText: String
  public var reportText: String?
  public let control = ExecutionControl()

  private enum Kind: String {
    case tallMask = "tall_mask"
    case correction
  }

  private let kind: Kind
  private let merged: Checkpoint
  private let correction: Checkpoint
  private let base: Checkpoint?
  private let lambda: JSON
  private let outputPath: String
  private let options: JobOptions
  private let records: [TensorRecord]
  private let programs: [(any SweepProgram)?]
  private let layout: CheckpointLayout
  private var hasRun = false

  /// - Parameters:
  ///   - base: for a mask: the model that task vectors are differences from; nil: the one that the mask names.
  /// - Throws: `.format` for a correction that is none, `.missingTensor`, `.shape` and `.dtype` for one of another model, `.notFound`,
  ///   `.exists` as for a merge.
  public init(
    merged mergedPath: String, correction correctionPath: String, base basePath: String?, output: String, options: JobOptions
  ) throws(Failure) {
    self.options = options
    outputPath = FileSystem.trimmingSlashes(output)
    merged = try Checkpoint(reference: mergedPath)
    correction = try Checkpoint(path: correctionPath)
    let notes = Dictionary(correction.metadata.map { ($0.key, $0.value) }) { first, _ in first }
    guard let kind = Kind(rawValue: notes["stockpot.format"] ?? "") else {
      throw Failure(
        .format,
        "\(correctionPath) is no TALL mask and no correction: give a folder under masks/ or corrections/ that stockpot wrote")
    }
    guard notes["stockpot.version"] == "1" else {
      throw Failure(
        .format,
        "\(correctionPath) has version \(notes["stockpot.version"] ?? "none"), which this version does not read: update")
    }
    self.kind = kind
    switch kind {
    case .tallMask:
      guard let path = basePath ?? notes["stockpot.base"], !path.isEmpty else {
        throw Failure(.format, "\(correctionPath) does not name its base: give it")
      }
      do throws(Failure) { base = try Checkpoint(reference: path) } catch {
        guard error.status == .notFound else { throw error }
        throw Failure(.notFound, "the base of \(correctionPath): \(error.message); or give its path as base")
      }
      lambda = try JSON.parse(Array((notes["stockpot.lambda"] ?? "1").utf8), source: correctionPath)
    case .correction:
      base = nil
      lambda = 1
    }
    records = merged.tensors.sorted { ($0.file, $0.offset, $0.name) < ($1.file, $1.offset, $1.name) }
    layout = try CheckpointLayout(
      tensors: records.map { ($0.name, $0.dtype, $0.shape) }, shardSize: options.shardSize ?? CheckpointLayout.defaultShardSize,
      naming: outputPath.hasSuffix(".safetensors") ? .file(FileSystem.name(of: outputPath)) : .folder)
    var programs: [(any SweepProgram)?] = []
    var used = 0
    for record in records {
      let program = try Self.program(kind, record, merged, correction, base, lambda, &used)
      if let memory = options.maxMemory, let program {
        let needed = program.scratchBytes(TensorContext(name: record.name, shape: record.shape, modelCount: 1, hasBase: false))
        guard needed < memory else {
          throw Failure(
            .memory, "'\(record.name)' \(record.shape) needs \(needed) bytes, more than max_memory = \(memory): raise it")
        }
      }
      programs.append(program)
    }
    guard used == correction.tensors.count else {
      throw Failure(
        .missingTensor,
        "\(correctionPath) has \(correction.tensors.count - used) tensors that belong to none of \(mergedPath): give the merged "
          + "model it was made with")
    }
    self.programs = programs
    planText =
      JSON.object([
        .init(key: "format", value: .string(kind.rawValue)), .init(key: "merged", value: .string(mergedPath)),
        .init(key: "correction", value: .string(correctionPath)),
        .init(key: "base", value: base.map { .string($0.path) } ?? .null), .init(key: "output", value: .string(outputPath)),
        .init(key: "tensors", value: .int(records.count)), .init(key: "rebuilt", value: .int(programs.count { $0 != nil })),
        .init(key: "bytes_to_write", value: .int(layout.totalBytes)),
      ]).serialized(indent: 2)
    try Self.checkOutput(outputPath, [merged, correction] + (base.map { [$0] } ?? []), options)
  }

  private static func checkOutput(_ path: String, _ inputs: [Checkpoint], _ options: JobOptions) throws(Failure) {
    for input in inputs {
      for place in [input.path] + input.files where FileSystem.isSame(path, place) || FileSystem.contains(path, place) {
        throw Failure(.exists, "the output \(path) is, or contains, the input \(input.path): choose another path")
      }
    }
    try OutputPlace.check(path, isFile: path.hasSuffix(".safetensors"), overwrite: options.overwrite)
  }

  /// What rebuilds one tensor; nil: it is copied.
  /// - Parameter used: counts the correction's tensors that are accounted for.
  private static func program(
    _ kind: Kind, _ record: TensorRecord, _ merged: Checkpoint, _ correction: Checkpoint, _ base: Checkpoint?, _ lambda: JSON,
    _ used: inout Int
  ) throws(Failure) -> (any SweepProgram)? {
    switch kind {
    case .tallMask:
      guard let mask = correction.tensor(named: record.name) else { return nil }
      used += 1
      guard let origin = base!.tensor(named: record.name), origin.shape == record.shape, origin.dtype.isFloat else {
        throw Failure(
          .missingTensor, "\(base!.path) has no '\(record.name)' of shape \(record.shape): give the base of the merge")
      }
      guard mask.dtype == .u8, mask.shape == [(record.count + 7) / 8] else {
        throw Failure(
          .shape,
          "'\(record.name)' of \(correction.path) has \(mask.shape) bytes, but \(record.count) elements need other masks")
      }
      let factor = lambda.double ?? lambda[record.name]?.double ?? 1
      guard factor != 0 else {
        throw Failure(
          .format, "\(correction.path) was made with lambda 0, which left nothing of the task vectors in the merged model")
      }
      return MaskedDifference(correction, mask, lambda: factor)
    case .correction:
      if let dense = correction.tensor(named: record.name + CorrectionNames.difference) {
        used += 1
        guard dense.shape == record.shape, dense.dtype.isFloat else {
          throw Failure(.shape, "'\(dense.name)' of \(correction.path) has shape \(dense.shape), not \(record.shape)")
        }
        return AddedDifference(correction, dense)
      }
      guard let parts = try LowRankCorrection(correction, record) else { return nil }
      used += 4
      return parts
    }
  }

  public var bytesTotal: Int { layout.totalBytes }
  public var tensorsTotal: Int { records.count }

  // MARK: - Running

  public func run(heartbeat: @escaping () -> Void = {}) throws(Failure) {
    guard !hasRun else { throw Failure(.argument, "this job has run before: create another") }
    hasRun = true
    control.enter(.merging)
    let partial = outputPath + ".partial"
    do throws(Failure) {
      try Self.checkOutput(outputPath, [merged, correction] + (base.map { [$0] } ?? []), options)
      try Journal.work(in: partial, fingerprint: "reconstruct", resume: false, canResume: false) { (_) throws(Failure) in
        try rebuild(in: partial, heartbeat)
      }
    } catch {
      control.enter(.failed)
      throw error
    }
    control.enter(.done)
  }

  private func rebuild(in partial: String, _ heartbeat: @escaping () -> Void) throws(Failure) {
    let started = Machine.seconds()
    var files: [File] = []
    for file in layout.files {
      let handle = try File(path: partial + "/" + file.name, mode: .create)
      try handle.truncate(to: file.size)
      try handle.write(file.header, at: 0)
      files.append(handle)
    }
    var tasks: [TensorTask] = []
    for (index, record) in records.enumerated() {
      let slot = layout.slots[index]
      let origin = programs[index] == nil ? nil : base?.tensor(named: record.name)
      let inputs = (origin.map { [TensorInput.stored(base!, $0)] } ?? []) + [.stored(merged, record)]
      tasks.append(
        TensorTask(
          context: TensorContext(name: record.name, shape: record.shape, modelCount: 1, hasBase: origin != nil),
          inputs: inputs, inputNames: (origin == nil ? [] : [base!.path]) + [merged.path],
          output: .stored(files[slot.file], offset: slot.offset), outputType: record.dtype, method: programs[index],
          policy: .ignore))
    }
    let threads = options.threads > 0 ? options.threads : Machine.usableCPUs()
    try Executor(tasks: tasks, threads: threads, memory: options.maxMemory, control: control, heartbeat: heartbeat) { _, _ in }
      .run()
    control.enter(.finishing)
    let report = report(seconds: Machine.seconds() - started).serialized(indent: 2)
    try publish(report, partial)
    reportText = report
  }

  private func report(seconds: Double) -> JSON {
    let rebuilt = programs.count { $0 != nil }
    return [
      "stockpot": .string(LibraryVersion.string), "format": .string(kind.rawValue), "merged": .string(merged.path),
      "correction": .string(correction.path), "base": base.map { .string($0.path) } ?? .null, "seconds": .double(seconds),
      "summary": [
        "tensors": .int(records.count), "rebuilt": .int(rebuilt), "copied": .int(records.count - rebuilt),
        "model_bytes": .int(layout.totalBytes), "correction_bytes": .int(correction.totalBytes),
        "merged_bytes": .int(merged.totalBytes), "base_bytes": .int(base?.totalBytes ?? 0),
        "compression_ratio": .double(Double(layout.totalBytes) / Double(max(1, correction.totalBytes))),
      ],
      "warnings": [],
    ]
  }

  private func publish(_ report: String, _ partial: String) throws(Failure) {
    if outputPath.hasSuffix(".safetensors") {
      try FileSystem.write(report, "\n", to: outputPath.dropLast(".safetensors".count) + ".reconstruct_report.json")
      try OutputPlace.replace(outputPath, by: partial + "/" + FileSystem.name(of: outputPath))
      return try FileSystem.remove(partial)
    }
    if let index = layout.indexText { try FileSystem.write(index, to: partial + "/model.safetensors.index.json") }
    if let folder = merged.folder { try SideFiles(of: merged).copy(from: folder, to: partial) }
    try FileSystem.write(report, "\n", to: partial + "/reconstruct_report.json")
    try Journal.publish(partial, at: outputPath)
  }
}
