import JSON
import Platform
import TensorKernels
import Testing

@testable import Checkpoints

private typealias Named = (name: String, dtype: DType, shape: [Int])

@Suite struct CheckpointLayoutTests {
  private func u8(_ sizes: [Int]) -> [Named] { sizes.enumerated().map { ("t\($0)", .u8, [$1]) } }

  private func header(_ layout: CheckpointLayout, _ file: Int = 0) -> String {
    String(decoding: layout.files[file].header.dropFirst(8), as: UTF8.self)
  }

  /// Slots of each shard, by position.
  private func shards(_ layout: CheckpointLayout) -> [[Int]] {
    layout.files.indices.map { file in layout.slots.indices.filter { layout.slots[$0].file == file } }
  }

  // MARK: - Against files of the reference writer

  /// Every safetensors file among the fixtures was written by the safetensors library.
  private static let written: [String] = {
    var found: [String] = []
    func look(_ folder: String) {
      for name in (try? FileSystem.list(folder)) ?? [] {
        let path = folder + "/" + name
        if name.hasSuffix(".safetensors") { found.append(path) } else if FileSystem.kind(path) == .folder { look(path) }
      }
    }
    look(fixtures + "/digits-vit")
    look(fixtures + "/goldens")
    return found
  }()

  @Test func headersHaveTheReferenceWritersBytes() throws {
    #expect(CheckpointLayoutTests.written.count > 20)
    var withFormat = 0
    for path in CheckpointLayoutTests.written {
      let file = try File(path: path, mode: .read)
      let original = try SafetensorsHeader(reading: file)
      let expected = try file.bytes(count: original.dataOffset, at: 0)
      // The names in some other order: the writer's order is to come from the layout.
      let shuffled = original.tensors.sorted { String($0.name.reversed()) < String($1.name.reversed()) }
      let layout = try CheckpointLayout(
        tensors: shuffled.map { ($0.name, $0.dtype, $0.shape) }, shardSize: 1, naming: .file("x.safetensors"),
        metadata: original.metadata)
      let start = layout.files[0].header.count
      for (slot, record) in zip(layout.slots, shuffled) {
        #expect(slot.offset - start == record.offset - original.dataOffset, "\(path) \(slot.name)")
        #expect(slot.byteCount == record.byteCount)
      }
      #expect(layout.files[0].size - start == (try file.size()) - original.dataOffset)
      #expect(layout.totalBytes == layout.files[0].size - start)
      if original.metadata.contains(where: { $0.key == "format" }) {
        withFormat += 1
        #expect(layout.files[0].header == expected, "\(path)")
      } else {
        // Not written by a model library: the layout would add the format, so only the text's own rules are compared.
        let slots = original.tensors.map {
          CheckpointLayout.Slot(name: $0.name, dtype: $0.dtype, shape: $0.shape, file: 0, offset: 0, byteCount: $0.byteCount)
        }
        #expect(try CheckpointLayout.header(slots, metadata: original.metadata, file: path) == expected, "\(path)")
      }
    }
    #expect(withFormat > 10)
  }

  @Test func theIndexIsThatOfTheReferenceWriter() throws {
    let folder = fixtures + "/goldens/models/inputs/base"
    let checkpoint = try Checkpoint(path: folder)
    let byFile = checkpoint.tensors.sorted { ($0.file, $0.name) < ($1.file, $1.name) }
    let sizes = checkpoint.files.indices.map { file in byFile.reduce(0) { $0 + ($1.file == file ? $1.byteCount : 0) } }
    let limit = try #require(sizes.max())
    let layout = try CheckpointLayout(tensors: byFile.map { ($0.name, $0.dtype, $0.shape) }, shardSize: limit)
    let expected = String(decoding: try FileSystem.read(folder + "/model.safetensors.index.json"), as: UTF8.self)
    #expect(layout.indexText == expected + (expected.hasSuffix("\n") ? "" : "\n"))
    for (file, path) in checkpoint.files.enumerated() {
      #expect(layout.files[file].name == FileSystem.name(of: path))
      #expect(layout.files[file].header == Array(try FileSystem.read(path).prefix(layout.files[file].header.count)))
      #expect(layout.files[file].size == (try File(path: path, mode: .read).size()))
    }
  }

