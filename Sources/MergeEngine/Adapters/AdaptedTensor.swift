import Checkpoints
import Platform
import TensorKernels

// W + s B A: a stored tensor with a LoRA update, as a method's input.
//
// Shapes: W [m, n] as it is stored (a convolution's kernel counts into n); L [m, r] and R [r, n], which are B and A, or A^T and
// B^T where the model stores its matrices with the inputs first.
// Arithmetic: binary64. sum_k L[i, k] R[k, j] in the order of k by fused multiply-adds, then W[i, j] + s * sum, fused: each element
// has its own chain, so the bits depend on neither blocks nor threads. The result is not rounded before the method.
// NaN: in W, in row i of L or in column j of R gives NaN or infinity at [i, j].
// Memory: 8 r (m + n) bytes for the factors while the tensor is in work; never W + s B A as a whole.
// Cost: 2 r flops per element.
// Source: Hu et al., LoRA, arXiv:2106.09685.

/// A tensor of a model with an adapter.
public final class AdaptedTensor: @unchecked Sendable {
  // @unchecked: the factors are guarded by the lock; once loaded they are only read.
  private let source: TensorInput
  private let adapter: Checkpoint
  private let update: Adapter.Update
  private let rows: Int
  private let columns: Int
  private let lock = Monitor()
  private var factors: Factors?

  /// - Parameters:
  ///   - source: all elements of the model's tensor.
  ///   - shape: of the model's tensor.
  init(_ source: TensorInput, shape: [Int], _ update: Adapter.Update, of adapter: Checkpoint) {
    self.source = source
    self.adapter = adapter
    self.update = update
    rows = shape[0]
    columns = shape.dropFirst().reduce(1, *)
  }

  /// Bytes of the factors, and of the block they are read through.
  var scratchBytes: Int { (rows + columns) * update.rank * 8 + Factors.blockBytes }

  /// Elements of W + s B A, in binary64.
  func read(_ start: Int, _ count: Int, into total: UnsafeMutablePointer<Double>) throws(Failure) {
    try source.add(start, count, to: total, isFirst: true)
    let factors = try loaded()
    let scale = update.scale
    var done = 0
    while done < count {
      let (row, column) = (start + done).quotientAndRemainder(dividingBy: columns)
      if column == 0, count - done >= 4 * columns {
        factors.addFourRows(from: row, scale: scale, to: total + done)
        done += 4 * columns
      } else {
        let part = min(columns - column, count - done)
        factors.add(row, column, part, scale: scale, to: total + done)
        done += part
      }
    }
  }

  func prefetch(_ range: Range<Int>) { source.prefetch(range) }

  /// Give the factors back. They are read again when they are needed again.
  func release() { lock.locked { factors = nil } }

  private func loaded() throws(Failure) -> Factors {
    if let known = lock.locked({ factors }) { return known }
    var failure: Failure?
    let result: Factors? = lock.locked {
      if let factors { return factors }
      do throws(Failure) { factors = try Factors(update, adapter, rows: rows, columns: columns) } catch { failure = error }
      return factors
    }
    if let failure { throw failure }
    return result!
  }
}

/// L [m, r] and R [r, n] in binary64.
private final class Factors {
  static let blockBytes = 65536 * 16
  private let rank: Int
  private let columns: Int
  private let left: UnsafeMutablePointer<Double>
  private let right: UnsafeMutablePointer<Double>

  init(_ update: Adapter.Update, _ adapter: Checkpoint, rows: Int, columns: Int) throws(Failure) {
    rank = update.rank
    self.columns = columns
    left = .allocate(capacity: max(1, rows * rank))
    right = .allocate(capacity: max(1, rank * columns))
    let (rank, left, right) = (rank, left, right)
    // A is [r, inputs], B is [outputs, r].
    if update.isTransposed {
      try Self.read(update.first, adapter) { k, i, value in left[i * rank + k] = value }
      try Self.read(update.second, adapter) { j, k, value in right[k * columns + j] = value }
    } else {
      try Self.read(update.first, adapter) { k, j, value in right[k * columns + j] = value }
      try Self.read(update.second, adapter) { i, k, value in left[i * rank + k] = value }
    }
  }

