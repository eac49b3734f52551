import LinearAlgebra
import Testing

@testable import MergeMethods

@Suite struct TiesInMemoryTests {
  private func merge(_ vectors: [[Double]], density: Double) -> [Double] {
    let matrices = vectors.map { vector -> DenseMatrix in
      let matrix = DenseMatrix(rows: 1, columns: vector.count)
      for i in vector.indices { matrix.values[i] = vector[i] }
      return matrix
    }
    _ = TiesInMemory.merge(matrices, density: density)
    return (0..<vectors[0].count).map { matrices[0].values[$0] }
  }

  @Test func signsAreElectedByMass() {
    #expect(merge([[1, -3, 2], [-0.5, 1, 4], [0.25, 1, -1]], density: 1) == [0.625, -3, 3])
    // A sum of zero elects plus; zeros do not count.
    #expect(merge([[1, 0, -2], [-1, 5, 0]], density: 1) == [1, 5, -2])
  }

  @Test func trimmingKeepsTheLargestAndOfEqualsTheLast() {
    #expect(merge([[1, -2, 2, 3]], density: 0.5) == [0, 0, 2, 3])
    #expect(merge([[5, 1, 1, 1]], density: 0.74) == [5, 0, 0, 1])
    #expect(merge([[5, 1, 1, 1]], density: 0) == [0, 0, 0, 0])
    #expect(merge([[5, 0, 0, 1]], density: 1) == [5, 0, 0, 1])
  }
}
