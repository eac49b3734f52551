import JSON
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

@Suite struct RowGatherTests {
  private static let columns = 5

  /// Two matrices in memory, and a map over both.
  private func gather(_ text: String, types: (DType, DType) = (.f32, .f32), _ body: (RowGather, [[Double]]) throws -> Void)
    throws
  {
    let vocabulary = try Vocabulary(try JSON.parse(text, source: "vocabulary"))
    let heights = [7, 9]
    var generator = Generator(3)
    var values: [[Double]] = []
    var memory: [UnsafeMutableRawPointer] = []
    defer { for pointer in memory { pointer.deallocate() } }
    var sources: [Int: TensorInput] = [:]
    for (index, height) in heights.enumerated() {
      let type = index == 0 ? types.0 : types.1
      let numbers = (0..<height * Self.columns).map { _ in generator.next() }
      let pointer = UnsafeMutableRawPointer.allocate(byteCount: numbers.count * 8, alignment: 64)
      Cast.narrow(numbers, count: numbers.count, into: pointer, type)
      var rounded = [Double](repeating: 0, count: numbers.count)
      rounded.withUnsafeMutableBytes { Cast.convert(pointer, type, count: numbers.count, into: $0.baseAddress!, .f64) }
      values.append(rounded)
      memory.append(pointer)
      sources[index] = .memory(UnsafeRawPointer(pointer), type)
    }
    let paths = ["a", "b"]
    let map = try RowMap(
      vocabulary, runs: vocabulary.rows.first?.runs, input: 0, tensor: "embed", heights: heights, paths: paths,
      find: { paths.firstIndex(of: $0) })
    try body(RowGather(map, sources: sources, columns: Self.columns), values)
  }

  private func elements(_ gather: RowGather, _ range: Range<Int>) throws -> [Double] {
    let raw = UnsafeMutableRawPointer.allocate(byteCount: max(1, range.count * 8), alignment: 64)
    defer { raw.deallocate() }
    try gather.read(range.lowerBound, range.count, into: raw)
    var result = [Double](repeating: 0, count: range.count)
    result.withUnsafeMutableBytes { Cast.convert(raw, gather.dtype, count: range.count, into: $0.baseAddress!, .f64) }
    return result
  }

  private func row(_ values: [Double], _ index: Int) -> [Double] {
    Array(values[index * Self.columns..<(index + 1) * Self.columns])
  }

  @Test func everyRangeIsCutOutOfTheSameRows() throws {
    let text =
      #"{"size": 12, "padding": 2, "rows": {"a": [[0, 3, 4], [4, 0, 2]]}, "fill": [{"row": 6, "count": 2, "from": [["b", 7]]}, "#
      + #"{"row": 8, "from": []}, {"row": 9, "from": [["a", 1], ["b", 2]]}]}"#
    try gather(text) { gather, values in
      let (a, b) = (values[0], values[1])
      var expected = (3..<7).flatMap { row(a, $0) } + row(a, 0) + row(a, 1) + row(b, 7) + row(b, 8)
      expected += [Double](repeating: 0, count: Self.columns) + zip(row(a, 1), row(b, 2)).map { ($0 + $1) / 2 }
      let mean = (0..<Self.columns).map { column in
        (0..<10).reduce(0) { $0 + expected[$1 * Self.columns + column] } / 10
      }
      expected += mean + mean
      #expect(gather.dtype == .f64)
      for start in 0..<expected.count {
        for end in stride(from: start, through: expected.count, by: 7) {
          let got = try elements(gather, start..<end)
          #expect(got == Array(expected[start..<end]))
        }
      }
    }
  }

  @Test func oneTypeWithoutMeansStaysThatType() throws {
    let text = #"{"size": 9, "rows": {"a": [[0, 0, 7]]}, "fill": [{"row": 7, "from": [["b", 0]]}, {"row": 8, "from": []}]}"#
    try gather(text, types: (.bf16, .bf16)) { gather, values in
      #expect(gather.dtype == .bf16)
      let got = try elements(gather, 0..<45)
      #expect(got == values[0] + row(values[1], 0) + [Double](repeating: 0, count: Self.columns))
    }
    try gather(text, types: (.bf16, .f32)) { gather, values in
      #expect(gather.dtype == .f64)
      let got = try elements(gather, 0..<45)
      #expect(got == values[0] + row(values[1], 0) + [Double](repeating: 0, count: Self.columns))
    }
  }
}