  deinit {
    left.deallocate()
    right.deallocate()
  }

  /// All elements of a stored tensor by row and column, in binary64.
  private static func read(
    _ record: TensorRecord, _ checkpoint: Checkpoint, _ body: (Int, Int, Double) -> Void
  ) throws(Failure) {
    let width = record.shape.dropFirst().reduce(1, *)
    let length = 65536
    let raw = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: 64)
    defer { raw.deallocate() }
    let numbers = (raw + length * 8).assumingMemoryBound(to: Double.self)
    for start in stride(from: 0, to: record.count, by: length) {
      let count = min(length, record.count - start)
      let size = record.dtype.size
      try checkpoint.read(record, bytes: start * size..<(start + count) * size, into: raw)
      Cast.convert(raw, record.dtype, count: count, into: numbers, .f64)
      for e in 0..<count {
        let (row, column) = (start + e).quotientAndRemainder(dividingBy: width)
        body(row, column, numbers[e])
      }
    }
  }

  private typealias Lanes = SIMD8<Double>

  /// Add to `count` elements of one row.
  func add(_ row: Int, _ column: Int, _ count: Int, scale: Double, to total: UnsafeMutablePointer<Double>) {
    let weights = left + row * rank
    var j = 0
    while j + 8 <= count {
      var sum = Lanes.zero
      for k in 0..<rank { sum = sum.addingProduct(Lanes(repeating: weights[k]), Self.load(right + k * columns + column + j)) }
      Self.store(Self.load(total + j).addingProduct(Lanes(repeating: scale), sum), total + j)
      j += 8
    }
    addRest(weights, column, j..<count, scale, total)
  }

  /// Add to all elements of four rows, which share the loads of R.
  func addFourRows(from row: Int, scale: Double, to total: UnsafeMutablePointer<Double>) {
    let (n, rank) = (columns, rank)
    let weights = left + row * rank
    var j = 0
    while j + 8 <= n {
      var (s0, s1, s2, s3) = (Lanes.zero, Lanes.zero, Lanes.zero, Lanes.zero)
      for k in 0..<rank {
        let values = Self.load(right + k * n + j)
        s0 = s0.addingProduct(Lanes(repeating: weights[k]), values)
        s1 = s1.addingProduct(Lanes(repeating: weights[rank + k]), values)
        s2 = s2.addingProduct(Lanes(repeating: weights[2 * rank + k]), values)
        s3 = s3.addingProduct(Lanes(repeating: weights[3 * rank + k]), values)
      }
      let factor = Lanes(repeating: scale)
      Self.store(Self.load(total + j).addingProduct(factor, s0), total + j)
      Self.store(Self.load(total + n + j).addingProduct(factor, s1), total + n + j)
      Self.store(Self.load(total + 2 * n + j).addingProduct(factor, s2), total + 2 * n + j)
      Self.store(Self.load(total + 3 * n + j).addingProduct(factor, s3), total + 3 * n + j)
      j += 8
    }
    for r in 0..<4 { addRest(weights + r * rank, 0, j..<n, scale, total + r * n) }
  }

  /// What is left of a row, by the same chain of operations.
  private func addRest(
    _ weights: UnsafePointer<Double>, _ column: Int, _ range: Range<Int>, _ scale: Double, _ total: UnsafeMutablePointer<Double>
  ) {
    for j in range {
      var sum = 0.0
      for k in 0..<rank { sum.addProduct(weights[k], right[k * columns + column + j]) }
      total[j].addProduct(scale, sum)
    }
  }

  @inline(__always)
  private static func load(_ pointer: UnsafePointer<Double>) -> Lanes {
    UnsafeRawPointer(pointer).loadUnaligned(as: Lanes.self)
  }

  @inline(__always)
  private static func store(_ value: Lanes, _ pointer: UnsafeMutablePointer<Double>) {
    UnsafeMutableRawPointer(pointer).storeBytes(of: value, as: Lanes.self)
  }
}
