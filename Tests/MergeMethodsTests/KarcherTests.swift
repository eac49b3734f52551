import Glibc
import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct KarcherTests {
  private static let exact: JSON = ["max_iter": 100, "tol": 1e-13]

  @Test func twoMeetInTheMiddle() throws {
    let merged = try Runner().merge(make("karcher", Self.exact), [[3, 0], [cos(2.4), sin(2.4)]])
    #expect(distance(merged.values, [2 * cos(1.2), 2 * sin(1.2)]) <= 1e-14 && merged.sweeps == 2)
  }

  @Test func onACircleItIsTheMeanAngle() throws {
    let angles = [0.1, 0.3, 1.1, 1.9]
    let merged = try Runner().merge(make("karcher", Self.exact), angles.map { [2 * cos($0), 2 * sin($0)] })
    #expect(distance(merged.values, [2 * cos(0.85), 2 * sin(0.85)]) <= 1e-13)
    #expect(merged.decision["iterations"]!.int! < 100 && merged.decision["step"]!.double! < 1e-12)
    // The start is the mean of the units, which is somewhere else.
    let start = try Runner().merge(make("karcher", ["max_iter": 0]), angles.map { [2 * cos($0), 2 * sin($0)] })
    #expect(distance(start.values, merged.values) > 0.01)
  }

  @Test func zerosCountInTheLengthOnly() throws {
    let merged = try Runner().merge(make("karcher"), [[0, 0], [3, 4]])
    #expect(distance(merged.values, [1.5, 2]) <= 1e-15)
    #expect(try Runner().merge(make("karcher"), [[0, -0.0], [0, 0]]).copied == 0)
    let tool = try Runner().merge(make("karcher", ["compat": "mergekit"]), [[1e-7, 0], [0, 1e-7]])
    #expect(tool.values == [0, 0])
    #expect(norm(try Runner().merge(make("karcher"), [[1e-7, 0], [0, 1e-7]]).values) > 0.99e-7)
  }

  @Test(arguments: [DType.f64, .f32, .bf16]) func equalModelsAreKept(dtype: DType) throws {
    let values = [0.1, -0.7, 0, -0.0, 3]
    #expect(try Runner(dtype: dtype).merge(make("karcher"), [values, values, values]).copied == 0)
  }

  @Test func opposedVectorsLeaveTheFirst() throws {
    let merged = try Runner().merge(make("karcher"), [[3, 4], [-3, -4]])
    #expect(distance(merged.values, [3, 4]) <= 1e-14)
  }
}
