import JSON
import TensorKernels
import Testing

@testable import MergeMethods

/// The search against a sort, through TIES with sums: which elements stay tells the threshold and its ties. In release only: a tensor
/// that its sample does not cover takes debug code minutes, and MagnitudeBracketsTests has the kernels at small sizes.
@Suite(.enabled(if: isOptimised)) struct BracketSearchTests {
  /// Above the elements that a sample covers.
  private let count = 40_000

  private func kept(_ d: [Double], density: Double, dtype: DType) throws -> [Double] {
    let ties = try make("ties", ["density": .double(density), "merge": "sum", "elect": "none"])
    return try Runner(dtype: dtype).merge(ties, [d], base: d.map { _ in 0 }).values
  }

  private func check(_ d: [Double], _ what: String, dtype: DType) throws {
    for density in [0.001, 0.2, 0.5, 0.999] {
      let size = max(1, Int(Double(d.count) * density))
      let order = d.indices.sorted { (d[$0].magnitude, $1) > (d[$1].magnitude, $0) }
      var expected = [Double](repeating: 0, count: d.count)
      for i in order.prefix(size) { expected[i] = d[i] }
      let values = try kept(d, density: density, dtype: dtype)
      #expect(values.indices.first { values[$0] != expected[$0] } == nil, "\(what), \(density) of \(dtype)")
    }
  }

  @Test(arguments: [DType.f32, .f64, .bf16]) func fewMagnitudesWithManyTies(dtype: DType) throws {
    try check((0..<count).map { Double(($0 * 7919) % 5 - 2) }, "five values", dtype: dtype)
    try check([Double](repeating: -1, count: count), "all equal", dtype: dtype)
    try check([Double](repeating: 0, count: count), "all zero", dtype: dtype)
  }

  @Test(arguments: [DType.f32, .f64]) func magnitudesThatAllDiffer(dtype: DType) throws {
    var random = SplitMix64(state: 5)
    try check((0..<count).map { _ in Double(Float(random.signed())) }, "random", dtype: dtype)
    try check((0..<count).map { Double($0) }, "ascending", dtype: dtype)
  }

  /// Where the sample looks there is nothing of the rest.
  @Test(arguments: [DType.f32, .bf16]) func aSampleThatMisleads(dtype: DType) throws {
    let sample = MagnitudeSample(models: 1, elements: count)
    for (inside, outside) in [(1.0, 4.0), (4.0, 1.0)] {
      var d = (0..<count).map { outside * (1 + Double($0 % 100) / 128) }
      for range in sample.ranges ?? [] { for i in range { d[i] = inside * (1 + Double(i % 64) / 64) } }
      try check(d, "inside \(inside)", dtype: dtype)
    }
  }
}
