import JSON
import MergeMethods
import Platform
import TensorKernels

/// What a merge decided, tensor by tensor: merge_report.json, merge_report.csv and yoyo_scale.csv.
struct Report {
  let plan: Plan
  let results: [TensorResult]
  let started: String
  let seconds: Double
  let resumed: Bool
  /// Bytes that went from file to file without being read.
  let copiedByRange: Int
  let recipeText: String?

  var merged: Int { results.indices.filter { isMerged($0) }.count }

  /// A tensor that the method decided to take over as it is counts as merged; one that it could not decide on does not.
  private func isMerged(_ index: Int) -> Bool {
    guard case .merge = plan.tensors[index].action else { return false }
    return !results[index].copied || !results[index].decision.entries.isEmpty
  }

  private func warnings(_ index: Int) -> [String] { plan.tensors[index].warnings + results[index].decision.warnings }

  /// All warnings: the plan's, and each tensor's once with the number of tensors that have it.
  var warnings: [String] {
    var counts: [(text: String, count: Int, first: String)] = []
    var positions: [String: Int] = [:]
    for index in results.indices {
      for text in warnings(index) {
        if let position = positions[text] {
          counts[position].count += 1
        } else {
          positions[text] = counts.count
          counts.append((text, 1, plan.tensors[index].name))
        }
      }
    }
    var all = plan.warnings + counts.map { $0.count == 1 ? "'\($0.first)': \($0.text)" : "\($0.text) (\($0.count) tensors)" }
    let outside = outsideUnit
    if !outside.isEmpty {
      all.append(
        "t is outside [0, 1] in \(outside.count) tensors, among them '\(outside[0])': clamp: unit would keep it inside")
    }
    return all
  }

  /// Tensors in which Model Stock's t left [0, 1].
  private var outsideUnit: [String] {
    results.indices.filter { index in
      let value = results[index].decision.entries.first { $0.key == "outside_unit" }?.value
      return value?.bool == true || (value?.int ?? 0) > 0
    }.map { plan.tensors[$0].name }
  }

  /// merge_report.json and merge_report.csv, each made by several workers.
  func texts(threads: Int) -> (json: String, csv: String) { (text(workers: threads), csv(workers: threads)) }

  // MARK: - JSON

  private func text(workers: Int) -> String {
    JSON.text(members, count: results.count, workers: workers) { tensor($0) }
  }

  private var members: [JSON.Member] {
    let copied = results.count - merged
    let warnings = self.warnings
    let all: JSON = [
      "stockpot": .string(LibraryVersion.string), "method": .string(plan.recipe.schema.name), "recipe": plan.recipe.json,
      "recipe_text": recipeText.map { .string($0) } ?? .null, "started": .string(started), "seconds": .double(seconds),
      "threads": .int(plan.threads), "resumed": .bool(resumed),
      "inputs": .array(plan.inputs.map { ["path": .string($0.path), "role": .string($0.isBase ? "base" : "model")] }),
      "donor": .string(plan.inputs[plan.donor].path),
      "side_files": [
        "carried": .array(plan.sideFiles.carried.map { .string($0) }),
        "written": .array(plan.tokenizerFiles.names.map { .string($0) }),
        "left": .array(plan.sideFiles.left.map { .string($0) }),
      ],
      "summary": [
        "tensors": .int(results.count), "merged": .int(merged), "copied": .int(copied), "bytes_read": .int(plan.bytesToRead),
        "bytes_written": .int(plan.bytesToWrite), "bytes_copied_by_range": .int(copiedByRange),
        "warnings": .int(warnings.count),
        "outside_unit": .array(outsideUnit.map { .string($0) }),
      ],
      "warnings": .array(warnings.map { .string($0) }), "tensors": [],
    ]
    return all.members ?? []
  }

