import Glibc
import Platform
import TensorKernels
import Testing

@testable import Checkpoints

@Suite struct SafetensorsHeaderTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func header(_ bytes: [UInt8]) throws -> SafetensorsHeader {
    try SafetensorsHeader(reading: File(path: folder.write(bytes, to: "x.safetensors"), mode: .read))
  }

  private func expectRefused(
    _ bytes: [UInt8], _ words: String..., status: Status = .format, at location: SourceLocation = #_sourceLocation
  ) throws {
    let path = try folder.write(bytes, to: "x.safetensors")
    do throws(Failure) {
      _ = try SafetensorsHeader(reading: File(path: path, mode: .read))
      Issue.record("accepted", sourceLocation: location)
    } catch {
      #expect(error.status == status, "\(error.message)", sourceLocation: location)
      for word in words + [path] { #expect(error.message.contains(word), "\(error.message)", sourceLocation: location) }
    }
  }

  /// One tensor "t" over 16 bytes of data.
  private func one(_ entry: String) -> [UInt8] { safetensors(#"{"t":\#(entry)}"#, data: [UInt8](repeating: 0, count: 16)) }

  // MARK: - The reference reader's own cases

  @Test func whatTheReferenceReaderAccepts() throws {
    let scalar = try header(
      safetensors(#"{"test":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}"#, data: [0, 0, 0, 0]))
    #expect(scalar.tensors.map(\.shape) == [[]])
    #expect(scalar.tensors.map(\.count) == [1])
    #expect(scalar.tensors.map(\.dtype) == [.i32])

    let square = try header(
      safetensors(
        #"{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}"#, data: [UInt8](repeating: 0, count: 16)))
    #expect(square.tensors.map(\.name) == ["test"])
    #expect(square.dataOffset == 68)
    #expect(square.tensors.map(\.offset) == [68])
    #expect(square.tensors.map(\.byteCount) == [16])

    let empty = try header(safetensors(#"{"test":{"dtype":"I32","shape":[2,0],"data_offsets":[0, 0]}}"#))
    #expect(empty.tensors.map(\.shape) == [[2, 0]])
    #expect(empty.tensors.map(\.byteCount) == [0])

    #expect(try header([8, 0, 0, 0, 0, 0, 0, 0, 123, 125, 32, 32, 32, 32, 32, 32]).tensors.isEmpty)
    #expect(try header(safetensors("{}\r \t\n")).tensors.isEmpty)
    #expect(try header(safetensors("\t\n{}\r ")).tensors.isEmpty)
  }

  @Test func whatTheReferenceReaderRefuses() throws {
    let good = #"{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}"#
    let data = [UInt8](repeating: 0, count: 16)
    let attack = (0..<10).map { #""weight_\#($0)":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}"# }
    try expectRefused(safetensors("{\(attack.joined(separator: ","))}", data: data), "overlap", "weight_0", "weight_1")
    try expectRefused(safetensors(good, data: data + Array("extra_bogus_data_for_polyglot_file".utf8)), "34 bytes after")
    try expectRefused(safetensors(good, data: Array(data.dropLast(2))), "2 bytes before", "truncated")
    try expectRefused(safetensors(good, data: data, length: 0xFFFF_FF00_0000_003C), "claims a header")
    try expectRefused([], "0 bytes")
    try expectRefused(safetensors("", length: 60), "truncated")
    try expectRefused(safetensors([0xFF]), "JSON")
    try expectRefused(safetensors("{"), "JSON")
    try expectRefused(safetensors(#"{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0, 4]}}"#), "\"test\"", "need 16")
    for shape in ["[2,18446744073709551614]", "[2,9223372036854775807]", "[4611686018427387904]"] {
      try expectRefused(safetensors(#"{"test":{"dtype":"I32","shape":\#(shape),"data_offsets":[0,16]}}"#, data: data))
    }
    // A product that overflows is refused even where a later 0 would make it small.
    try expectRefused(one(#"{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}"#), "63 bits")
  }

  // MARK: - The length

  @Test func lengthLimits() throws {
    for count in 0..<8 { try expectRefused([UInt8](repeating: 0, count: count), "\(count) bytes") }
    try expectRefused(safetensors("{}", length: 3), "truncated")
    try expectRefused(safetensors("{}", length: 100_000_001), "100000001")
    try expectRefused(safetensors("{}", length: .max), "claims")
    try expectRefused(safetensors("{}", length: 0), "JSON")
    try expectRefused(safetensors("{}", length: 1), "JSON")
  }

  @Test(.enabled(if: isOptimised)) func theLongestHeaderIsTheLimitExactly() throws {
    var text = [UInt8](repeating: 0x20, count: 100_000_000)
    text[0] = UInt8(ascii: "{")
    text[1] = UInt8(ascii: "}")
    #expect(try header(safetensors(text)).dataOffset == 100_000_008)
    try expectRefused(safetensors(text + [0x20]), "100000001")
  }

  @Test func mistakenFilesAreNamed() throws {
    try expectRefused(Array("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".utf8), "git lfs pull")
    try expectRefused(Array("GGUF\u{3}\0\0\0\0\0\0\0\0\0\0\0".utf8), "GGUF", "convert")
    try expectRefused([0x80, 2, 0x8A, 10] + [UInt8](repeating: 0xFC, count: 12), "bare pickle", "convert")
  }

  // MARK: - The JSON

  @Test(arguments: ["[]", "1", "null", "\"x\"", "", "   "])
  func onlyAnObjectWillDo(text: String) throws { try expectRefused(safetensors(text), "x.safetensors") }

  @Test func duplicateKeysAreRefused() throws {
    let entry = #"{"dtype":"U8","shape":[16],"data_offsets":[0,16]}"#
    try expectRefused(safetensors(#"{"t":\#(entry),"t":\#(entry)}"#, data: [UInt8](repeating: 0, count: 16)), "duplicate")
    try expectRefused(one(#"{"dtype":"U8","shape":[16],"shape":[16],"data_offsets":[0,16]}"#), "duplicate")
    try expectRefused(safetensors(#"{"__metadata__":{"a":"1","a":"2"}}"#), "duplicate")
    try expectRefused(safetensors(#"{"a\u0000b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#), "NUL")
  }

  @Test(
    arguments: [
      #"{"dtype":"U8","shape":[16]}"#,
      #"{"dtype":"U8","data_offsets":[0,16]}"#,
      #"{"shape":[16],"data_offsets":[0,16]}"#,
      #"{"dtype":"U8","shape":[16],"data_offsets":[0,16],"strides":[1]}"#,
      #"{"dtype":"U8","shape":16,"data_offsets":[0,16]}"#,
      #"{"dtype":"U8","shape":{"0":16},"data_offsets":[0,16]}"#,
      #"{"dtype":8,"shape":[16],"data_offsets":[0,16]}"#,
      #"{"dtype":null,"shape":[16],"data_offsets":[0,16]}"#,
      #"{"dtype":"U8","shape":[16],"data_offsets":[0]}"#,
      #"{"dtype":"U8","shape":[16],"data_offsets":[0,16,16]}"#,
      #"{"dtype":"U8","shape":[16],"data_offsets":{"0":0,"1":16}}"#,
      #"{"dtype":"U8","shape":[16],"data_offsets":"0,16"}"#,
      "[]", "\"U8\"", "1", "null", "{}",
    ])
  func anEntryIsExactlyItsThreeMembers(entry: String) throws { try expectRefused(one(entry), "\"t\"", "exactly") }

  @Test(arguments: ["16.0", "1.6e1", "-16", "true", "\"16\"", "null", "[16]"])
  func shapesAreIntegersFromZero(size: String) throws {
    try expectRefused(one(#"{"dtype":"U8","shape":[\#(size)],"data_offsets":[0,16]}"#), "\"t\"", "shape")
  }

  @Test(arguments: ["[0.0,16]", "[0,16.0]", "[-16,0]", "[16,0]", "[null,16]", "[false,16]", "[\"0\",16]", "[0,1.6e1]"])
  func offsetsAreTwoIntegersInOrder(offsets: String) throws {
    try expectRefused(one(#"{"dtype":"U8","shape":[16],"data_offsets":\#(offsets)}"#), "\"t\"", "data_offsets")
  }

  @Test func minusZeroIsRefusedButAMinusInANameIsFine() throws {
    try expectRefused(one(#"{"dtype":"U8","shape":[16],"data_offsets":[-0,16]}"#), "negative")
    try expectRefused(safetensors(#"{"t":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}"#), "negative number at byte 36")
    let named = try header(safetensors(#"{"a-0\"-1\\":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#))
    #expect(named.tensors.map(\.name) == [#"a-0"-1\"#])
  }

  @Test(arguments: DType.allCases) func everyTypeIsRead(dtype: DType) throws {
    let bytes = 3 * dtype.size
    let file = safetensors(
      #"{"t":{"dtype":"\#(dtype.name)","shape":[3],"data_offsets":[0,\#(bytes)]}}"#, data: [UInt8](repeating: 0, count: bytes))
    let record = try #require(try header(file).tensors.first)
    #expect(record.dtype == dtype)
    #expect(record.count == 3)
    #expect(record.byteCount == bytes)
  }

  @Test func otherTypesAreRefusedByName() throws {
    for packed in ["F4", "F6_E2M3", "F6_E3M2"] {
      try expectRefused(
        one(#"{"dtype":"\#(packed)","shape":[32],"data_offsets":[0,16]}"#), "\"t\"", packed, "less than a byte")
    }
    for unknown in ["F128", "f32", "", "F8_E4M3FNUZ", " F32"] {
      try expectRefused(
        one(#"{"dtype":"\#(unknown)","shape":[4],"data_offsets":[0,16]}"#), "\"t\"", "\"\(unknown)\"", "unknown")
    }
  }

  // MARK: - Tiling

  /// U8 vectors with these offsets, over `size` bytes of data.
  private func spans(_ offsets: [(Int, Int)], size: Int) -> [UInt8] {
    let entries = offsets.enumerated().map { index, span in
      #""t\#(index)":{"dtype":"U8","shape":[\#(span.1 - span.0)],"data_offsets":[\#(span.0),\#(span.1)]}"#
    }
    return safetensors("{\(entries.joined(separator: ","))}", data: [UInt8](repeating: 0, count: size))
  }

  @Test func tensorsTileTheData() throws {
    #expect(try header(spans([(4, 8), (0, 4), (8, 16)], size: 16)).tensors.map(\.name) == ["t1", "t0", "t2"])
    // Empty tensors may stand at any seam, also several at one.
    #expect(try header(spans([(0, 4), (4, 4), (4, 8), (0, 0), (8, 8), (4, 4)], size: 8)).tensors.count == 6)
    try expectRefused(spans([(0, 4), (2, 6)], size: 6), "overlap", "\"t0\"", "\"t1\"")
    try expectRefused(spans([(0, 8), (2, 2), (8, 10)], size: 10), "overlap", "\"t1\"")
    try expectRefused(spans([(0, 4), (5, 8)], size: 8), "hole of 1 bytes", "\"t1\"")
    try expectRefused(spans([(1, 4)], size: 4), "hole of 1 bytes")
    try expectRefused(spans([(0, 4)], size: 5), "1 bytes after")
    try expectRefused(spans([(0, 4)], size: 3), "truncated")
    try expectRefused(spans([], size: 1), "1 bytes after")
    try expectRefused(spans([(0, 0), (9, 9)], size: 0), "hole")
  }

  @Test func offsetsThatDoNotFitAreRefused() throws {
    let far = Int.max - 7
    try expectRefused(
      safetensors(#"{"t":{"dtype":"U8","shape":[\#(far)],"data_offsets":[0,\#(far)]}}"#), "truncated")
    try expectRefused(
      safetensors(#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[\#(Int.max - 1),\#(Int.max)]}}"#), "hole")
  }

  // MARK: - Metadata and names

  @Test func metadataKeepsItsOrder() throws {
    let read = try header(safetensors(#"{"__metadata__":{"z":"1","format":"pt","a":""}}"#))
    #expect(read.metadata.map(\.key) == ["z", "format", "a"])
    #expect(read.metadata.map(\.value) == ["1", "pt", ""])
    #expect(read.tensors.isEmpty)
  }

  @Test(arguments: ["[]", "\"pt\"", "null", "1", #"{"a":1}"#, #"{"a":null}"#, #"{"a":{"b":"c"}}"#, #"{"a":["b"]}"#])
  func metadataIsAnObjectOfStrings(value: String) throws {
    try expectRefused(safetensors(#"{"__metadata__":\#(value)}"#), "__metadata__")
  }

  @Test func namesOfAllKinds() throws {
    let read = try header(
      safetensors(
        #"{"é\u00e9\ud83d\ude00":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        data: [0]))
    #expect(read.tensors.map(\.name) == ["éé😀", ""])
  }

  @Test func messagesShowLongAndHostileNamesShortened() throws {
    let long = String(repeating: "n", count: 1_000_000)
    let path = try folder.write(
      safetensors(#"{"\u0001\n\#(long)":{"dtype":"X","shape":[],"data_offsets":[0,0]}}"#), to: "long.safetensors")
    do throws(Failure) {
      _ = try SafetensorsHeader(reading: File(path: path, mode: .read))
      Issue.record("accepted")
    } catch {
      #expect(error.message.utf8.count < 500)
      #expect(error.message.contains("save the model in a float type"))
      #expect(error.message.unicodeScalars.allSatisfy { $0.value >= 0x20 })
    }
  }

  // MARK: - Size and noise

  @Test func twentyThousandTensors() throws {
    let names = (0..<20_000).map { "model.layers.\($0 / 300).mlp.experts.\($0 % 300).down_proj.weight" }
    let read = try header(sound(names.map { ($0, 2) }))
    #expect(read.tensors.count == 20_000)
    #expect(read.tensors[19_999].offset == read.dataOffset + 39_998)
  }

  @Test func hugeRankAndManyDimensionsOfOne() throws {
    let ones = [String](repeating: "1", count: 10_000).joined(separator: ",")
    let read = try header(safetensors(#"{"t":{"dtype":"U8","shape":[\#(ones)],"data_offsets":[0,1]}}"#, data: [7]))
    #expect(read.tensors[0].shape.count == 10_000)
    #expect(read.tensors[0].count == 1)
  }

  /// Whatever a changed byte makes of a sound file, it is either refused or still tiles its data: nothing traps.
  @Test func everyBrokenByteIsRefusedOrHarmless() throws {
    let file = safetensors(
      #"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"U8","shape":[8],"data_offsets":[24,32]}}"#,
      data: [UInt8](repeating: 0, count: 32))
    let text = Array(file[8..<(file.count - 32)])
    var refused = 0
    for position in text.indices {
      for replacement in Array("-0129\"{}[],:. \\eu\u{0}".utf8) + [0xFF, text[position] ^ 1] {
        var broken = text
        broken[position] = replacement
        guard let read = try? SafetensorsHeader(text: broken, fileSize: file.count, path: "fuzz") else {
          refused += 1
          continue
        }
        #expect(read.tensors.reduce(0) { $0 + $1.byteCount } == 32)
        #expect(read.tensors.allSatisfy { $0.offset >= read.dataOffset && $0.offset + $0.byteCount <= file.count })
      }
    }
    #expect(refused > text.count * 10)
    for length in 0..<text.count {
      #expect(throws: Failure.self) {
        try SafetensorsHeader(text: Array(text[..<length]), fileSize: file.count, path: "cut")
      }
    }
  }
}
