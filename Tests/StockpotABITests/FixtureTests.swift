import CStockpot
import Glibc
import StockpotABI
import Testing

/// The checkpoints that pytest reads as well (bindings/python/tests/test_parity.py), and the same expected bytes.
@Suite struct FixtureTests {
  private static let fixtures: String = {
    let parts = #filePath.split(separator: "/").dropLast(2)
    return "/" + parts.joined(separator: "/") + "/Fixtures"
  }()

  /// method, parameters, FNV-1a hash of the merged bytes of all tensors in the order of their names: the lines of parity.tsv.
  static let cases: [[String]] = {
    guard let file = fopen(fixtures + "/parity.tsv", "r") else { return [] }
    defer { fclose(file) }
    var lines: [[String]] = []
    var buffer = [CChar](repeating: 0, count: 4096)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
      let line = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
      let cells = line.split(whereSeparator: \.isNewline).first?.split(separator: "\t").map(String.init) ?? []
      if cells.count == 3, !line.hasPrefix("#") { lines.append(cells) }
    }
    return lines
  }()

  @Test func thereAreCases() { #expect(Self.cases.count >= 7) }

  @Test(arguments: cases)
  func mergedBytesAreTheExpectedOnes(row: [String]) throws {
    var template = Array("/tmp/stockpot-parity-XXXXXX".utf8CString)
    let folder = String(cString: mkdtemp(&template)!)
    let output = folder + "/out.safetensors"
    defer {
      for name in ["out.safetensors", "out.merge_report.json", "out.merge_report.csv", "out.yoyo_scale.csv"] {
        unlink(folder + "/" + name)
      }; rmdir(folder)
    }
    let models = (0..<5).map { #"{"model": "\#(Self.fixtures)/digits-vit/soup-\#($0)"}"# }.joined(separator: ", ")
    let recipe =
      #"{"merge_method": "\#(row[0])", "base_model": "\#(Self.fixtures)/digits-vit/base", "models": [\#(models)], "parameters": \#(row[1]), "dtype": "bfloat16"}"#
    var error = sp_error()
    error.struct_size = UInt32(MemoryLayout<sp_error>.size)
    var job: OpaquePointer?
    try #require(sp_job_create(recipe, output, nil, &job, &error) == SP_OK, "\(message(error))")
    defer { sp_job_free(job) }
    try #require(sp_job_run(job, nil, nil, &error) == SP_OK, "\(message(error))")

    var checkpoint: OpaquePointer?
    try #require(sp_checkpoint_open(output, &checkpoint, &error) == SP_OK)
    defer { sp_checkpoint_free(checkpoint) }
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for index in 0..<sp_checkpoint_tensor_count(checkpoint) {
      var info = sp_tensor_info()
      info.struct_size = UInt32(MemoryLayout<sp_tensor_info>.size)
      try #require(sp_checkpoint_tensor_info(checkpoint, index, &info, &error) == SP_OK)
      var bytes = [UInt8](repeating: 0, count: Int(info.bytes))
      try #require(sp_checkpoint_read(checkpoint, index, &bytes, bytes.count, &error) == SP_OK)
      for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    }
    #expect(String(hash, radix: 16) == row[2])
  }

  private func message(_ error: sp_error) -> String {
    withUnsafeBytes(of: error.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