  private func tensor(_ index: Int) -> JSON {
    let tensor = plan.tensors[index]
    var members: [JSON.Member] = [
      .init(key: "name", value: .string(tensor.name)), .init(key: "dtype", value: .string(tensor.dtype.name)),
      .init(key: "shape", value: .array(tensor.shape.map { .int($0) })),
      .init(key: "method", value: isMerged(index) ? .string(plan.recipe.schema.name) : "copy"),
    ]
    switch tensor.action {
    case .merge(let number):
      members.append(.init(key: "parameters", value: .object(plan.settings.entries[number].parameters)))
    case .copy(let reason): members.append(.init(key: "note", value: .string(reason)))
    }
    members += [
      .init(key: "seconds", value: .double(results[index].seconds)),
      .init(key: "bytes", value: .int(plan.layout.slots[index].byteCount)),
      .init(key: "decision", value: .object(results[index].decision.entries)),
      .init(key: "warnings", value: .array(warnings(index).map { .string($0) })),
    ]
    return .object(members)
  }

  // MARK: - CSV

  /// One row per tensor; the decisions that the method's schema lists have a column each, lists with spaces between values.
  private func csv(workers: Int) -> String {
    let decided = plan.recipe.schema.reports
    var head = ["name", "dtype", "shape", "method", "seconds", "bytes"].joined(separator: ",")
    for key in decided { head += "," + key }
    head += ",warnings\n"
    let part = 1024
    let parts = WorkerPool.map((results.count + part - 1) / part, workers: workers) { number in
      rows(number * part..<min((number + 1) * part, results.count), decided)
    }
    return head + parts.joined()
  }

  private func rows(_ range: Range<Int>, _ decided: [String]) -> String {
    var text = ""
    for index in range {
      let tensor = plan.tensors[index]
      text += Self.cell(tensor.name)
      text += ","
      text += tensor.dtype.name
      text += ","
      for (axis, size) in tensor.shape.enumerated() {
        if axis > 0 { text += "x" }
        text += String(size)
      }
      text += isMerged(index) ? "," + plan.recipe.schema.name + "," : ",copy,"
      text += String(results[index].seconds)
      text += ","
      text += String(plan.layout.slots[index].byteCount)
      for key in decided {
        text += ","
        if let entry = results[index].decision.entries.first(where: { $0.key == key }) {
          text += Self.cell(Self.text(entry.value))
        }
      }
      text += ","
      text += Self.cell(warnings(index).joined(separator: "; "))
      text += "\n"
    }
    return text
  }

  /// The file that YOYO Scale's authors write: one lambda per tensor and model, six decimals, nan where a tensor was copied.
  var lambdasCSV: String? {
    guard plan.recipe.schema.name == "yoyo_scale" else { return nil }
    let models = plan.inputs.indices.filter { !plan.inputs[$0].isBase }
    var lines = [(["tensor_name"] + models.indices.map { "model_\($0)_lambda" }).joined(separator: ",")]
    for index in results.indices {
      let lambdas = results[index].decision.entries.first { $0.key == "lambdas" }?.value.array ?? []
      // A tensor that some model lacks has fewer lambdas than there are models.
      let merged = plan.tensors[index].models.map { plan.tensors[index].inputs[$0] }
      let cells = models.map { model in
        merged.firstIndex(of: model).flatMap { $0 < lambdas.count ? lambdas[$0].double : nil }.map(Self.sixDecimals) ?? "nan"
      }
      lines.append(([Self.cell(plan.tensors[index].name)] + cells).joined(separator: ","))
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func text(_ value: JSON) -> String {
    switch value {
    case .string(let text): text
    case .double(let number) where number.isFinite: number.description
    case .int(let number): String(number)
    case .array(let list): list.map { Self.text($0) }.joined(separator: " ")
    default: value.serialized(indent: 0)
    }
  }

  private static func cell(_ text: String) -> String {
    let needsQuotes = text.utf8.contains {
      $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r")
    }
    return needsQuotes
      ? "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\"" : text
  }

  static func sixDecimals(_ value: Double) -> String {
    guard value.magnitude < 1e12 else { return String(value) }
    let scaled = Int((value.magnitude * 1e6).rounded(.toNearestOrEven))
    let fraction = String(scaled % 1_000_000)
    let sign = value < 0 && scaled > 0 ? "-" : ""
    return sign + String(scaled / 1_000_000) + "." + String(repeating: "0", count: 6 - fraction.count) + fraction
  }
}
