import Platform
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct KernelProgramsTests {
  @Test func combineIsTheLinearCombination() throws {
    let models = Example.models
    let merged = try Runner().merge(CombineProgram(coefficients: [0.5, -2, 0.25]), models)
    let expected = (0..<12).map { i -> Double in 0.5 * models[0][i] - 2 * models[1][i] + 0.25 * models[2][i] }
    // One element is three products and sums of numbers up to 5.
    #expect(distance(merged.values, expected) <= 5e-15)
    #expect(merged.sweeps == 1)
  }

  @Test func combineOfEqualInputsWithSumOneIsExact() throws {
    let merged = try Runner().merge(
      CombineProgram(coefficients: [0.5, 0.25, 0.25]), [Example.base, Example.base, Example.base])
    #expect(merged.values == Example.base)
  }

  @Test func combineWithOneCoefficientOfOneIsACopy() throws {
    #expect(try Runner().merge(CombineProgram(coefficients: [1, 0]), Array(Example.models[..<2])).copied == 0)
    #expect(try Runner().merge(CombineProgram(coefficients: [0, 1]), Array(Example.models[..<2])).values == Example.models[1])
  }

  @Test func gramOfDifferencesIsThatOfTheExample() throws {
    let program = GramProgram(hasReference: true)
    #expect(program.result == [])
    _ = try Runner().merge(program, Example.models, base: Example.base)
    let expected = [0.0653, 0.0301, 0.0410, 0.0301, 0.0398, 0.0126, 0.0410, 0.0126, 0.0491]
    // The inputs are decimals: w0 + d - w0 is off by a unit of 1, relative to 0.1.
    #expect(distance(program.result, expected) <= 1e-15)
  }

  @Test func gramOfInputsIsThatOfTheVectors() throws {
    let program = GramProgram(hasReference: false)
    _ = try Runner().merge(program, Example.deltas)
    #expect(distance(program.result, [0.0653, 0.0301, 0.0410, 0.0301, 0.0398, 0.0126, 0.0410, 0.0126, 0.0491]) <= 1e-16)
  }

  @Test func bothTakeWhatIsNotFinite() throws {
    #expect(CombineProgram(coefficients: [1]).acceptsNonFinite && GramProgram(hasReference: false).acceptsNonFinite)
    let program = GramProgram(hasReference: false)
    _ = try Runner().merge(program, [[1, .nan], [1, 2]])
    #expect(program.result[0].isNaN && program.result[1].isNaN && program.result[3] == 5)
    let merged = try Runner().merge(CombineProgram(coefficients: [1, 1]), [[1, .infinity], [1, 2]])
    #expect(merged.values[0] == 2 && !merged.values[1].isFinite)
  }

  @Test func emptyTensorsGiveZeros() throws {
    let program = GramProgram(hasReference: false)
    _ = try Runner().merge(program, [[], []])
    #expect(program.result == [0, 0, 0, 0])
    #expect(try Runner().merge(CombineProgram(coefficients: [1, 2]), [[], []]).values == [])
  }
}
