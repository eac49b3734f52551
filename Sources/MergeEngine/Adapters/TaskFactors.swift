import Checkpoints
import LinearAlgebra
import Platform
import TensorKernels

// The best factors of a task vector: model - base = U S V^T, cut after r: L = U_r sqrt(S_r), R = sqrt(S_r) V_r^T.
//
// Shapes: the task vector [m, n] as the weights are stored, a convolution's kernel counted into n; L [m, k], R [k, n],
// k = min(r, m, n). PEFT's B and A are L and R, or R^T and L^T where the inputs come first.
// Arithmetic: binary64; L and R are rounded once to the type they are stored in. By Eckart and Young no other L R of that rank is
// nearer in the Frobenius norm, but for that rounding.
// Error: |task vector - L R| / |task vector| with L and R as they are stored, in the Frobenius norm: what a reader gets.
// NaN and infinities are refused.
// Memory: the task vector, the decomposition's workspace and the factors, in binary64.
// Source: Eckart and Young, Psychometrika 1, 1936; as mergekit-extract-lora does it.

struct TaskFactors {
  /// Rows of L and R in binary64, rounded to the type they are stored in.
  let left: DenseMatrix
  let right: DenseMatrix
  let error: Double
  /// The largest singular values, at most eight, for the report.
  let sigma: [Double]

  init(_ base: TaskVectorSource, rank: Int, dtype: DType) throws(Failure) {
    let (rows, columns) = (base.rows, base.columns)
    let work = DenseMatrix(rows: rows, columns: columns)
    let squares = try base.load(into: work.values)
    guard let result = TruncatedSVD.largest(rank, of: work.view) else {
      throw Failure(.internal, "the singular values of '\(base.name)' were not found: leave it out with exclude")
    }
    let triplets = result.triplets
    let k = triplets.sigma.count
    left = DenseMatrix(rows: rows, columns: k)
    right = DenseMatrix(rows: k, columns: columns)
    for j in 0..<k {
      let root = triplets.sigma[j].squareRoot()
      let (u, v) = (triplets.left.view.row(j), triplets.right.view.row(j))
      for i in 0..<rows { left.values[i * k + j] = root * u[i] }
      for i in 0..<columns { right.values[j * columns + i] = root * v[i] }
    }
    for matrix in [left, right] { Self.round(matrix, to: dtype) }
    // The decomposition may have destroyed it.
    _ = try base.load(into: work.values)
    work.view.product(left.view, right.view, factor: -1, keeping: 1)
    var rest = 0.0
    for i in 0..<work.count { rest += work.values[i] * work.values[i] }
    guard rest.isFinite else {
      throw Failure(
        .nonFinite,
        "the factors of '\(base.name)' are too large for \(dtype.torchName ?? dtype.name): give another dtype, or leave it out with exclude"
      )
    }
    error = squares > 0 ? (rest / squares).squareRoot() : 0
    sigma = Array(triplets.sigma.prefix(8))
  }

  private static func round(_ matrix: DenseMatrix, to dtype: DType) {
    guard matrix.count > 0 else { return }
    let raw = UnsafeMutableRawPointer.allocate(byteCount: matrix.count * dtype.size, alignment: 64)
    defer { raw.deallocate() }
    Cast.narrow(matrix.values, count: matrix.count, into: raw, dtype)
    Cast.convert(raw, dtype, count: matrix.count, into: matrix.values, .f64)
  }

  /// What `init` holds at most.
  static func bytes(rows: Int, columns: Int, rank: Int) -> Int {
    let k = min(rank, rows, columns)
    return rows * columns * 8 + TruncatedSVD.workspaceBytes(rows: rows, columns: columns, rank: k)
      + 2 * k * (rows + columns) * 8 + TaskVectorSource.blockBytes
  }
}

/// model - base of one tensor, read block by block.
struct TaskVectorSource {
  static let blockBytes = 65536 * 24
  let base: Checkpoint
  let baseRecord: TensorRecord
  let model: Checkpoint
  let modelRecord: TensorRecord

  var name: String { baseRecord.name }
  var rows: Int { baseRecord.shape.first ?? 1 }
  var columns: Int { baseRecord.shape.dropFirst().reduce(1, *) }

  /// Put the differences, in binary64, into `values`, and return the sum of their squares.
  func load(into values: UnsafeMutablePointer<Double>) throws(Failure) -> Double {
    var squares = 0.0
    try blocks { start, count, ours, theirs in
      for i in 0..<count {
        let difference = theirs[i] - ours[i]
        values[start + i] = difference
        squares += difference * difference
      }
    }
    return squares
  }

  /// Sums of squares: of the differences, and of the model. They are not finite where an element is not.
  func squares() throws(Failure) -> (difference: Double, model: Double) {
    var (difference, whole) = (0.0, 0.0)
    try blocks { _, count, ours, theirs in
      for i in 0..<count {
        difference += (theirs[i] - ours[i]) * (theirs[i] - ours[i])
        whole += theirs[i] * theirs[i]
      }
    }
    return (difference, whole)
  }

  /// Why it gets no factors, where the sum of its squares is not finite.
  var nonFinite: Failure {
    Failure(
      .nonFinite,
      "'\(name)' of \(base.path) or \(model.path) has a NaN or an infinity: repair it, or leave it out with exclude")
  }

  private func blocks(
    _ body: (Int, Int, UnsafePointer<Double>, UnsafePointer<Double>) -> Void
  ) throws(Failure) {
    let length = 65536
    let raw = UnsafeMutableRawPointer.allocate(byteCount: Self.blockBytes, alignment: 64)
    defer { raw.deallocate() }
    let ours = (raw + length * 8).assumingMemoryBound(to: Double.self)
    let theirs = (raw + length * 16).assumingMemoryBound(to: Double.self)
    for start in stride(from: 0, to: baseRecord.count, by: length) {
      let count = min(length, baseRecord.count - start)
      try read(base, baseRecord, start, count, raw, ours)
      try read(model, modelRecord, start, count, raw, theirs)
      body(start, count, ours, theirs)
    }
  }

  private func read(
    _ checkpoint: Checkpoint, _ record: TensorRecord, _ start: Int, _ count: Int, _ raw: UnsafeMutableRawPointer,
    _ numbers: UnsafeMutablePointer<Double>
  ) throws(Failure) {
    let size = record.dtype.size
    try checkpoint.read(record, bytes: start * size..<(start + count) * size, into: raw)
    Cast.convert(raw, record.dtype, count: count, into: numbers, .f64)
  }
}
