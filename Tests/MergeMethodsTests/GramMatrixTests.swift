import Platform
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct GramMatrixTests {
  private let matrix = GramMatrix(triangle: [1, 2, 3, 4, 5, 6], size: 3)

  @Test func theTriangleIsReadRowByRow() {
    #expect(matrix.full == [1, 2, 3, 2, 4, 5, 3, 5, 6])
    #expect(matrix[1, 2] == 5 && matrix[2, 1] == 5)
    #expect(GramMatrix(full: matrix.full, size: 3).full == matrix.full)
    #expect(GramMatrix(triangle: [0.0, 1, 2, 3, 9][1...3], size: 2).full == [1, 2, 2, 3])
    #expect(GramMatrix(triangle: [Double](), size: 0).full == [])
  }

  @Test func normsAreRootsOfTheDiagonal() {
    #expect((0..<3).map { matrix.norm($0) } == [1, 2, 6.0.squareRoot()])
  }

  @Test func zeroMeansEveryElement() {
    #expect(GramMatrix(full: [0, -0.0, 0, 0], size: 2).isZero)
    #expect(!GramMatrix(full: [0, 0, 0, 1e-300], size: 2).isZero)
    #expect(!GramMatrix(full: [0, .nan, .nan, 0], size: 2).isZero)
  }

  @Test func formIsTheBilinearForm() {
    #expect(matrix.form([1, 0, 0], [0, 0, 1]) == 3)
    #expect(matrix.form([1, 2, -1], [3, 1, 2]) == 25)
    #expect(matrix.form([1, -1, 0.5], [1, -1, 0.5]) == 0.5)
  }

  private typealias Making = (@escaping (GramMatrix) throws(Failure) -> Step) -> Sweep

  /// Run one Gram sweep over small tensors.
  private func gram(_ sweep: Making, _ inputs: [[Double]]) throws -> GramMatrix {
    struct One: SweepProgram, @unchecked Sendable {
      let step: Step
      func begin(_ tensor: TensorContext) throws(Failure) -> Step { step }
    }
    var found: GramMatrix?
    let made = sweep {
      found = $0
      return .finish(Decision())
    }
    #expect(!made.writes && made.granule == 1 && made.maxima == 0 && !made.wide)
    _ = try Runner().merge(One(step: .sweep(made)), inputs)
    let result = try #require(found)
    #expect(made.sums == result.size * (result.size + 1) / 2)
    // The squares are the diagonal.
    #expect(made.squares == RowPairs.diagonal(rows: result.size))
    return result
  }

  // Whole numbers: exact.
  private let x: [[Double]] = [[1, 2, 0], [3, 1, -1], [0, 4, 2]]

  @Test func differencesLeaveOutTheReference() throws {
    let about0 = try gram({ .gramOfDifferences(from: 0, inputs: 3, next: $0) }, x)
    // d = (2, -1, -1), (-1, 2, 2).
    #expect(about0.full == [6, -6, -6, 9])
    let about1 = try gram({ .gramOfDifferences(from: 1, inputs: 3, next: $0) }, x)
    // d = (-2, 1, 1), (-3, 3, 3).
    #expect(about1.full == [6, 12, 12, 27])
  }

  @Test func crossTermsHaveTheReferenceAsRowZero() throws {
    let about0 = try gram({ .gramWithCrossTerms(about: 0, inputs: 3, next: $0) }, x)
    #expect(about0.full == [5, 0, 3, 0, 6, -6, 3, -6, 9])
    let about1 = try gram({ .gramWithCrossTerms(about: 1, inputs: 3, next: $0) }, x)
    #expect(about1.full == [11, -6, -9, -6, 6, 12, -9, 12, 27])
  }

  @Test func inputsGiveTheirOwnProducts() throws {
    #expect(try gram({ .gramOfInputs(3, next: $0) }, x).full == [5, 5, 8, 5, 11, 2, 8, 2, 20])
  }
}
