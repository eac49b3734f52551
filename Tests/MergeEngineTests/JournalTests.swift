import JSON
import MergeMethods
import Platform
import Testing

@testable import MergeEngine

/// What an interrupted merge has done: what of it is believed, and what is made again.
@Suite struct JournalTests {
  private let folder = TemporaryFolder()
  private var path: String { folder("out.partial/stockpot.journal") }

  private func open(_ fingerprint: String = "plan", resume: Bool = true) throws(Failure) -> Journal {
    try Journal(folder: folder("out.partial"), fingerprint: fingerprint, resume: resume)
  }

  private func result(_ number: Int) -> TensorResult {
    TensorResult(decision: Decision([.init(key: "number", value: .int(number))]), copied: false, seconds: 0.5)
  }

  /// A journal of these tensors, numbered from 0.
  private func fill(_ tensors: [String]) throws(Failure) {
    let journal = try open(resume: false)
    for (number, tensor) in tensors.enumerated() { journal.record(tensor, result(number)) }
    try journal.write()
    journal.close()
  }

  private func number(_ journal: Journal, _ tensor: String) -> Int? {
    journal.results[tensor]?.decision.entries.first { $0.key == "number" }?.value.int
  }

  /// The names that a later run finds.
  private func found() throws(Failure) -> Set<String> { Set(try open().results.keys) }

  // MARK: - What comes back

  @Test func resultsComeBackAsTheyWereRecorded() throws {
    let name = "layers.0.\"w\"\n\u{1F600}\\"
    let entries: [JSON.Member] = [
      .init(key: "t", value: 0.1), .init(key: "count", value: 3), .init(key: "whole", value: 2.0),
      .init(key: "lambdas", value: [1e-300, -0.25]), .init(key: "outside_unit", value: true),
    ]
    let journal = try open(resume: false)
    #expect(!journal.isResumed && journal.results.isEmpty)
    let decision = Decision(entries, warnings: ["a NaN", "two\nlines"])
    journal.record(name, TensorResult(decision: decision, copied: true, seconds: 1.0 / 3))
    try journal.write()
    journal.record("later", result(7))
    try journal.write()
    journal.close()
    let again = try open()
    #expect(again.isResumed && Set(again.results.keys) == [name, "later"])
    let back = try #require(again.results[name])
    #expect(back.decision.entries == entries && back.decision.warnings == ["a NaN", "two\nlines"])
    #expect(back.copied && back.seconds == 1.0 / 3)
    #expect(number(again, "later") == 7 && again.results["later"]?.copied == false)
  }

  @Test func aNumberThatJSONLacksHidesNoOtherTensor() throws {
    let journal = try open(resume: false)
    let odd = Decision([.init(key: "t", value: .double(.nan)), .init(key: "u", value: .double(-.infinity))])
    journal.record("odd", TensorResult(decision: odd, copied: false, seconds: .infinity))
    journal.record("next", result(1))
    try journal.write()
    journal.close()
    #expect(try found() == ["odd", "next"])
  }

  @Test func onlyWhatWasWrittenCounts() throws {
    let journal = try open(resume: false)
    journal.record("a", result(0))
    try journal.write()
    journal.record("b", result(1))
    journal.close()
    #expect(try found() == ["a"])
  }

  @Test func ofATensorRecordedTwiceTheLastCounts() throws {
    try fill(["a", "b", "a"])
    let journal = try open()
    #expect(number(journal, "a") == 2 && number(journal, "b") == 1)
  }

  @Test func forgottenTensorsAreMadeAgain() throws {
    try fill(["a", "b", "c"])
    let journal = try open()
    journal.forget(["a", "c", "unknown"])
    #expect(Set(journal.results.keys) == ["b"])
    journal.record("c", result(9))
    try journal.write()
    journal.close()
    #expect(number(try open(), "c") == 9)
  }

  // MARK: - Whose it is

