import Platform
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct AffineCombinationTests {
  private struct Program: SweepProgram {
    let combination: AffineCombination
    func begin(_ tensor: TensorContext) throws(Failure) -> Step { combination.step(Decision()) }
  }

  private func merge(_ combination: AffineCombination, _ inputs: [[Double]], _ runner: Runner = Runner()) throws -> Merged {
    try runner.merge(Program(combination: combination), inputs)
  }

  @Test func theReferenceIsTheFirstOfTheLargestCoefficients() {
    #expect(AffineCombination([0.2, 0.5, 0.3], total: 1).reference == 1)
    #expect(AffineCombination([0.4, 0.2, 0.4], total: 1).reference == 0)
    #expect(AffineCombination([-5, -1, -2], total: -8).reference == 1)
    #expect(AffineCombination([0.2, 0.5, 0.3], total: 1, reference: 2).reference == 2)
  }

  @Test func lambdasLeaveTheRestToTheBase() {
    let weights = AffineCombination(lambdas: [0.25, 0.5], output: .weights)
    #expect(weights.coefficients == [0.25, 0.25, 0.5] && weights.total == 1 && weights.reference == 2)
    let known = AffineCombination(lambdas: [0.1, 0.1, 0.1], output: .weights, sum: 0.3)
    #expect(known.coefficients[0] == 1 - 0.3 && known.total == 1)
    let vector = AffineCombination(lambdas: [0.25, 0.5], output: .taskVector)
    #expect(vector.coefficients == [-0.75, 0.25, 0.5] && vector.total == 0 && vector.reference == 0)
  }

  @Test func aLoneCoefficientOfOneIsACopy() throws {
    let inputs: [[Double]] = [[1, -0.0, .nan], [4, 5, 6]]
    #expect(try merge(AffineCombination([1, 0], total: 1), inputs).copied == 0)
    #expect(try merge(AffineCombination([0, 1], total: 1), inputs).copied == 1)
    // A total of 1 by other coefficients, another total, or a coefficient of 1 beside others is computed.
    for (c, total) in [([1.0, 0.0], 2.0), ([2, -1], 1), ([0.5, 0.5], 1)] {
      #expect(try merge(AffineCombination(c, total: total), inputs).copied == nil, "\(c)")
    }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func everyReferenceGivesTheCombination(dtype: DType) throws {
    // Small whole numbers and quarters: exact in every type.
    let inputs: [[Double]] = [[1, 2, 3, -4], [8, 0, -4, 12], [2, 2, 2, 2]]
    let c = [0.25, 0.5, 2]
    for reference in [nil, 0, 1, 2] as [Int?] {
      let merged = try merge(AffineCombination(c, total: 2.75, reference: reference), inputs, Runner(dtype: dtype))
      #expect(merged.values == [8.25, 4.5, 2.75, 9])
    }
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func equalInputsAreKeptWhereTheTotalIsOne(dtype: DType) throws {
    // Seven times 1/7 rounded is not 1; the total says what is meant.
    var random = SplitMix64(state: 110)
    let values = random.values(50)
    let c = [Double](repeating: 1.0 / 7, count: 7)
    let merged = try merge(AffineCombination(c, total: 1), [[Double]](repeating: values, count: 7), Runner(dtype: dtype))
    #expect(merged.values == Memory(values, dtype).values)
  }

  @Test func aTaskVectorOfEqualInputsIsZero() throws {
    let merged = try merge(
      AffineCombination(lambdas: [0.3, 0.7], output: .taskVector), [[1, -2, 1e300], [1, -2, 1e300], [1, -2, 1e300]])
    #expect(merged.values == [0, 0, 0])
  }

  @Test func aRangeOfElementsCanBeComputed() {
    let inputs = [Memory([1, 2, 3, 4], .f64), Memory([5, 6, 7, 8], .f64)]
    let output = Memory([0, 0], .f64)
    let pointers = inputs.map { UnsafeRawPointer($0.start) }
    pointers.withUnsafeBufferPointer { table in
      AffineCombination([1, 1], total: 2).run(
        KernelInputs(table: table.baseAddress!, count: 2, dtype: .f64), from: 1, count: 2, output: output.start, .f64)
    }
    #expect(output.values == [8, 10] && output.isIntact)
  }
}
