import Checkpoints
import LinearAlgebra
import Platform
import TensorKernels
import Testing

@testable import MergeEngine

/// Orthogonal matrices whose entries are known: reflections at a vector, I - 2 v v^T / v^T v.
struct Reflection {
  let vector: [Double]

  /// Element i of column k.
  func callAsFunction(_ i: Int, _ k: Int) -> Double {
    (i == k ? 1 : 0) - 2 * vector[i] * vector[k] / vector.reduce(0) { $0 + $1 * $1 }
  }
}

/// sum_k sigma_k u_k v_k^T with orthonormal u and v.
struct KnownMatrix {
  let rows: Int
  let columns: Int
  let sigma: [Double]
  private let left: Reflection
  private let right: Reflection

  init(_ rows: Int, _ columns: Int, sigma: [Double]) {
    (self.rows, self.columns, self.sigma) = (rows, columns, sigma)
    var generator = Generator(UInt64(rows * 1000 + columns))
    left = Reflection(vector: (0..<rows).map { _ in generator.next() })
    right = Reflection(vector: (0..<columns).map { _ in generator.next() })
  }

  /// Only the largest `rank` singular values.
  func values(rank: Int) -> [Double] {
    (0..<rows * columns).map { place in
      let (i, j) = place.quotientAndRemainder(dividingBy: columns)
      return sigma.prefix(rank).enumerated().reduce(0.0) { $0 + $1.element * left(i, $1.offset) * right(j, $1.offset) }
    }
  }

  /// What the best matrix of a rank misses, of the whole.
  func missing(beyond rank: Int) -> Double {
    func squares(_ values: some Sequence<Double>) -> Double { values.reduce(0) { $0 + $1 * $1 } }
    return (squares(sigma.dropFirst(rank)) / squares(sigma)).squareRoot()
  }
}

func norm(_ values: some Sequence<Double>) -> Double { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }

@Suite struct TaskFactorsTests {
  private let folder = TemporaryFolder()

  private func source(_ base: Stored, _ model: Stored) throws -> TaskVectorSource {
    for (place, tensor) in [("base", base), ("model", model)] {
      if FileSystem.exists(folder(place)) { try FileSystem.remove(folder(place)) }
      try write([tensor], to: folder(place))
    }
    let (first, second) = (try Checkpoint(path: folder("base")), try Checkpoint(path: folder("model")))
    return TaskVectorSource(base: first, baseRecord: first.tensors[0], model: second, modelRecord: second.tensors[0])
  }

  /// A base of zeros and a model that is the matrix, rounded to binary32.
  private func source(_ matrix: KnownMatrix) throws -> TaskVectorSource {
    let shape = [matrix.rows, matrix.columns]
    return try source(
      Stored(name: "q.weight", shape: shape, values: [Float](repeating: 0, count: matrix.rows * matrix.columns)),
      Stored(name: "q.weight", shape: shape, values: matrix.values(rank: .max).map(Float.init)))
  }

  private func product(_ factors: TaskFactors) -> [Double] {
    let (m, n, k) = (factors.left.rows, factors.right.columns, factors.left.columns)
    return (0..<m * n).map { place in
      let (i, j) = place.quotientAndRemainder(dividingBy: n)
      return (0..<k).reduce(0.0) { $0 + factors.left.values[i * k + $1] * factors.right.values[$1 * n + j] }
    }
  }

  // MARK: - Factors

  @Test(arguments: [(7, 5), (5, 7), (6, 6), (40, 5), (5, 90)], [1, 2, 3, 4])
  func theyAreTheLargestSingularVectors(shape: (Int, Int), rank: Int) throws {
    let matrix = KnownMatrix(shape.0, shape.1, sigma: [8, 4, 2, 1, 0.5])
    let factors = try TaskFactors(source(matrix), rank: rank, dtype: .f32)
    #expect(factors.left.rows == shape.0 && factors.left.columns == rank)
    #expect(factors.right.rows == rank && factors.right.columns == shape.1)
    // Eckart and Young: the best that a rank can do, and no better. Binary32 rounds both factors and the model.
    #expect((factors.error - matrix.missing(beyond: rank)).magnitude < 1e-6)
    #expect(zip(factors.sigma, matrix.sigma).allSatisfy { ($0 - $1).magnitude < 1e-5 } && factors.sigma.count == rank)
    let difference = zip(product(factors), matrix.values(rank: rank)).map { $0 - $1 }
    #expect(norm(difference) < 1e-5)
    for k in 0..<rank {
      // Each of the two has the root of the singular value.
      let column = norm((0..<shape.0).map { factors.left.values[$0 * rank + k] })
      let row = norm((0..<shape.1).map { factors.right.values[k * shape.1 + $0] })
      #expect((column * column - matrix.sigma[k]).magnitude < 1e-5 && (row * row - matrix.sigma[k]).magnitude < 1e-5)
    }
  }

  @Test(arguments: [5, 6, 1000]) func aRankThatSufficesMissesNothing(rank: Int) throws {
    let matrix = KnownMatrix(8, 6, sigma: [8, 4, 2, 1, 0.5])
    let factors = try TaskFactors(source(matrix), rank: rank, dtype: .f32)
    #expect(factors.left.columns == min(rank, 6))
    #expect(factors.error < 1e-6)
    #expect(norm(zip(product(factors), matrix.values(rank: 5)).map { $0 - $1 }) < 1e-5)
  }

