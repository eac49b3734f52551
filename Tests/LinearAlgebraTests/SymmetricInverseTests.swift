import Platform
import Testing

@testable import LinearAlgebra

// A X = I is tested: an inverse of relative error e leaves about e cond(A). The matrices are G + n I for a Gram matrix G of n vectors, whose
// eigenvalues are in [n, 3 n] or so; sums of n products are off by n units.
@Suite struct SymmetricInverseTests {
  private func matrix(_ n: Int, _ seed: UInt64) -> Matrix {
    var random = SplitMix64(state: seed)
    var values = random.gram(n, rank: n)
    for i in 0..<n { values[i * n + i] += Double(n) }
    return Matrix(rows: n, columns: n, values)
  }

  /// The lower triangle, and above it what must not be read.
  private func lower(_ a: Matrix) -> [Double] {
    var values = a.values
    for i in 0..<a.rows { for j in (i + 1)..<max(i + 1, a.rows) { values[i * a.rows + j] = 1e30 } }
    return values
  }

  private func whole(_ lower: [Double], _ n: Int) -> Matrix {
    var values = lower
    for i in 0..<n { for j in 0..<i { values[j * n + i] = lower[i * n + j] } }
    return Matrix(rows: n, columns: n, values)
  }

  // Cholesky alone, one cut, and cuts of halves of unequal length.
  @Test(arguments: isOptimised ? [1, 2, 128, 129, 200, 290] : [1, 2, 129]) func theProductIsTheIdentity(n: Int) {
    let a = matrix(n, 11)
    var values = lower(a)
    let isDefinite = values.withUnsafeMutableBufferPointer { SymmetricInverse.replace($0.baseAddress!, size: n) }
    #expect(isDefinite)
    #expect(whole(values, n).times(a).distance(to: .identity(n)) <= Double(n) * 0x1p-50)
  }

  @Test(arguments: isOptimised ? [128, 200, 290] : [129]) func itHoldsInBinary32(n: Int) {
    let a = matrix(n, 12)
    var values = lower(a).map { Float($0) }
    let isDefinite = values.withUnsafeMutableBufferPointer { SymmetricInverse.replace($0.baseAddress!, size: n) }
    #expect(isDefinite)
    #expect(whole(values.map { Double($0) }, n).times(a).distance(to: .identity(n)) <= Double(n) * 0x1p-21)
  }

  // Negative in the first block, and only in what is left of the second one.
  @Test(arguments: [0, 250]) func whatIsNotDefiniteIsRefused(place: Int) {
    let n = 260
    var values = lower(matrix(n, 13))
    values[place * n + place] = -1
    #expect(!values.withUnsafeMutableBufferPointer { SymmetricInverse.replace($0.baseAddress!, size: n) })
  }

  @Test func aCrewChangesNoBit() {
    let n = 500
    // Diagonally dominant: cheap to make at this size.
    var random = SplitMix64(state: 14)
    var values = random.values(n * n)
    for i in 0..<n { values[i * n + i] = Double(n) }
    nonisolated(unsafe) let (alone, shared) = (DenseMatrix(rows: n, columns: n), DenseMatrix(rows: n, columns: n))
    for matrix in [alone, shared] { matrix.values.update(from: values, count: n * n) }
    #expect(SymmetricInverse.replace(alone.values, size: n))
    let monitor = Monitor()
    let crew = Crew(size: 3, monitor: monitor)
    WorkerPool.run(count: 3) { worker in
      if worker == 0 {
        crew.enlist { _ = SymmetricInverse.replace(shared.values, size: n) }
      } else {
        for _ in 0..<2000 { _ = monitor.locked { crew.help() } }
      }
    }
    #expect(shared.matrix.values == alone.matrix.values)
  }
}