  @Test func theReferenceWritersByteLiterals() throws {
    func bytes(_ tensors: [Named], _ metadata: [(key: String, value: String)] = []) throws -> [UInt8] {
      let slots = tensors.map {
        CheckpointLayout.Slot(
          name: $0.name, dtype: $0.dtype, shape: $0.shape, file: 0, offset: 0, byteCount: product($0.shape + [$0.dtype.size])!)
      }
      return try CheckpointLayout.header(slots, metadata: metadata, file: "x")
    }
    #expect(try bytes([]) == [8, 0, 0, 0, 0, 0, 0, 0, 123, 125, 32, 32, 32, 32, 32, 32])
    #expect(try bytes([], [("framework", "pt")]) == safetensors(#"{"__metadata__":{"framework":"pt"}}     "#))
    #expect(
      try bytes([("attn.0", .f32, [1, 2, 3])])
        == safetensors(#"{"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}}"#))
    #expect(
      try bytes([("attn0", .f32, [1, 1, 2, 3])])
        == safetensors(#"{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}       "#))
  }

  // MARK: - Order inside a file

  @Test func widestTypesComeFirstThenNames() throws {
    let types: [DType] = [
      .u64, .i64, .f64, .c64, .f32, .u32, .i32, .bf16, .f16, .u16, .i16, .f8e8m0, .f8e4m3fn, .f8e5m2, .i8, .u8, .bool,
    ]
    #expect(Set(types) == Set(DType.allCases))
    let given = types.reversed().flatMap { [("b \($0)", $0, [1]), ("a \($0)", $0, [3])] as [Named] }
    let layout = try CheckpointLayout(tensors: given)
    let inFile = layout.slots.sorted { $0.offset < $1.offset }.map(\.name)
    #expect(inFile == types.flatMap { ["a \($0)", "b \($0)"] })
    for slot in layout.slots where slot.dtype != .c64 { #expect(slot.offset % slot.dtype.size == 0, "\(slot.name)") }
    #expect(layout.slots.map(\.name) == given.map(\.name))
  }

  @Test func namesAreOrderedByBytes() throws {
    let names = ["e\u{301}", "z", "\u{FFFD}", "😀", "layers.10", "layers.9", "", "a", "a.b", "A"]
    let layout = try CheckpointLayout(tensors: names.map { ($0, .u8, [1]) })
    let inFile = layout.slots.sorted { $0.offset < $1.offset }.map(\.name)
    #expect(inFile == names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
  }

  @Test func emptyAndScalarTensors() throws {
    let layout = try CheckpointLayout(tensors: [("empty", .f32, [0, 7]), ("scalar", .f32, []), ("x", .f32, [2])])
    #expect(layout.slots.map(\.byteCount) == [0, 4, 8])
    #expect(layout.totalBytes == 12)
    #expect(layout.slots[0].offset == layout.slots[1].offset)
    #expect(header(layout).contains(#""empty":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}"#))
    #expect(header(layout).contains(#""scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#))
  }

  // MARK: - Shards

  @Test func oneShardHasNoIndex() throws {
    let layout = try CheckpointLayout(tensors: u8([5, 5]), shardSize: 10)
    #expect(layout.files.map(\.name) == ["model.safetensors"])
    #expect(layout.indexText == nil)
    let huge = try CheckpointLayout(tensors: u8([50]), shardSize: 10)
    #expect(huge.files.map(\.name) == ["model.safetensors"])
    let nothing = try CheckpointLayout(tensors: [])
    #expect(nothing.files.map(\.name) == ["model.safetensors"])
    #expect(nothing.files[0].size == nothing.files[0].header.count)
    #expect(nothing.totalBytes == 0)
  }

  @Test func shardsAreFilledGreedilyInTheGivenOrder() throws {
    // The example of huggingface_hub: [6], [6+2], [6+2+2] and not the other way round.
    let layout = try CheckpointLayout(tensors: u8([6, 6, 2, 6, 2, 2]), shardSize: 10)
    #expect(shards(layout) == [[0], [1, 2], [3, 4, 5]])
    #expect(
      layout.files.map(\.name) == [
        "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
      ])
    #expect(layout.files.map { $0.size - $0.header.count } == [6, 8, 10])
    #expect(layout.totalBytes == 24)
    let exact = try CheckpointLayout(tensors: u8([5, 5, 5, 5]), shardSize: 10)
    #expect(shards(exact) == [[0, 1], [2, 3]])
  }

  @Test func aTensorAboveTheLimitHasItsOwnShard() throws {
    let layout = try CheckpointLayout(tensors: u8([3, 50, 3, 3]), shardSize: 9)
    #expect(shards(layout) == [[1], [0, 2, 3]])
    let last = try CheckpointLayout(tensors: u8([3, 50]), shardSize: 9)
    #expect(shards(last) == [[1], [0]])
    let tiny = try CheckpointLayout(tensors: u8([1, 1, 0, 2]), shardSize: 1)
    #expect(shards(tiny) == [[0], [3], [1, 2]])
  }

  @Test func theIndexNamesEveryTensor() throws {
    let layout = try CheckpointLayout(tensors: [("b", .f32, [2]), ("a", .f32, [2]), ("c", .f32, [1])], shardSize: 8)
    #expect(
      layout.indexText == """
        {
          "metadata": {
            "total_size": 20
          },
          "weight_map": {
            "a": "model-00002-of-00003.safetensors",
            "b": "model-00001-of-00003.safetensors",
            "c": "model-00003-of-00003.safetensors"
          }
        }

        """)
  }

  @Test func oneFileTakesEverything() throws {
    let layout = try CheckpointLayout(tensors: u8([6, 6, 6]), shardSize: 1, naming: .file("out.safetensors"))
    #expect(layout.files.map(\.name) == ["out.safetensors"])
    #expect(layout.indexText == nil)
    #expect(shards(layout) == [[0, 1, 2]])
  }

  // MARK: - Headers

  @Test func metadataBeginsWithTheFormat() throws {
    let plain = try CheckpointLayout(tensors: u8([1]))
    #expect(header(plain).hasPrefix(#"{"__metadata__":{"format":"pt"},"t0":{"dtype":"U8""#))
    let more = try CheckpointLayout(tensors: u8([1, 1]), shardSize: 1, metadata: [("recipe", "a\"b\n"), ("format", "mlx")])
    #expect(more.files.count == 2)
    for file in 0..<2 {
      #expect(header(more, file).hasPrefix(#"{"__metadata__":{"format":"mlx","recipe":"a\"b\n"},"#))
    }
  }

  @Test func headersArePaddedToEightBytes() throws {
    for length in 1...16 {
      let layout = try CheckpointLayout(tensors: [(String(repeating: "n", count: length), .u8, [3])])
      let bytes = layout.files[0].header
      #expect(bytes.count % 8 == 0)
      let text = header(layout)
      #expect(text.hasPrefix("{"))
      #expect(text.count - text.trimmingTrailingSpaces().count < 8)
      let size = (0..<8).reduce(0) { $0 | Int(bytes[$1]) << ($1 * 8) }
      #expect(size == bytes.count - 8)
      let read = try SafetensorsHeader(text: Array(bytes.dropFirst(8)), fileSize: layout.files[0].size, path: "x")
      #expect(read.tensors.map(\.offset) == layout.slots.map(\.offset))
    }
  }

  @Test(.enabled(if: isOptimised)) func aHeaderAboveTheLimitIsRefused() throws {
    func layout(_ length: Int) throws(Failure) -> CheckpointLayout {
      try CheckpointLayout(tensors: [(String(repeating: "n", count: length), .u8, [1])])
    }
    let rest = header(try layout(1)).trimmingTrailingSpaces().count - 1
    #expect(try layout(100_000_000 - rest).files[0].header.count == 100_000_008)
    expectFailure(.format, "model.safetensors", "shard size") { () throws(Failure) in _ = try layout(100_000_001 - rest) }
  }

  // MARK: - Refusals

  @Test func namesMustDifferAndBeNoKeyword() {
    expectFailure(.argument, "\"a\"") { () throws(Failure) in
      _ = try CheckpointLayout(tensors: [("a", .u8, [1]), ("b", .u8, [1]), ("a", .f32, [1])])
    }
    expectFailure(.argument, "__metadata__") { () throws(Failure) in
      _ = try CheckpointLayout(tensors: [("__metadata__", .u8, [1])])
    }
    expectFailure(.argument, "\"k\"") { () throws(Failure) in
      _ = try CheckpointLayout(tensors: [], metadata: [("k", "1"), ("k", "2")])
    }
    expectFailure(.argument, "\"format\"") { () throws(Failure) in
      _ = try CheckpointLayout(tensors: [], metadata: [("format", "pt"), ("format", "mlx")])
    }
  }

  @Test func sizesMustFit() {
    for shape in [[-1], [2, -2, -2], [Int.max, 2], [1 << 62], [0, -1]] {
      expectFailure(.shape, "\"t\"") { () throws(Failure) in _ = try CheckpointLayout(tensors: [("t", .f32, shape)]) }
    }
    let half: Named = ("a", .u8, [Int.max / 2 + 1])
    expectFailure(.shape, "\"b\"") { () throws(Failure) in
      _ = try CheckpointLayout(tensors: [half, ("b", .u8, [Int.max / 2 + 1])])
    }
    // The data alone fits in 63 bits, with its header it does not.
    expectFailure(.shape, "too large for one file") { () throws(Failure) in
      _ = try CheckpointLayout(tensors: [("a", .u8, [Int.max])])
    }
    for size in [0, -1, Int.min] {
      expectFailure(.argument, "shard size") { () throws(Failure) in _ = try CheckpointLayout(tensors: [], shardSize: size) }
    }
    _ = try? CheckpointLayout(tensors: u8([1, 2]), shardSize: .max)
  }
}

extension String {
  fileprivate func trimmingTrailingSpaces() -> Substring {
    var text = Substring(self)
    while text.last == " " { text.removeLast() }
    return text
  }
}