  @Test func aRankOfOneInPowersOfTwoIsExact() throws {
    let (u, v): ([Float], [Float]) = ([2, 0, 0], [0, 0, 0, 8])
    let model = (0..<12).map { u[$0 / 4] * v[$0 % 4] }
    let found = try source(
      Stored(name: "q.weight", shape: [3, 4], values: [Float](repeating: 3, count: 12), dtype: .bf16),
      Stored(name: "q.weight", shape: [3, 4], values: model.map { $0 + 3 }, dtype: .f32))
    let factors = try TaskFactors(found, rank: 1, dtype: .bf16)
    #expect(factors.error == 0 && factors.sigma == [16])
    #expect(product(factors) == model.map(Double.init))
  }

  @Test(arguments: [(DType.bf16, 0x1p-8), (.f16, 0x1p-11)])
  func theErrorIsThatOfTheFactorsAsTheyAreStored(dtype: DType, unit: Double) throws {
    let matrix = KnownMatrix(12, 9, sigma: [3, 2, 1])
    let factors = try TaskFactors(source(matrix), rank: 3, dtype: dtype)
    let model = matrix.values(rank: 3).map { Double(Float($0)) }
    let expected = norm(zip(product(factors), model).map { $0 - $1 }) / norm(model)
    #expect((factors.error - expected).magnitude < 1e-12)
    // Each product has two relative errors of a unit at most, and none of them vanishes.
    #expect(factors.error < 4 * unit && factors.error > unit / 64)
    for factor in [factors.left, factors.right] {
      let bits = dtype == .bf16 ? 8 : 11
      for i in 0..<factor.count { #expect(factor.values[i].significandWidth < bits) }
    }
  }

  @Test func factorsThatDoNotFitTheirTypeAreRefused() throws {
    // The root of 2^34 is 2^17, where binary16 ends before 2^16.
    let found = try source(
      Stored(name: "q.weight", shape: [1, 2], values: [0, 0]), Stored(name: "q.weight", shape: [1, 2], values: [0x1p34, 0]))
    let failure = #expect(throws: Failure.self) { try TaskFactors(found, rank: 1, dtype: .f16) }
    #expect(failure?.status == .nonFinite)
    for words in ["'q.weight'", "float16", "dtype"] {
      #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
    }
    #expect(try TaskFactors(found, rank: 1, dtype: .bf16).error == 0)
  }

  @Test func whatHasNotChangedHasNoError() throws {
    let same = Stored(name: "q.weight", shape: [3, 4], values: (0..<12).map(Float.init))
    let factors = try TaskFactors(source(same, same), rank: 2, dtype: .f32)
    #expect(factors.error == 0)
    #expect(product(factors).allSatisfy { $0 == 0 })
  }

  @Test func atMostEightSingularValuesAreReported() throws {
    let sigma = (0..<12).map { Double(20 - $0) }
    let factors = try TaskFactors(source(KnownMatrix(12, 14, sigma: sigma)), rank: 10, dtype: .f32)
    #expect(factors.sigma.count == 8 && factors.left.columns == 10)
    #expect(zip(factors.sigma, sigma).allSatisfy { ($0 - $1).magnitude < 1e-4 })
  }

  @Test func memoryIsCountedForTheMatrixAndItsFactors() {
    let small = TaskFactors.bytes(rows: 300, columns: 200, rank: 4)
    #expect(small >= 300 * 200 * 8 + 2 * 4 * (300 + 200) * 8)
    #expect(TaskFactors.bytes(rows: 300, columns: 200, rank: 8) > small)
    // A rank beyond the matrix's own costs nothing more.
    #expect(
      TaskFactors.bytes(rows: 300, columns: 200, rank: 1_000_000) == TaskFactors.bytes(rows: 300, columns: 200, rank: 200))
  }

  // MARK: - Differences

  @Test func squaresAreOfTheDifferenceAndOfTheModel() throws {
    let found = try source(
      Stored(name: "q.weight", shape: [2, 2], values: [1, 2, 3, 4], dtype: .f16),
      Stored(name: "q.weight", shape: [2, 2], values: [4, 2, 3, 8], dtype: .f64))
    let squares = try found.squares()
    #expect(squares.difference == 9 + 16 && squares.model == 16 + 4 + 9 + 64)
  }

  @Test func tensorsOfManyBlocksAreReadWhole() throws {
    let count = 2 * 70_000
    let base = (0..<count).map { Float($0 % 5) }
    let model = (0..<count).map { Float($0 % 5 + $0 % 3) }
    let found = try source(
      Stored(name: "q.weight", shape: [2, 70_000], values: base),
      Stored(name: "q.weight", shape: [2, 70_000], values: model, dtype: .bf16))
    let differences = (0..<count).map { Double($0 % 3) }
    let matrix = DenseMatrix(rows: 2, columns: 70_000)
    let squares = differences.reduce(0) { $0 + $1 * $1 }
    #expect(try found.load(into: matrix.values) == squares)
    #expect((0..<count).allSatisfy { matrix.values[$0] == differences[$0] })
    #expect(try found.squares().difference == squares)
  }

  @Test(arguments: ["base", "model"], [Float.nan, .infinity]) func whatIsNotFiniteShowsInTheSquares(
    place: String, value: Float
  ) throws {
    let odd: [Float] = [1, 2, value, 4]
    let found = try source(
      Stored(name: "q.weight", shape: [2, 2], values: place == "base" ? odd : [1, 2, 3, 4]),
      Stored(name: "q.weight", shape: [2, 2], values: place == "model" ? odd : [1, 2, 3, 4]))
    #expect(try !found.squares().difference.isFinite)
    for words in ["'q.weight'", folder("base"), folder("model"), "exclude"] {
      #expect(found.nonFinite.message.contains(words), "\(found.nonFinite.message)")
    }
  }
}
