import Checkpoints
import JSON
import MergeMethods
import Platform
import TensorKernels

/// How a job runs, as the caller asks for it.
public struct JobOptions: Sendable {
  /// 0: the usable CPUs.
  public var threads = 0
  /// Bytes for buffers and scratch; nil: the default.
  public var maxMemory: Int?
  /// Bytes of a shard; nil: 5 GB.
  public var shardSize: Int?
  public var overwrite = false
  public var resume = false
  public var strict = false
  /// The recipe as its author wrote it; nil: its JSON.
  public var recipeText: String?

  public init() {}
}

/// A merge of whole checkpoints: planned when it is made, run once.
///
/// The output grows in `<output>.partial` and appears by one rename when all of it is there. A run that fails removes what it
/// wrote; one that is cancelled, killed, or stopped by the system (a full disk) leaves it, and `resume` goes on from there.
public final class Job: RunnableJob {
  public let plan: Plan
  public let control = ExecutionControl()
  public var reportText: String?

  private let options: JobOptions
  private var hasRun = false

  /// Read the recipe and its inputs' headers. Writes nothing.
  public init(recipe json: JSON, outputPath: String?, options: JobOptions) throws(Failure) {
    self.options = options
    let recipe = try Recipe(json, strict: options.strict)
    plan = try Plan(recipe, outputPath: outputPath, options: options)
    Machine.trimMemory()
    if let path = plan.outputPath { try Self.checkOutput(path, plan, options) }
  }

  /// An output may not be one of the inputs, hold one, or replace anything unasked.
  private static func checkOutput(_ path: String, _ plan: Plan, _ options: JobOptions) throws(Failure) {
    for input in plan.inputs {
      for place in [input.checkpoint.path] + input.checkpoint.files
      where FileSystem.isSame(path, place) || FileSystem.contains(path, place) {
        throw Failure(.exists, "the output \(path) is, or contains, the input \(input.path): choose another path")
      }
    }
    try OutputPlace.check(path, isFile: plan.isSingleFile, overwrite: options.overwrite)
  }

  public var planText: String { plan.text }
  public var bytesTotal: Int { plan.makesMerged ? plan.layout.totalBytes : 0 }
  public var tensorsTotal: Int { plan.tensors.count }

  /// Run the plan.
  /// - Parameter heartbeat: called by workers after each stretch of work, at any rate.
  public func run(heartbeat: @escaping () -> Void = {}) throws(Failure) {
    guard let path = plan.outputPath else {
      throw Failure(.argument, "this job has no output path, so it can only be planned: give one when it is created")
    }
    guard !hasRun else { throw Failure(.argument, "this job has run before: create another") }
    hasRun = true
    control.enter(.merging)
    let partial = path + ".partial"
    do throws(Failure) {
      try Self.checkOutput(path, plan, options)
      try Journal.work(in: partial, fingerprint: plan.fingerprint, resume: options.resume) { (journal) throws(Failure) in
        try merge(to: path, in: partial, journal, heartbeat)
      }
    } catch {
      control.enter(.failed)
      throw error
    }
    control.enter(.done)
  }

  private func merge(
    to path: String, in partial: String, _ journal: Journal, _ heartbeat: @escaping () -> Void
  ) throws(Failure) {
    let started = Machine.seconds()
    let startTime = Machine.timestamp()
    forgetIncompleteGroups(journal)
    let files = try openFiles(plan.layout, in: mergedPath(partial), keep: journal.isResumed, wanted: plan.makesMerged)
    var artifactFiles: [[File]] = []
    for entry in plan.artifacts.entries {
      artifactFiles.append(try openFiles(entry.layout, in: partial + "/" + entry.folder, keep: journal.isResumed))
    }
    let run = Plan.RunContext(plan, artifactFiles: artifactFiles)
    var results = [TensorResult?](repeating: nil, count: plan.tensors.count)
    // Of the tensors that are still to be made.
    var indices: [Int] = []
    var groups: [Int: Int] = [:]
    for (index, tensor) in plan.tensors.enumerated() {
      if let known = journal.results[tensor.name] {
        results[index] = known
        control.finish()
        control.advance(bytes: plan.layout.slots[index].byteCount)
        continue
      }
      indices.append(index)
      if let group = tensor.group { groups[group, default: 0] += 1 }
    }
    let tasks = TaskList(count: indices.count, groups: groups, largestScratch: try plan.largestScratch()) {
      [plan, indices] (task) throws(Failure) in
      let slot = plan.layout.slots[indices[task]]
      // Without merged tensors there is nothing to do for one that is only copied.
      let output = plan.makesMerged ? TensorOutput.stored(files[slot.file], offset: slot.offset) : .none
      return try plan.makeTask(plan.tensors[indices[task]], output: output, run: run)
    }
    let executor = Executor(
      tasks, threads: plan.threads, memory: plan.workMemory, control: control, heartbeat: heartbeat,
      settled: { () throws(Failure) in try journal.write() }
    ) { (task, result) throws(Failure) in
      results[indices[task]] = result
      journal.record(self.plan.tensors[indices[task]].name, result)
    }
    try executor.run()

    control.enter(.finishing)
    Machine.trimMemory()
    let report = Report(
      plan: plan, results: results.map { $0! }, started: startTime, seconds: Machine.seconds() - started,
      resumed: journal.isResumed, copiedByRange: control.bytesCopiedByRange, recipeText: options.recipeText)
    let texts = report.texts(threads: plan.threads)
    try publish(report, texts, partial, path)
    reportText = texts.json
  }

