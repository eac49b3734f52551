import LinearAlgebra
import Platform

/// Task matrices of which each is replaced by its low-rank and sparse parts.
final class CompressedTaskMatrices: TaskMatrices {
  private let stored: StoredTaskMatrices
  private let statistics: [[Double]?]
  private let options: LowRankPlusSparse.Options
  private let tensor: TensorContext
  /// What is kept of the models that were made so far, where they are needed twice.
  private var held: [DenseMatrix?] = []
  private let holds: Bool
  /// |B - L - S| / |B| per model.
  private(set) var residuals: [Double] = []

  /// - Parameter holds: keep the results, for an algorithm that asks for the sum first and then for each model.
  init(
    _ stored: StoredTaskMatrices, _ statistics: [[Double]?], _ options: LowRankPlusSparse.Options, _ tensor: TensorContext,
    holds: Bool
  ) {
    self.stored = stored
    self.statistics = statistics
    self.options = options
    self.tensor = tensor
    self.holds = holds
  }

  var modelCount: Int { stored.modelCount }
  var rows: Int { stored.rows }
  var columns: Int { stored.columns }

  /// The low-rank and sparse parts of one model's task matrix: nil when it is zero.
  func parts(
    _ index: Int, _ next: @escaping (LowRankPlusSparse?) throws(Failure) -> Step
  ) throws(Failure) -> Step {
    try stored.model(index) { [self] (matrix) throws(Failure) in
      guard let matrix else {
        residuals.append(0)
        return try next(nil)
      }
      guard let parts = decompose(matrix, index) else { throw notDecomposed(tensor) }
      residuals.append(parts.residual)
      return try next(parts)
    }
  }

  private func decompose(_ matrix: DenseMatrix, _ index: Int) -> LowRankPlusSparse? {
    LowRankPlusSparse.decompose(matrix, statistic: statistics.isEmpty ? nil : statistics[index], options)
  }

  func model(_ index: Int, _ next: @escaping (DenseMatrix?) throws(Failure) -> Step) throws(Failure) -> Step {
    if index < held.count {
      let matrix = held[index]
      held[index] = nil
      return try next(matrix)
    }
    return try parts(index) { [self] (parts) throws(Failure) in
      guard let parts else { return try next(nil) }
      let dense = DenseMatrix(rows: rows, columns: columns)
      parts.add(to: dense.view)
      return try next(dense)
    }
  }

  func sum(_ next: @escaping (DenseMatrix?) throws(Failure) -> Step) throws(Failure) -> Step { try add(0, to: nil, next) }

  private func add(
    _ index: Int, to total: DenseMatrix?, _ next: @escaping (DenseMatrix?) throws(Failure) -> Step
  ) throws(Failure) -> Step {
    guard index < modelCount else { return try next(total) }
    let range = together(from: index)
    return try stored.models(range) { [self] (found) throws(Failure) in
      let made = Crew.map(range.count) { offset in found[offset].map { decompose($0, index + offset) } }
      var sum = total
      for parts in made {
        guard let parts else {
          residuals.append(0)
          if holds { held.append(nil) }
          continue
        }
        guard let parts else { throw notDecomposed(tensor) }
        residuals.append(parts.residual)
        let target = sum ?? DenseMatrix(rows: rows, columns: columns)
        sum = target
        guard holds else {
          parts.add(to: target.view)
          continue
        }
        let dense = DenseMatrix(rows: rows, columns: columns)
        parts.add(to: dense.view)
        held.append(dense)
        for i in 0..<target.count { target.values[i] += dense.values[i] }
      }
      return try add(range.upperBound, to: sum, next)
    }
  }

  /// All models' matrices; zeros where a task vector is zero.
  func all(
    _ next: @escaping ([DenseMatrix]) throws(Failure) -> Step
  ) throws(Failure) -> Step { try collect([], next) }

  private func collect(
    _ done: [DenseMatrix], _ next: @escaping ([DenseMatrix]) throws(Failure) -> Step
  ) throws(Failure) -> Step {
    guard done.count < modelCount else { return try next(done) }
    return try model(done.count) { [self] (matrix) throws(Failure) in
      try collect(done + [matrix ?? DenseMatrix(rows: rows, columns: columns)], next)
    }
  }
}
