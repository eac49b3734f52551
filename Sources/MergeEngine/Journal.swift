import Checkpoints
import JSON
import MergeMethods
import Platform

/// The file in `<output>.partial` that says which plan is being carried out and which tensors are complete.
///
/// The first line is the plan's fingerprint, each further line one finished tensor and what was decided for it. It is locked
/// while a merge runs. A tensor is recorded after its bytes have been handed to the system, so the journal holds when the
/// process dies; it does not claim to hold when the machine loses power.
final class Journal {
  static let name = "stockpot.journal"

  /// Tensors that an earlier run completed.
  private(set) var results: [String: TensorResult] = [:]
  private(set) var isResumed = false
  private var file: File?
  private var end = 0
  /// Entries that are not written yet.
  private var pending: [UInt8] = []

  /// Make the folder ready: keep what an earlier run of the same plan left, or empty it.
  init(folder: String, fingerprint: String, resume: Bool) throws(Failure) {
    try FileSystem.makeFolder(folder)
    let path = folder + "/" + Self.name
    let file = try File(path: path, mode: .update)
    guard file.tryLock() else {
      throw Failure(.exists, "another merge is writing \(folder): wait for it, or choose another output path")
    }
    let first = JSON.string(fingerprint).serialized(indent: 0) + "\n"
    if resume, try load(path, first) {
      isResumed = true
      // What is written next may be as long as what was damaged, and what stands behind it is not believed.
      try file.truncate(to: end)
    } else {
      for name in try FileSystem.list(folder) where name != Self.name { try FileSystem.remove(folder + "/" + name) }
      try file.truncate(to: 0)
      try file.write(Array(first.utf8), at: 0)
      end = first.utf8.count
    }
    self.file = file
  }

  /// Read the finished tensors; false when the journal is of another plan. A last line without an end was being written when
  /// the process died, and does not count.
  private func load(_ path: String, _ first: String) throws(Failure) -> Bool {
    let bytes = try FileSystem.read(path)
    guard bytes.starts(with: first.utf8) else { return false }
    end = first.utf8.count
    while let stop = bytes[end...].firstIndex(of: UInt8(ascii: "\n")) {
      guard let entry = try? JSON.parse(Array(bytes[end..<stop]), source: path), let name = entry["tensor"]?.string else {
        break
      }
      results[name] = TensorResult(
        decision: Decision(
          entry["decision"]?.members ?? [], warnings: (entry["warnings"]?.array ?? []).compactMap(\.string)),
        copied: entry["copied"]?.bool ?? false, seconds: entry["seconds"]?.double ?? 0)
      end = stop + 1
    }
    return true
  }

  /// Forget results: these tensors are made again.
  func forget(_ tensors: some Sequence<String>) { for tensor in tensors { results[tensor] = nil } }

  /// Note a finished tensor; `write` puts it into the file.
  func record(_ tensor: String, _ result: TensorResult) {
    let entry: JSON = [
      "tensor": .string(tensor), "decision": .object(result.decision.entries),
      "warnings": .array(result.decision.warnings.map { .string($0) }), "copied": .bool(result.copied),
      "seconds": .double(result.seconds),
    ]
    pending += entry.serialized(indent: 0).utf8
    pending.append(UInt8(ascii: "\n"))
  }

  func write() throws(Failure) {
    try file?.write(pending, at: end)
    end += pending.count
    pending.removeAll(keepingCapacity: true)
  }

  /// Let go of the lock.
  func close() { file = nil }

  // MARK: - Its folder

  /// Work in a folder that nobody else works in meanwhile.
  ///
  /// What failed is removed. What was cancelled, stopped by the system (a full disk) or found its place taken in the end stays, if it can
  /// be resumed. The folder of another merge is left as it is.
  static func work(
    in folder: String, fingerprint: String, resume: Bool, canResume: Bool = true,
    _ body: (Journal) throws(Failure) -> Void
  ) throws(Failure) {
    let journal = try Journal(folder: folder, fingerprint: fingerprint, resume: resume)
    defer { journal.close() }
    do throws(Failure) {
      try body(journal)
    } catch {
      switch error.status {
      case .cancelled where canResume: throw error
      case .file where canResume, .exists where canResume:
        throw Failure(error.status, "\(error.message); what is done stays in \(folder), where resume goes on")
      default:
        try? FileSystem.remove(folder)
        throw error
      }
    }
  }

  /// Put the folder at `path`, where it is no journal's any more.
  static func publish(_ folder: String, at path: String) throws(Failure) {
    // The journal goes last: without one, another merge could take the folder for its own.
    try OutputPlace.replace(path, by: folder)
    try? FileSystem.remove(path + "/" + name)
  }
}
