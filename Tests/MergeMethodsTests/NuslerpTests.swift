import Glibc
import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct NuslerpTests {
  @Test func theExampleOfTaskVectorsIsMet() throws {
    let expected = [
      0.100925344, -0.005606964, 0.005606964, 0.084104453, 0.078497489, -0.078497489, 0.011213927, 0.067283562, 0.033641781,
      -0.011213927, -0.050462672, 0.117746234,
    ]
    let models = Array(Example.models[..<2])
    let merged = try Runner().merge(make("nuslerp"), models, base: Example.base)
    #expect(distance(merged.values, zip(Example.base, expected).map { $0 + $1 }) <= Example.tolerance && merged.sweeps == 2)
    let alone = try Runner().merge(make("nuslerp"), Array(Example.deltas[..<2]))
    #expect(distance(alone.values, expected) <= Example.tolerance)
  }

  @Test func theWeightsSayWhere() throws {
    // A third of a quarter circle; weights that cancel: the middle.
    let merged = try Runner().merge(make("nuslerp", ["weight": [4, 2]]), [[3, 0], [0, 3]])
    #expect(distance(merged.values, [3 * cos(.pi / 6), 3 * sin(.pi / 6)]) <= 1e-14)
    #expect(merged.decision["t"]?.double == 1.0 / 3)
    #expect(try Runner().merge(make("nuslerp", ["weight": [1, -1]]), [[3, 0], [0, 3]]).decision["t"]?.double == 0.5)
  }

  @Test func rowsAndColumnsAreVectorsOfTheirOwn() throws {
    // Rows: a right angle, and the same direction; columns: two right angles and two lines.
    let (a, b) = ([1.0, 0, 0, 2], [0.0, 1, 0, 4])
    let half = 0.5.squareRoot()
    let rows = try Runner().merge(make("nuslerp", ["nuslerp_flatten": false]), [a, b], shape: [2, 2])
    #expect(distance(rows.values, [half, half, 0, 3]) <= 1e-15 && rows.decision["linear"] == 1)
    let columns = try Runner().merge(
      make("nuslerp", ["nuslerp_flatten": false, "nuslerp_row_wise": true]), [a, b], shape: [2, 2])
    // Column 0 is [1, 0] and [0, 0]: a line; column 1 is [0, 2] and [1, 4].
    let angle = acos(8 / (2 * 17.0.squareRoot()))
    let factor = sin(angle / 2) / sin(angle)
    #expect(distance(columns.values, [0.5, factor, 0, 6 * factor]) <= 1e-14 && columns.decision["slices"] == 2)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func opposedSlicesOfOneElementDoNotExplode(dtype: DType) throws {
    for (shape, rowWise) in [([3, 1], false), ([1, 3], true)] {
      let merged = try Runner(dtype: dtype).merge(
        make("nuslerp", ["nuslerp_flatten": false, "nuslerp_row_wise": .bool(rowWise), "weight": [3, 1]]),
        [[1, 0.5, -3], [-1, 0.25, 1]], shape: shape)
      #expect(merged.values == [0.5, 0.4375, -2])
    }
  }

  @Test func mergekitTakesAZeroVectorForOrthogonal() throws {
    let zero = try Runner().merge(make("nuslerp", ["weight": [3, 1]]), [[0, 0], [4, 8]])
    #expect(zero.values == [1, 2] && zero.decision["linear"] == true)
    let tool = try Runner().merge(make("nuslerp", ["weight": [3, 1], "compat": "mergekit"]), [[0, 0], [4, 8]])
    let factor = sin(0.125 * Double.pi)
    #expect(distance(tool.values, [4 * factor, 8 * factor]) <= 1e-15)
  }

  @Test func theMethodTakesTwoModels() {
    let schema = Nuslerp.schema
    expectFailure(.method, "at least 2") { try schema.check(models: 1, hasBase: true) }
    expectFailure(.method, "at most 2") { try schema.check(models: 3, hasBase: false) }
  }
}
