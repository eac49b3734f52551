import TensorKernels

/// How many elements of each cell of a tensor are equal to its models' thresholds.
final class TieCells: @unchecked Sendable {
  // @unchecked: a cell is counted by one worker at a time, and read when all are done.
  let cells: Int
  let models: Int
  let counts: UnsafeMutablePointer<Int>
  /// Of the tie that is looked for inside a cell: how many come before it, and where it was found.
  let remaining: UnsafeMutablePointer<Int>
  let found: UnsafeMutablePointer<Int>

  init(models: Int, elements: Int) {
    cells = max(1, (elements + TaskVectors.cell - 1) / TaskVectors.cell)
    self.models = models
    counts = .allocate(capacity: cells * models)
    counts.initialize(repeating: 0, count: cells * models)
    remaining = .allocate(capacity: models)
    remaining.initialize(repeating: 0, count: models)
    found = .allocate(capacity: models)
    found.initialize(repeating: 0, count: models)
  }

  deinit {
    counts.deallocate()
    remaining.deallocate()
    found.deallocate()
  }

  func clear() { counts.update(repeating: 0, count: cells * models) }

  func total(_ model: Int) -> Int { (0..<cells).reduce(0) { $0 + counts[model * cells + $1] } }

  /// The cell in which the `rank`-th tie (from 1) of a model stands, and its rank inside.
  func cell(_ model: Int, rank: Int) -> (cell: Int, rank: Int) {
    var left = rank
    for cell in 0..<cells {
      let count = counts[model * cells + cell]
      if left <= count { return (cell, left) }
      left -= count
    }
    preconditionFailure("a tie is asked for that is not there")
  }
}
