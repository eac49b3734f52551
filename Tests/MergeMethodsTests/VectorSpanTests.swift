import Testing

@testable import MergeMethods

@Suite struct VectorSpanTests {
  // x_0 = (1, 0), x_1 = (1, 2), x_2 = (0, 3).
  private let points = [[1.0, 0], [1, 2], [0, 3]]

  private func gram(_ rows: [[Double]]) -> GramMatrix {
    GramMatrix(full: rows.flatMap { a in rows.map { b in a[0] * b[0] + a[1] * b[1] } }, size: rows.count)
  }

  private var aboutFirst: VectorSpan {
    VectorSpan(crossTerms: gram([points[0]] + points.dropFirst().map { [$0[0] - points[0][0], $0[1] - points[0][1]] }))
  }

  @Test func bothBasesKnowTheSameVectors() {
    for span in [aboutFirst, VectorSpan(differences: gram(points))] {
      #expect((0..<3).map { span.norm(span.vector($0)) } == [1, 5.0.squareRoot(), 3])
      #expect(span.product(span.vector(1), span.vector(2)) == 6)
      // 2 x_0 - x_1 + x_2 = (1, 1).
      let combined = span.combination([2, -1, 1])
      #expect(span.product(combined, combined) == 2)
      let inputs = span.inputs(combined)
      #expect(inputs.coefficients == [2, -1, 1] && inputs.total == 2)
    }
  }

  @Test func equalVectorsAreOnePoint() {
    #expect(!aboutFirst.isOnePoint)
    #expect(VectorSpan(crossTerms: gram([[1, 2], [0, 0], [0, 0]])).isOnePoint)
  }
}