  /// A group's sums need all of its tensors: one that is not complete begins again.
  private func forgetIncompleteGroups(_ journal: Journal) {
    let missing = Set(plan.tensors.filter { journal.results[$0.name] == nil }.compactMap(\.group))
    journal.forget(plan.tensors.filter { $0.group.map(missing.contains) ?? false }.map(\.name))
  }

  private func mergedPath(_ partial: String) -> String {
    plan.mergedFolder.isEmpty ? partial : partial + "/" + plan.mergedFolder
  }

  /// The files of a checkpoint at their full size, headers written.
  private func openFiles(
    _ checkpoint: CheckpointLayout, in folder: String, keep: Bool, wanted: Bool = true
  ) throws(Failure) -> [File] {
    guard wanted else { return [] }
    try FileSystem.makeFolder(folder)
    if let index = checkpoint.indexText { try FileSystem.write(index, to: folder + "/model.safetensors.index.json") }
    var files: [File] = []
    for layout in checkpoint.files {
      let file = try File(path: folder + "/" + layout.name, mode: keep ? .update : .create)
      try file.truncate(to: layout.size)
      try file.write(layout.header, at: 0)
      files.append(file)
    }
    return files
  }

  /// Everything beside the tensors, and the rename.
  private func publish(
    _ report: Report, _ texts: (json: String, csv: String), _ partial: String, _ path: String
  ) throws(Failure) {
    if plan.isSingleFile {
      let stem = String(path.dropLast(".safetensors".count))
      try FileSystem.write(texts.json, "\n", to: partial + "/report.json")
      try FileSystem.write(texts.csv, to: partial + "/report.csv")
      try OutputPlace.replace(path, by: partial + "/" + FileSystem.name(of: path))
      try FileSystem.rename(partial + "/report.json", to: stem + ".merge_report.json")
      try FileSystem.rename(partial + "/report.csv", to: stem + ".merge_report.csv")
      if let lambdas = report.lambdasCSV { try FileSystem.write(lambdas, to: stem + ".yoyo_scale.csv") }
      return try FileSystem.remove(partial)
    }
    if plan.makesMerged { try plan.tokenizerFiles.write(to: mergedPath(partial)) }
    if plan.makesMerged, let folder = plan.inputs[plan.donor].checkpoint.folder {
      let merged = mergedPath(partial)
      try plan.sideFiles.copy(from: folder, to: merged, except: ["config.json"])
      if plan.sideFiles.carried.contains("config.json") {
        let source = folder + "/config.json"
        let text = try ConfigText.edited(
          try FileSystem.read(source), dtype: plan.recipe.outputType?.torchName, vocabularySize: plan.vocabularySize,
          changes: plan.configChanges, source: source)
        try FileSystem.write(text, to: merged + "/config.json")
      }
    }
    try FileSystem.write(texts.json, "\n", to: partial + "/merge_report.json")
    try FileSystem.write(texts.csv, to: partial + "/merge_report.csv")
    if let lambdas = report.lambdasCSV { try FileSystem.write(lambdas, to: partial + "/yoyo_scale.csv") }
    if plan.recipe.writesModelCard {
      try FileSystem.write(ModelCard.text(report, path: path), to: partial + "/README.md")
    }
    try Journal.publish(partial, at: path)
  }
}
