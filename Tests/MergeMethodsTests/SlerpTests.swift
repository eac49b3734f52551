import Glibc
import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct SlerpTests {
  private func merge(_ parameters: JSON, _ a: [Double], _ b: [Double], _ runner: Runner = Runner()) throws -> Merged {
    try runner.merge(make("slerp", parameters), [a, b])
  }

  @Test func theExampleIsMet() throws {
    let merged = try merge(["t": 0.5], Example.models[0], Example.models[1])
    let expected = [
      0.590387862, -1.005660680, 0.255167635, 1.576035395, 0.170111757, -0.820539063, -0.390256383, 0.860565358, 0.630414158,
      0.190124905, -0.345226801, 1.205792159,
    ]
    #expect(distance(merged.values, expected) <= Example.tolerance)
    #expect((merged.decision["cosine"]!.double! - 0.997373017).magnitude <= Example.tolerance)
    #expect(merged.decision["linear"] == false && merged.sweeps == 2)
  }

  @Test func theExampleOfTaskVectorsIsMet() throws {
    // NuSLERP of flattened task vectors is the same formula.
    let merged = try merge(["t": 0.5], Example.deltas[0], Example.deltas[1])
    let expected = [
      0.100925344, -0.005606964, 0.005606964, 0.084104453, 0.078497489, -0.078497489, 0.011213927, 0.067283562, 0.033641781,
      -0.011213927, -0.050462672, 0.117746234,
    ]
    #expect(distance(merged.values, expected) <= Example.tolerance)
  }

  @Test func theExampleOfSdMechaIsMet() throws {
    let merged = try merge(["t": 0.5, "compat": "sd_mecha"], Example.deltas[0], Example.deltas[1])
    let expected = [
      0.101077320, -0.000785275, 0.003589868, 0.087503124, 0.072694886, -0.078304072, 0.015593513, 0.069722040, 0.025746094,
      -0.016995809, -0.047734067, 0.118858404,
    ]
    #expect(distance(merged.values, expected) <= Example.tolerance)
  }

  @Test func aBaseIsTheFirstOfTheTwo() throws {
    let merged = try Runner().merge(make("slerp", ["t": 0.25]), [Example.models[1]], base: Example.models[0])
    #expect(merged.values == (try merge(["t": 0.25], Example.models[0], Example.models[1])).values)
  }

  @Test(arguments: ["none", "mergekit", "fusion_bench", "sd_mecha"]) func theEndsAreTheInputsBitForBit(compat: String) throws {
    let (a, b) = (Example.deltas[0], Example.deltas[1])
    #expect(try merge(["t": 0, "compat": .string(compat)], a, b).copied == 0)
    #expect(try merge(["t": 1, "compat": .string(compat)], a, b).copied == 1)
  }

  @Test func orthogonalVectorsOfOneLengthKeepIt() throws {
    // Along the quarter circle: cos and sin of t pi / 2.
    for t in [0.1, 0.5, 0.75] {
      let merged = try merge(["t": .double(t)], [3, 0], [0, 3])
      #expect(distance(merged.values, [3 * cos(t * .pi / 2), 3 * sin(t * .pi / 2)]) <= 1e-14)
    }
  }

  @Test func nearlyParallelVectorsAreJoinedByALine() throws {
    let (a, b) = ([1.0, 0], [1.0, 0.01])
    let line = try merge(["t": 0.25], a, b)
    #expect(line.decision["linear"] == true && distance(line.values, [1, 0.0025]) <= 1e-16)
    // 1 / sqrt(1 + 1e-4) = 0.99995: below this threshold it is an arc.
    let arc = try merge(["t": 0.25, "dot_threshold": 0.99999], a, b)
    #expect(arc.decision["linear"] == false && arc.values[0] > line.values[0])
    let opposite = try merge(["t": 0.25], a, [-1, -0.01])
    #expect(opposite.decision["linear"] == true && distance(opposite.values, [0.5, -0.0025]) <= 1e-16)
  }

  @Test func aZeroVectorIsJoinedByALine() throws {
    let merged = try merge(["t": 0.25], [0, 0], [4, 8])
    #expect(merged.values == [1, 2] && merged.decision["linear"] == true)
    let other = try merge(["t": 0.25], [4, 8], [0, 0])
    #expect(other.values == [3, 6])
  }

  @Test(arguments: ["mergekit", "fusion_bench"]) func theToolsTakeAZeroVectorForOrthogonal(compat: String) throws {
    let merged = try merge(["t": 0.25, "compat": .string(compat)], [0, 0], [4, 8])
    let factor = sin(0.125 * Double.pi)
    #expect(distance(merged.values, [4 * factor, 8 * factor]) <= 1e-15)
  }

  @Test(arguments: [0.1, 0.5, 0.9]) func sdMechaInterpolatesTheNorm(t: Double) throws {
    let merged = try merge(["t": .double(t), "compat": "sd_mecha"], Example.deltas[0], Example.deltas[2])
    let expected = (1 - t) * norm(Example.deltas[0]) + t * norm(Example.deltas[2])
    #expect((norm(merged.values) - expected).magnitude <= 1e-15)
  }

  @Test func equalInputsAreKeptWhateverTheThreshold() throws {
    for threshold in [0.5, 0.9995, 1] {
      let merged = try merge(["t": 0.5, "dot_threshold": .double(threshold)], Example.base, Example.base)
      #expect(merged.values == Example.base, "threshold \(threshold)")
    }
    // A vector whose cosine with itself is exactly 1 in binary64.
    #expect(try merge(["t": 0.5, "dot_threshold": 1], [2, 0], [2, 0]).values == [2, 0])
  }

  @Test func theMethodTakesTwoInputs() {
    expectFailure(.method, "slerp takes two models", "3 inputs") {
      _ = try Runner().merge(make("slerp", ["t": 0.5]), Example.models)
    }
    expectFailure(.method, "1 inputs") { _ = try Runner().merge(make("slerp", ["t": 0.5]), [Example.base]) }
    expectFailure(.parameter, "slerp needs the parameter 't'") { _ = try make("slerp") }
  }
}
