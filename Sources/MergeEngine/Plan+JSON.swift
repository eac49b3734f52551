import JSON
import Platform
import TensorKernels

extension Plan {
  /// The plan as JSON (docs/recipes.md describes the keys).
  var text: String {
    JSON.text(
      decisions + [
        .init(key: "bytes_to_read", value: .int(bytesToRead)), .init(key: "bytes_to_write", value: .int(bytesToWrite)),
        .init(key: "memory", value: .int(plannedMemory)), .init(key: "threads", value: .int(threads)),
        .init(key: "expected_seconds", value: expectedSeconds.map { .double($0) } ?? .null),
        .init(key: "rate", value: rate.map { .double($0) } ?? .null),
        .init(key: "machine_speed", value: .double(MachineSpeed.factor)),
        .init(key: "free_disk", value: outputPath.flatMap { FileSystem.freeBytes(near: $0) }.map { .int($0) } ?? .null),
        .init(key: "warnings", value: .array(warnings.map { .string($0) })), .init(key: "tensors", value: []),
      ], count: tensors.count, workers: threads
    ) { describe($0) }
  }

  /// What does not depend on the machine, but for the tensors.
  private var decisions: [JSON.Member] {
    var members: [JSON.Member] = [
      .init(key: "method", value: .string(recipe.schema.name)),
      .init(key: "output", value: outputPath.map { .string($0) } ?? .null),
      .init(key: "inputs", value: .array(inputs.map(Self.describe))),
      .init(key: "donor", value: .string(inputs[donor].path)),
      .init(
        key: "side_files",
        value: [
          "carried": .array(sideFiles.carried.map { .string($0) }), "written": .array(tokenizerFiles.names.map { .string($0) }),
          "left": .array(sideFiles.left.map { .string($0) }),
        ]),
    ]
    var counts = [Int](repeating: 0, count: layout.files.count)
    for slot in layout.slots { counts[slot.file] += 1 }
    members.append(
      .init(
        key: "files",
        value: .array(
          (makesMerged ? layout.files : []).enumerated().map {
            [
              "name": .string(mergedFolder.isEmpty ? $0.element.name : mergedFolder + "/" + $0.element.name),
              "bytes": .int($0.element.size), "tensors": .int(counts[$0.offset]),
            ]
          })))
    if !artifacts.entries.isEmpty {
      members.append(
        .init(
          key: "artifacts",
          value: .array(
            artifacts.entries.map {
              [
                "folder": .string($0.folder), "model": .string(inputs[$0.input].path), "tensors": .int($0.layout.slots.count),
                "bytes": .int($0.layout.totalBytes),
              ]
            })))
    }
    if let vocabulary { members.append(.init(key: "vocabulary", value: vocabulary.json(tensors))) }
    members.append(.init(key: "stacks", value: .array(stacks.map { describe($0) })))
    members.append(
      .init(
        key: "config_changes",
        value: .array(configChanges.map { ["path": .array($0.path.map { .string($0) }), "value": $0.value] })))
    return members
  }

  private static func describe(_ input: Input) -> JSON {
    var members: [JSON.Member] = [
      .init(key: "path", value: .string(input.path)), .init(key: "role", value: .string(input.isBase ? "base" : "model")),
      .init(key: "tensors", value: .int(input.checkpoint.tensors.count)),
      .init(key: "bytes", value: .int(input.checkpoint.totalBytes)),
      .init(key: "files", value: .int(input.checkpoint.files.count)),
    ]
    if let adapter = input.adapter {
      members.append(
        .init(
          key: "adapter",
          value: [
            "path": .string(adapter.path), "updated": .int(adapter.updates.count),
            "replaced": .int(adapter.replacements.count),
          ]))
    }
    return .object(members)
  }

  /// A stack, and where its layers come from: runs of consecutive layers of one input.
  private func describe(_ stack: PlannedStack) -> JSON {
    var runs: [(input: Int, first: Int, count: Int)] = []
    for (input, layer) in stack.layers {
      if let last = runs.last, last.input == input, last.first + last.count == layer {
        runs[runs.count - 1].count += 1
      } else {
        runs.append((input, layer, 1))
      }
    }
    return [
      "module": stack.module.map { .string($0) } ?? .null, "name": .string(stack.name), "layers": .int(stack.layers.count),
      "restacked": .bool(stack.isRestacked),
      "from": .array(runs.map { ["input": .int($0.input), "layers": [.int($0.first), .int($0.first + $0.count)]] }),
    ]
  }

  private func describe(_ index: Int) -> JSON {
    let tensor = tensors[index]
    let slot = layout.slots[index]
    var members: [JSON.Member] = [
      .init(key: "name", value: .string(tensor.name)), .init(key: "dtype", value: .string(tensor.dtype.name)),
      .init(key: "shape", value: .array(tensor.shape.map { .int($0) })),
      .init(key: "file", value: .string(layout.files[slot.file].name)), .init(key: "offset", value: .int(slot.offset)),
      .init(key: "bytes", value: .int(slot.byteCount)),
    ]
    switch tensor.action {
    case .merge(let number):
      members.append(.init(key: "action", value: "merge"))
      members.append(.init(key: "parameters", value: .object(settings.entries[number].parameters)))
    case .copy(let reason):
      members.append(.init(key: "action", value: "copy"))
      members.append(.init(key: "note", value: .string(reason)))
    }
    members.append(.init(key: "inputs", value: .array(tensor.inputs.map { .int($0) })))
    if let stored = tensor.stored, stored.contains(where: { $0 != tensor.name }) {
      members.append(.init(key: "stored", value: .array(stored.map { .string($0) })))
    }
    return .object(members)
  }

  /// Two hashes of 64 bits and the length: the text itself has megabytes. It tells plans apart that differ by accident, not by intent.
  private static func digest(_ text: String) -> String {
    text.withBytes { bytes in
      // FNV-1a, and the same with a rotation in the place of the order of its two steps.
      var (first, second) = (UInt64(0xCBF2_9CE4_8422_2325), UInt64(0x9E37_79B9_7F4A_7C15))
      for byte in bytes {
        first = (first ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
        second = ((second << 23 | second >> 41) &+ UInt64(byte)) &* 0xD6E8_FEB8_6659_FD93
      }
      return "\(String(first, radix: 16))-\(String(second, radix: 16))-\(bytes.count)"
    }
  }

  /// What has to be the same for a stopped merge to go on: the plan without the machine, and each input file's size and time.
  var fingerprint: String {
    var members = decisions
    var stamps: [JSON] = []
    for input in inputs {
      for file in input.checkpoint.files + (input.adapter.map { [$0.configPath] } ?? []) {
        stamps.append(.string(FileSystem.stamp(file)))
      }
    }
    if let vocabulary = recipe.vocabulary { members.append(.init(key: "rows", value: vocabulary.json)) }
    members += [.init(key: "stamps", value: .array(stamps)), .init(key: "tensors", value: [])]
    return Self.digest(JSON.text(members, indent: 0, count: tensors.count, workers: threads) { describe($0) })
  }
}
