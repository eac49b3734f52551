import CStockpot
import JSON
import MergeEngine
import Platform
import Synchronization

/// What an sp_job points to.
private final class JobHandle {
  let job: any RunnableJob
  private let texts = Mutex<(plan: OwnedText?, report: OwnedText?)>((nil, nil))

  init(_ job: any RunnableJob) {
    self.job = job
  }

  /// Made when it is first asked for.
  var planPointer: UnsafePointer<CChar>? {
    texts.withLock { texts in
      if texts.plan == nil { texts.plan = OwnedText(job.planText) }
      return texts.plan.map { UInt(bitPattern: $0.pointer) }
    }.flatMap { UnsafePointer(bitPattern: $0) }
  }

  var reportPointer: UnsafePointer<CChar>? {
    texts.withLock { texts in
      if let text = job.reportText { (texts.report, job.reportText) = (OwnedText(text), nil) }
      return texts.report.map { UInt(bitPattern: $0.pointer) }
    }.flatMap { UnsafePointer(bitPattern: $0) }
  }

  var progress: sp_progress {
    var progress = sp_progress()
    progress.struct_size = UInt32(MemoryLayout<sp_progress>.stride)
    progress.phase = Int32(job.control.phase.rawValue)
    progress.tensors_done = UInt64(min(job.control.tensorsDone, job.tensorsTotal))
    progress.tensors_total = UInt64(job.tensorsTotal)
    progress.bytes_done = UInt64(min(job.control.bytesDone, job.bytesTotal))
    progress.bytes_total = UInt64(job.bytesTotal)
    let name = Array(job.control.tensor.utf8.prefix(255))
    withUnsafeMutableBytes(of: &progress.tensor) { $0.copyBytes(from: name) }
    return progress
  }
}

/// Calls a progress callback from one worker at a time, at most 20 times a second.
private final class Heartbeat: @unchecked Sendable {
  // @unchecked: the time of the last call is guarded by the monitor.
  private let monitor = Monitor()
  private let handle: JobHandle
  private let callback: sp_progress_fn
  private let user: UnsafeMutableRawPointer?
  private var last = 0.0

  init(_ handle: JobHandle, _ callback: @escaping sp_progress_fn, _ user: UnsafeMutableRawPointer?) {
    self.handle = handle
    self.callback = callback
    self.user = user
  }

  func beat() {
    monitor.locked {
      let now = Machine.seconds()
      guard now - last >= 0.05, !handle.job.control.isCancelled else { return }
      last = now
      var progress = handle.progress
      if callback(&progress, user) != 0 { handle.job.control.cancel() }
    }
  }
}

private func options(_ pointer: UnsafePointer<sp_job_options>?) throws(Failure) -> JobOptions {
  var raw = sp_job_options()
  if let pointer {
    let size = try readable(pointer, pointer.pointee.struct_size, known: MemoryLayout<sp_job_options>.stride, "sp_job_options")
    withUnsafeMutableBytes(of: &raw) { $0.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: size)) }
  }
  var options = JobOptions()
  guard raw.reserved == 0 else {
    throw Failure(.argument, "reserved of sp_job_options is not 0: start from SP_JOB_OPTIONS_INIT")
  }
  options.threads = try workers(raw.threads)
  guard let memory = Int(exactly: raw.max_memory) else {
    throw Failure(.argument, "max_memory is \(raw.max_memory), which is too large")
  }
  options.maxMemory = memory == 0 ? nil : memory
  options.shardSize = try shardBytes(raw.shard_size)
  options.overwrite = try flag(raw.overwrite, "overwrite")
  options.resume = try flag(raw.resume, "resume")
  options.strict = try flag(raw.strict, "strict")
  options.recipeText = raw.recipe_text == nil ? nil : try text(raw.recipe_text, "recipe_text")
  return options
}

@_cdecl("sp_job_create") @implementation
public func sp_job_create(
  _ recipe_json: UnsafePointer<CChar>!, _ output_path: UnsafePointer<CChar>!, _ job_options: UnsafePointer<sp_job_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  out?.pointee = nil
  return attempt(error) { () throws(Failure) in
    let place = try need(out, "out")
    let recipe = try JSON.parse(Array(try text(recipe_json, "recipe_json").utf8), source: "the recipe")
    let path = output_path == nil ? nil : try text(output_path, "output_path")
    if path?.isEmpty == true {
      throw Failure(.argument, "output_path is empty: give a folder, or a name ending in .safetensors")
    }
    place.pointee = handle(JobHandle(try Job(recipe: recipe, outputPath: path, options: try options(job_options))))
  }
}

