import Platform
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct CentredSweepsTests {
  /// One Gram sweep about a centre, then one that writes.
  private final class Program: SweepProgram, @unchecked Sendable {
    let rows: CentredRows
    let beta: Double
    let coefficients: [Double]
    private(set) var gram: GramMatrix?
    private(set) var first: Sweep?

    init(_ rows: CentredRows, beta: Double, _ coefficients: [Double]) {
      (self.rows, self.beta, self.coefficients) = (rows, beta, coefficients)
    }

    func begin(_ tensor: TensorContext) throws(Failure) -> Step {
      let sweep = Sweep.centredGram(rows, inputs: tensor.inputCount) { gram in
        self.gram = gram
        return .centredCombination(
          self.rows, centreCoefficient: self.beta, coefficients: self.coefficients, Decision([.init(key: "done", value: true)]))
      }
      first = sweep
      return .sweep(sweep)
    }
  }

  private let models: [[Double]] = [[1, 5, -2, 0], [2, 1, 4, 8], [6, 3, 1, -4]]

  private func median(_ count: Int) -> CentredRows.Centre { .median(.lower, SortingNetwork(count: count)) }

  @Test func theGramMatrixHasTheCentreAsRowZero() throws {
    let program = Program(CentredRows(scales: [1, 1, 1], centre: median(3)), beta: 1, [0, 0, 0])
    _ = try Runner().merge(program, models)
    // m = (2, 3, 1, 0); residuals (-1, 2, -3, 0), (0, -2, 3, 8), (4, 0, 0, -4). Whole numbers: exact.
    #expect(
      program.gram?.full == [14, 1, -3, 8, 1, 14, -13, -4, -3, -13, 77, -32, 8, -4, -32, 32])
    #expect(program.gram?.size == 4)
    #expect(program.first?.sums == 10 && program.first?.squares == [0, 4, 7, 9] && program.first?.writes == false)
  }

  @Test func theCombinationAddsCentreAndInputs() throws {
    let program = Program(CentredRows(scales: [1, 1, 1], centre: median(3)), beta: 2, [1, 0, -0.5])
    let merged = try Runner().merge(program, models)
    #expect(merged.values == [2, 9.5, -0.5, 2])
    #expect(merged.decision["done"] == true && merged.sweeps == 2)
  }

  @Test func scalesAndAffineCentresAreUsedByBoth() throws {
    let rows = CentredRows(scales: [2, 1, 0.5], centre: .affine(weights: [0.5, 0.5, 0]))
    let program = Program(rows, beta: 1, [0, 0, 1])
    let merged = try Runner().merge(program, models)
    // u = (2, 10, -4, 0), (2, 1, 4, 8), (3, 1.5, .5, -2); m = (2, 5.5, 0, 4).
    #expect(merged.values == [5, 7, 0.5, 2])
    #expect(program.gram?[0, 0] == 50.25)
    // u_1 - m = (0, 4.5, -4, -4) and u_2 - m is its opposite.
    #expect(program.gram?[1, 1] == 52.25 && program.gram?[1, 2] == -52.25)
  }

  @Test(arguments: [DType.f32, .bf16, .f16]) func otherTypesGiveTheSameNumbers(dtype: DType) throws {
    let program = Program(CentredRows(scales: [1, 1, 1], centre: median(3)), beta: 2, [1, 0, -0.5])
    #expect(try Runner(dtype: dtype).merge(program, models).values == [2, 9.5, -0.5, 2])
    #expect(program.gram?.full == [14, 1, -3, 8, 1, 14, -13, -4, -3, -13, 77, -32, 8, -4, -32, 32])
  }
}