  @Test func oneMergeAtATimeWritesToAFolder() throws {
    let journal = try open(resume: false)
    journal.record("a", result(0))
    try journal.write()
    for resume in [true, false] {
      let failure = #expect(throws: Failure.self) { try open(resume: resume) }
      #expect(failure?.status == .exists)
      for words in [folder("out.partial"), "wait", "another output path"] {
        #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
      }
    }
    journal.close()
    // Whoever was refused has changed nothing.
    #expect(try found() == ["a"])
  }

  private func work(
    canResume: Bool = true, _ body: (Journal) throws(Failure) -> Void
  ) throws(Failure) {
    try Journal.work(
      in: folder("out.partial"), fingerprint: "plan", resume: true, canResume: canResume, body)
  }

  @Test(arguments: [(Status.cancelled, true), (.file, true), (.exists, true), (.nonFinite, false), (.internal, false)])
  func whatCanBeResumedStays(status: Status, stays: Bool) throws {
    for canResume in [true, false] {
      let failure = #expect(throws: Failure.self) {
        try work(canResume: canResume) { (_) throws(Failure) in throw Failure(status, "stopped") }
      }
      #expect(failure?.message.hasPrefix("stopped") == true && failure?.status == status)
      #expect(failure?.message.contains("resume") == ([.file, .exists].contains(status) && canResume))
      #expect(FileSystem.exists(path) == (stays && canResume))
    }
  }

  @Test func theFolderOfAnotherMergeIsLeftAsItIs() throws {
    try work { (journal) throws(Failure) in
      journal.record("a", result(0))
      try journal.write()
      let failure = #expect(throws: Failure.self) { try work { (_) throws(Failure) in Issue.record("two at a time") } }
      #expect(failure?.status == .exists)
    }
    #expect(try found() == ["a"])
  }

  @Test func aJournalThatWasRemovedLocksNothing() throws {
    // Opened before the folder was removed, locked after it: whoever makes the folder again must not meet it there.
    let first = try File(path: path(in: "gone"), mode: .update)
    try FileSystem.remove(folder("gone"))
    #expect(!first.tryLock())
  }

  private func path(in name: String) throws(Failure) -> String {
    try FileSystem.makeFolder(folder(name))
    return folder(name + "/" + Journal.name)
  }

  @Test(arguments: ["pla", "plan2", "", "plan\n", "\"plan\""]) func anotherPlanBeginsWithAnEmptyFolder(other: String) throws {
    try fill(["a"])
    try FileSystem.write("weights", to: folder("out.partial/model.safetensors"))
    try FileSystem.makeFolder(folder("out.partial/masks"))
    try FileSystem.write("mask", to: folder("out.partial/masks/a"))
    let journal = try open(other)
    #expect(!journal.isResumed && journal.results.isEmpty)
    #expect(try FileSystem.list(folder("out.partial")) == [Journal.name])
    journal.record("b", result(0))
    try journal.write()
    journal.close()
    let again = try open(other)
    #expect(again.isResumed && Set(again.results.keys) == ["b"])
  }

  @Test func onlyWhoAsksForItResumes() throws {
    try fill(["a"])
    try FileSystem.write("weights", to: folder("out.partial/model.safetensors"))
    let resumed = try open(resume: true)
    #expect(resumed.isResumed && FileSystem.exists(folder("out.partial/model.safetensors")))
    resumed.close()
    let fresh = try open(resume: false)
    #expect(!fresh.isResumed && fresh.results.isEmpty && !FileSystem.exists(folder("out.partial/model.safetensors")))
    fresh.close()
    #expect(try found() == [])
  }

  @Test func aFileInTheFoldersPlaceIsNamed() throws {
    try FileSystem.write("something", to: folder("out.partial"))
    let failure = #expect(throws: Failure.self) { try open() }
    #expect(failure?.message.contains(folder("out.partial")) == true)
    #expect(String(decoding: try FileSystem.read(folder("out.partial")), as: UTF8.self) == "something")
  }

  // MARK: - Damage

  @Test func aLastLineThatIsTornIsDoneAgain() throws {
    try fill(["a"])
    let short = try FileSystem.read(path).count
    try fill(["a", "b"])
    let whole = try FileSystem.read(path)
    for length in short..<whole.count {
      try FileSystem.write(Array(whole[..<length]), to: path)
      let journal = try open()
      #expect(journal.isResumed && Set(journal.results.keys) == ["a"], "\(length) bytes")
      // Shorter than what was torn, in most cases.
      journal.record("c", result(2))
      try journal.write()
      journal.close()
      #expect(try found() == ["a", "c"], "\(length) bytes")
    }
  }

  @Test func aFirstLineThatIsTornIsNoJournal() throws {
    try fill(["a"])
    let whole = try FileSystem.read(path)
    let first = try #require(whole.firstIndex(of: UInt8(ascii: "\n")))
    for length in 0...first {
      try FileSystem.write(Array(whole[..<length]), to: path)
      let journal = try open()
      #expect(!journal.isResumed && journal.results.isEmpty, "\(length) bytes")
    }
  }

  @Test func nothingAfterADamagedLineIsBelieved() throws {
    try fill(["a", "b", "c", "d"])
    var bytes = try FileSystem.read(path)
    let ends = bytes.indices.filter { bytes[$0] == UInt8(ascii: "\n") }
    bytes[ends[1] + 1] = UInt8(ascii: "x")
    try FileSystem.write(bytes, to: path)
    let journal = try open()
    #expect(journal.isResumed && Set(journal.results.keys) == ["a"])
    // This line is as long as the damaged one: what stood behind it may not come back with it.
    journal.record("b", result(1))
    try journal.write()
    journal.close()
    #expect(try found() == ["a", "b"])
  }

  static let lines = [
    "null", "[]", "{}", "5", "\"a\"", "{\"tensor\":5}", "{\"tensor\":null}", "{\"tensor\":\"x\"", "{\"Tensor\":\"x\"}", "",
    String(repeating: "[", count: 100_000), "{\"tensor\":\"x\",\"tensor\":\"y\"}",
  ]

  @Test(arguments: lines.indices) func aLineThatIsNoEntryEndsTheJournal(number: Int) throws {
    let line = Self.lines[number]
    try fill(["a"])
    let good = String(decoding: try FileSystem.read(path), as: UTF8.self)
    try FileSystem.write(good + line + "\n{\"tensor\":\"after\"}\n", to: path)
    #expect(try found() == ["a"])
  }

  @Test func membersOfOtherTypesCountAsMissing() throws {
    try fill(["a"])
    let good = String(decoding: try FileSystem.read(path), as: UTF8.self)
    let line = "{\"tensor\":\"x\",\"decision\":[1],\"warnings\":[\"w\",5],\"copied\":\"yes\",\"seconds\":\"long\"}\n"
    try FileSystem.write(good + line + "{\"tensor\":\"y\"}\n", to: path)
    let journal = try open()
    let x = try #require(journal.results["x"])
    #expect(x.decision.entries.isEmpty && x.decision.warnings == ["w"] && !x.copied && x.seconds == 0)
    #expect(journal.results["y"]?.decision.entries.isEmpty == true)
  }

  @Test func randomBytesAreNoJournalAndDoNoHarm() throws {
    var generator = Generator(5)
    try fill(["a", "b", "c"])
    let whole = try FileSystem.read(path)
    let first = try #require(whole.firstIndex(of: UInt8(ascii: "\n")))
    for length in [0, 1, 7, 100, 5000] {
      let noise = (0..<length).map { _ in UInt8(truncatingIfNeeded: Int(generator.next() * 1e6)) }
      try FileSystem.write(noise, to: path)
      #expect(try !open().isResumed)
      try FileSystem.write(Array(whole[...first]) + noise, to: path)
      #expect(try open().results.isEmpty)
    }
    for _ in 0..<200 {
      var bytes = whole
      let place = first + 1 + Int((generator.next() + 1) / 2 * Double(whole.count - first - 2))
      bytes[place] ^= UInt8(1 << (place % 8))
      try FileSystem.write(bytes, to: path)
      let journal = try open()
      // What stands before the damage is whole.
      let lines = bytes[..<place].count { $0 == UInt8(ascii: "\n") } - 1
      for (number, tensor) in ["a", "b", "c"].enumerated().prefix(lines) { #expect(self.number(journal, tensor) == number) }
    }
  }

  // MARK: - A merge on top of it

  enum Damage: CaseIterable { case none, torn, middle, emptied, noise, otherPlan }

  @Test(arguments: Damage.allCases) func aResumedMergeIsTheSameWhateverBecameOfTheJournal(damage: Damage) throws {
    let family = try Family()
    var options = JobOptions()
    options.threads = 1
    let recipe = family.recipe("model_stock")
    try family.merge(recipe, to: "whole") { $0.threads = 1 }
    let job = try Job(recipe: recipe, outputPath: family.folder("out"), options: options)
    #expect(throws: Failure.self) { try job.run { if job.control.tensorsDone >= 3 { job.control.cancel() } } }
    let path = family.folder("out.partial/stockpot.journal")
    var bytes = try FileSystem.read(path)
    switch damage {
    case .none: break
    case .torn: bytes.removeLast(5)
    case .middle: bytes[bytes.firstIndex(of: UInt8(ascii: "\n"))! + 3] = 0
    case .emptied: bytes = []
    case .noise: bytes = bytes.map { $0 ^ 0x55 }
    case .otherPlan: bytes[1] ^= 1
    }
    try FileSystem.write(bytes, to: path)
    options.resume = true
    let again = try Job(recipe: recipe, outputPath: family.folder("out"), options: options)
    try again.run()
    let report = try JSON.parse(Array(again.reportText!.utf8), source: "report")
    #expect(report["resumed"]?.bool == [.none, .torn, .middle].contains(damage))
    #expect(report["tensors"]?.array?.count == 6)
    let (ours, theirs) = (family.folder("out/model.safetensors"), family.folder("whole/model.safetensors"))
    #expect(try FileSystem.read(ours) == FileSystem.read(theirs))
    #expect(!FileSystem.exists(family.folder("out/stockpot.journal")))
  }

  /// All files of an output but the texts that tell times and places, by their paths.
  private func files(_ path: String, below: String = "") throws(Failure) -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    for name in try FileSystem.list(path + below) {
      let place = below + "/" + name
      if FileSystem.kind(path + place) == .folder {
        found.merge(try files(path, below: place)) { one, _ in one }
      } else if name.hasSuffix(".safetensors") || name == "yoyo_scale.csv" {
        found[place] = try FileSystem.read(path + place)
      }
    }
    return found
  }

  static let methods: [(String, JSON)] = [
    ("model_stock", ["scope": "layer"]), ("yoyo_scale", ["scope": "model"]), ("ties", ["density": 0.5, "scope": "model"]),
    ("tall_mask", [:]), ("iso_c", [:]),
  ]

  @Test(arguments: methods.indices, [1, 4]) func aMergeGoesOnFromWhereverItWasStopped(method: Int, after: Int) throws {
    let family = try Family()
    let (name, parameters) = Self.methods[method]
    let recipe = family.recipe(name, parameters)
    try family.merge(recipe, to: "whole") { $0.threads = 1 }
    var options = JobOptions()
    options.threads = 1
    let job = try Job(recipe: recipe, outputPath: family.folder("out"), options: options)
    let failure = #expect(throws: Failure.self) { try job.run { if job.control.tensorsDone >= after { job.control.cancel() } } }
    #expect(failure?.status == .cancelled)
    options.resume = true
    try Job(recipe: recipe, outputPath: family.folder("out"), options: options).run()
    let (ours, theirs) = (try files(family.folder("out")), try files(family.folder("whole")))
    #expect(ours.keys.sorted() == theirs.keys.sorted() && !ours.isEmpty)
    for (file, bytes) in theirs { #expect(ours[file] == bytes, "\(file)") }
  }
}