@_cdecl("sp_job_create_reconstruction") @implementation
public func sp_job_create_reconstruction(
  _ merged_path: UnsafePointer<CChar>!, _ correction_path: UnsafePointer<CChar>!, _ base_path: UnsafePointer<CChar>!,
  _ output_path: UnsafePointer<CChar>!, _ job_options: UnsafePointer<sp_job_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  out?.pointee = nil
  return attempt(error) { () throws(Failure) in
    let place = try need(out, "out")
    let output = try text(output_path, "output_path")
    guard !output.isEmpty else {
      throw Failure(.argument, "output_path is empty: give a folder, or a name ending in .safetensors")
    }
    place.pointee = handle(
      JobHandle(
        try Reconstruction(
          merged: try text(merged_path, "merged_path"), correction: try text(correction_path, "correction_path"),
          base: base_path == nil ? nil : try text(base_path, "base_path"), output: output, options: try options(job_options))))
  }
}

@_cdecl("sp_job_create_lora_extraction") @implementation
public func sp_job_create_lora_extraction(
  _ base_path: UnsafePointer<CChar>!, _ model_path: UnsafePointer<CChar>!, _ output_path: UnsafePointer<CChar>!,
  _ parameters_json: UnsafePointer<CChar>!, _ job_options: UnsafePointer<sp_job_options>!,
  _ out: UnsafeMutablePointer<OpaquePointer?>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  out?.pointee = nil
  return attempt(error) { () throws(Failure) in
    let place = try need(out, "out")
    let output = try text(output_path, "output_path")
    guard !output.isEmpty else { throw Failure(.argument, "output_path is empty: give a folder") }
    let parameters = try JSON.parse(Array(try text(parameters_json, "parameters_json").utf8), source: "parameters_json")
    place.pointee = handle(
      JobHandle(
        try LoRAExtraction(
          base: try text(base_path, "base_path"), model: try text(model_path, "model_path"), output: output,
          try ExtractionOptions(parameters), options: try options(job_options))))
  }
}

@_cdecl("sp_job_plan_json") @implementation
public func sp_job_plan_json(_ job: OpaquePointer!) -> UnsafePointer<CChar>! {
  (try? object(job, as: JobHandle.self, "job"))?.planPointer
}

@_cdecl("sp_job_run") @implementation
public func sp_job_run(
  _ job: OpaquePointer!, _ progress: sp_progress_fn!, _ user: UnsafeMutableRawPointer!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let running = try object(job, as: JobHandle.self, "job")
    if let progress {
      let heartbeat = Heartbeat(running, progress, user)
      try running.job.run { heartbeat.beat() }
    } else {
      try running.job.run(heartbeat: {})
    }
  }
}

@_cdecl("sp_job_progress") @implementation
public func sp_job_progress(_ job: OpaquePointer!, _ out: UnsafeMutablePointer<sp_progress>!) -> sp_status {
  attempt(nil) { () throws(Failure) in
    let running = try object(job, as: JobHandle.self, "job")
    let place = try need(out, "out")
    let given = place.pointee.struct_size
    let size = try readable(place, given, known: MemoryLayout<sp_progress>.stride, "sp_progress")
    var progress = running.progress
    progress.struct_size = given
    UnsafeMutableRawPointer(place).copyMemory(from: &progress, byteCount: size)
  }
}

@_cdecl("sp_job_cancel") @implementation
public func sp_job_cancel(_ job: OpaquePointer!) { (try? object(job, as: JobHandle.self, "job"))?.job.control.cancel() }

@_cdecl("sp_job_report_json") @implementation
public func sp_job_report_json(_ job: OpaquePointer!) -> UnsafePointer<CChar>! {
  (try? object(job, as: JobHandle.self, "job"))?.reportPointer
}

@_cdecl("sp_job_free") @implementation
public func sp_job_free(_ job: OpaquePointer!) { release(job, as: JobHandle.self) }
