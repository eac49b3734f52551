import JSON
import MergeMethods
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// What a merge decided, as it is told.
@Suite struct ReportTests {
  private let folder = TemporaryFolder()

  /// The plan of a merge of three models, all of the same tensors of one element.
  private func plan(
    _ names: [String], method: String = "yoyo_scale", missing: [String: Int] = [:], integers: Set<String> = []
  ) throws(Failure) -> Plan {
    for model in ["base", "model-0", "model-1", "model-2"] {
      let number = model.last?.wholeNumberValue
      let tensors = names.filter { missing[$0] == nil || missing[$0] != number }.map {
        Stored(name: $0, shape: [1], values: [1], dtype: integers.contains($0) ? .i64 : .f32)
      }
      try write(tensors, to: folder(model))
    }
    let models = (0..<3).map { JSON.string(folder("model-\($0)")) }
    let recipe: JSON = [
      "merge_method": .string(method), "base_model": .string(folder("base")), "models": .array(models),
      "on_missing": "available",
    ]
    return try Job(recipe: recipe, outputPath: nil, options: JobOptions()).plan
  }

  private func report(_ plan: Plan, _ result: (String) -> TensorResult) -> Report {
    Report(
      plan: plan, results: plan.tensors.map { result($0.name) }, started: "now", seconds: 2.5, resumed: true, copiedByRange: 77,
      recipeText: "text")
  }

  private func result(
    _ entries: [JSON.Member] = [], warnings: [String] = [], copied: Bool = false, seconds: Double = 0
  ) -> TensorResult {
    TensorResult(decision: Decision(entries, warnings: warnings), copied: copied, seconds: seconds)
  }

  private func parsed(_ report: Report, threads: Int = 1) throws(Failure) -> JSON {
    try JSON.parse(Array(report.texts(threads: threads).json.utf8), source: "report")
  }

  /// Rows of cells, by the rules of RFC 4180.
  private func cells(_ csv: String) -> [[String]] {
    var rows: [[String]] = [[""]]
    var isQuoted = false
    var characters = Substring(csv).unicodeScalars
    while let character = characters.popFirst() {
      if isQuoted, character == "\"" {
        if characters.first == "\"" {
          characters.removeFirst()
          rows[rows.count - 1][rows.last!.count - 1] += "\""
        } else {
          isQuoted = false
        }
      } else if isQuoted {
        rows[rows.count - 1][rows.last!.count - 1].unicodeScalars.append(character)
      } else if character == "\"" {
        isQuoted = true
      } else if character == "," {
        rows[rows.count - 1].append("")
      } else if character == "\n" {
        rows.append([""])
      } else {
        rows[rows.count - 1][rows.last!.count - 1].unicodeScalars.append(character)
      }
    }
    return rows.dropLast()
  }

  // MARK: - What is told

