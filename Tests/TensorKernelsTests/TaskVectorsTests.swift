import Testing

@testable import TensorKernels

// Exact: differences are rounded once, filters only put zeros.
@Suite struct TaskVectorsTests {
  private func inputs(_ models: Int, _ count: Int, _ dtype: DType, seed: UInt64, misalignment: Int = 0) -> Inputs {
    var random = SplitMix64(state: seed)
    return Inputs((0...models).map { _ in random.values(count) }, dtype, misalignment: misalignment)
  }

  @Test(arguments: kernelTypes) func rowsAreTheDifferencesFromTheBase(dtype: DType) {
    for count in lengths where count <= 4096 {
      for misalignment in [0, 1] {
        let inputs = inputs(3, count, dtype, seed: 61, misalignment: misalignment)
        let (rows, poison) = rows(noFilters(3), inputs, count: count)
        let expected = inputs.differences
        for k in 0..<3 { #expect(sameBits(rows[k], expected[k]) == nil, "\(count) of \(dtype)") }
        #expect(poison == 0)
      }
    }
  }

  @Test(arguments: kernelTypes) func aBlockMayBeginAnywhere(dtype: DType) {
    // As the rows of tsd_v2 do: 29 elements each.
    let inputs = inputs(2, 29 * 40 + 5, dtype, seed: 62)
    let expected = inputs.differences
    for from in [1, 3, 29, 58, 16 * 29] {
      for count in [0, 1, 29, 64] {
        let rows = rows(noFilters(2), inputs, from: from, count: count).rows
        for k in 0..<2 { #expect(rows[k] == Array(expected[k][from..<from + count]), "\(count) from \(from)") }
      }
    }
  }

  @Test(arguments: kernelTypes, [Double.nan, .infinity, -.infinity]) func anythingNotFiniteIsPoison(dtype: DType, value: Double)
  {
    for input in 0..<3 {
      for element in [0, 5, 15, 1024, 1040] {
        var values = [[Double]](repeating: [Double](repeating: 1, count: 1041), count: 3)
        values[input][element] = value
        let inputs = Inputs(values, dtype)
        #expect(rows(noFilters(2), inputs, count: 1041).poison.isNaN)
        // Outside the block it is nobody's business.
        let (before, after) = (0..<element, element + 1..<1041)
        for part in [before, after] {
          #expect(rows(noFilters(2), inputs, from: part.lowerBound, count: part.count).poison == 0)
        }
      }
    }
  }

  @Test func aDifferenceThatOverflowsIsPoison() {
    #expect(rows(noFilters(1), Inputs([[3e38], [-3e38]], .bf16), count: 1).poison.isNaN)
    #expect(rows(noFilters(1), Inputs([[3e38], [-3e38]], .f32), count: 1).poison == 0)
    #expect(rows(noFilters(1), Inputs([[1.5e308], [-1.5e308]], .f64), count: 1).poison.isNaN)
  }
}