  @Test func aTensorIsMergedWhenTheMethodDecidedOnIt() throws {
    let plan = try plan(["merged", "kept", "equal", "ids"], integers: ["ids"])
    let report = report(plan) { name in
      switch name {
      case "merged": result([.init(key: "lambdas", value: [0.5, 0.25, 0.125])], seconds: 0.75)
      // The method chose to take it over, which is a decision; of equal inputs it decided nothing.
      case "kept": result([.init(key: "lambdas", value: [0, 0, 0])], copied: true)
      case "equal": result(copied: true)
      default: result(copied: true)
      }
    }
    #expect(report.merged == 2)
    let json = try parsed(report)
    #expect(
      json["summary"]?["merged"]?.int == 2 && json["summary"]?["copied"]?.int == 2 && json["summary"]?["tensors"]?.int == 4)
    #expect(json["summary"]?["bytes_copied_by_range"]?.int == 77 && json["resumed"]?.bool == true)
    #expect(json["seconds"]?.double == 2.5 && json["recipe_text"]?.string == "text" && json["started"]?.string == "now")
    let tensors = Dictionary(
      uniqueKeysWithValues: (json["tensors"]?.array ?? []).map { ($0["name"]?.string ?? "", $0) })
    #expect(
      tensors.mapValues { $0["method"]?.string } == [
        "merged": "yoyo_scale", "kept": "yoyo_scale", "equal": "copy", "ids": "copy",
      ])
    #expect(tensors["merged"]?["decision"]?["lambdas"]?.array == [0.5, 0.25, 0.125])
    #expect(tensors["merged"]?["seconds"]?.double == 0.75 && tensors["merged"]?["bytes"]?.int == 4)
    #expect(tensors["ids"]?["dtype"]?.string == "I64" && tensors["ids"]?["bytes"]?.int == 8)
    #expect(tensors["ids"]?["note"]?.string?.contains("float") == true && tensors["merged"]?["note"] == nil)
  }

  @Test func aWarningOfManyTensorsIsToldOnce() throws {
    let plan = try plan(["a", "b", "c", "d"])
    let report = report(plan) { name in
      result(warnings: name == "c" ? ["only here"] : name == "d" ? [] : ["everywhere", "also \(name)"])
    }
    #expect(
      report.warnings.filter { !plan.warnings.contains($0) } == [
        "everywhere (2 tensors)", "'a': also a", "'b': also b", "'c': only here",
      ])
    #expect(try parsed(report)["summary"]?["warnings"]?.int == report.warnings.count)
  }

  @Test func tensorsOutsideTheUnitAreCounted() throws {
    let values: [String: JSON] = ["a": true, "b": false, "c": 2, "d": 0, "e": nil]
    let report = report(try plan(["a", "b", "c", "d", "e", "f"], method: "model_stock")) { name in
      result(values[name].map { [.init(key: "outside_unit", value: $0)] } ?? [])
    }
    #expect(try parsed(report)["summary"]?["outside_unit"]?.array == ["a", "c"])
    #expect(report.warnings.contains { $0.contains("2 tensors") && $0.contains("'a'") && $0.contains("clamp") })
  }

  // MARK: - Tables

  @Test func cellsAreQuotedWhereTheyHaveTo() throws {
    let names = ["plain", "with,comma", "with\"quote", "with\nline", "\"", "é,\u{1F600}"]
    let report = report(try plan(names)) { name in
      result([.init(key: "lambdas", value: [0.5, -0.25, 1])], warnings: ["of \(name)", "second; \"x\""], seconds: 0.5)
    }
    let rows = cells(report.texts(threads: 2).csv)
    let head = try #require(rows.first)
    #expect(Array(head.prefix(6)) == ["name", "dtype", "shape", "method", "seconds", "bytes"] && head.last == "warnings")
    #expect(rows.dropFirst().map { $0[0] }.sorted() == names.sorted())
    let lambdas = try #require(head.firstIndex(of: "lambdas"))
    for row in rows.dropFirst() {
      #expect(row.count == head.count && row[lambdas] == "0.5 -0.25 1")
      #expect(row.last == "of \(row[0]); second; \"x\"" && Array(row[1...5]) == ["F32", "1", "yoyo_scale", "0.5", "4"])
    }
    let table = cells(try #require(report.lambdasCSV))
    #expect(table.dropFirst().map { $0[0] }.sorted() == names.sorted() && table.allSatisfy { $0.count == 4 })
  }

  @Test func textsAreTheSameForAnyThreads() throws {
    let names = (0..<2500).map { "layers.\($0).w" }
    let report = report(try plan(names, method: "linear")) { result([.init(key: "x", value: .string($0))]) }
    let (json, csv) = report.texts(threads: 1)
    for threads in [2, 7] {
      let other = report.texts(threads: threads)
      #expect(other.json == json && other.csv == csv)
    }
    let found = try JSON.parse(Array(json.utf8), source: "report")["tensors"]?.array ?? []
    #expect(Set(found.compactMap { $0["name"]?.string }) == Set(names) && found.count == names.count)
    #expect(found.allSatisfy { $0["decision"]?["x"] == $0["name"] })
    #expect(cells(csv).count == names.count + 1)
  }

  @Test func everyLambdaStandsBelowItsModel() throws {
    let plan = try plan(["all", "copied", "damaged", "without"], missing: ["without": 1])
    let report = report(plan) { name in
      switch name {
      case "all": result([.init(key: "lambdas", value: [0.5, -0.25, 1])])
      // Only the first and the last model have it.
      case "without": result([.init(key: "lambdas", value: [0.5, 0.125])])
      // JSON has no NaN: a journal gives null back.
      case "damaged": result([.init(key: "lambdas", value: [nil, .double(.nan), 0.75])])
      default: result(copied: true)
      }
    }
    let rows = Dictionary(uniqueKeysWithValues: cells(try #require(report.lambdasCSV)).map { ($0[0], Array($0[1...])) })
    #expect(rows["tensor_name"] == ["model_0_lambda", "model_1_lambda", "model_2_lambda"])
    #expect(rows["all"] == ["0.500000", "-0.250000", "1.000000"])
    #expect(rows["without"] == ["0.500000", "nan", "0.125000"])
    #expect(rows["damaged"] == ["nan", "nan", "0.750000"] && rows["copied"] == ["nan", "nan", "nan"])
  }

  @Test func onlyYoyoScaleHasATableOfLambdas() throws {
    #expect(report(try plan(["a"], method: "linear")) { _ in result() }.lambdasCSV == nil)
  }

  @Test(arguments: [
    (0.0, "0.000000"), (1, "1.000000"), (0.1, "0.100000"), (-0.25, "-0.250000"), (0.3653494, "0.365349"),
    (12.0000005, "12.000000"), (-1e-9, "0.000000"), (-0.0, "0.000000"), (0.9999996, "1.000000"), (-1.5e-6, "-0.000002"),
    (.nan, "nan"), (.infinity, "inf"), (-.infinity, "-inf"), (1e300, "1e+300"),
  ])
  func lambdasHaveSixDecimals(value: Double, text: String) { #expect(Report.sixDecimals(value) == text) }
}
