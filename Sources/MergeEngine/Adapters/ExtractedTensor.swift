import Checkpoints
import LinearAlgebra
import Platform
import TensorKernels

/// One tensor of an extraction: how far it has changed, what the adapter gets of it, and how near that is.
final class ExtractedTensor {
  /// A tensor of the adapter.
  struct Entry {
    enum Content { case first, second, whole }
    let name: String
    let dtype: DType
    let shape: [Int]
    let content: Content
  }

  let source: TaskVectorSource
  /// Frobenius norms; nil: not comparable element by element.
  private(set) var differenceNorm: Double?
  private(set) var modelNorm: Double?
  private(set) var hasChanged = false
  private(set) var entries: [Entry] = []
  private(set) var rank = 0
  /// |task vector - B A| / |task vector|; 0 for one that is saved whole.
  private(set) var error: Double?
  private(set) var sigma: [Double] = []
  private(set) var lostReason: String?
  private(set) var isEmbedding = false
  private var isTransposed = false

  init(_ source: TaskVectorSource) { self.source = source }

  var module: String { ExtractionOptions.module(of: source.name) }
  var isFactored: Bool { entries.count == 2 }
  var isSaved: Bool { entries.count == 1 }

  /// Has it changed, and what is to be done about it?
  func compare(_ treatment: ExtractionOptions.Treatment) throws(Failure) {
    let (ours, theirs) = (source.baseRecord, source.modelRecord)
    if ours.shape != theirs.shape {
      hasChanged = true
    } else if ours.dtype.isFloat, theirs.dtype.isFloat {
      let squares = try source.squares()
      if squares.difference.isFinite {
        (differenceNorm, modelNorm) = (squares.difference.squareRoot(), squares.model.squareRoot())
        hasChanged = squares.difference > 0
      } else {
        // Only factors are computed from the numbers.
        if case .factored = treatment { throw source.nonFinite }
        hasChanged = try !hasSameBytes()
      }
    } else {
      hasChanged = try !hasSameBytes()
    }
    if case .lost(let reason) = treatment, hasChanged { lostReason = reason }
  }

  private func hasSameBytes() throws(Failure) -> Bool {
    try Comparison.allEqual(
      [.stored(source.base, source.baseRecord), .stored(source.model, source.modelRecord)], count: source.baseRecord.count)
  }

  /// Decide names and shapes of what the adapter holds.
  func plan(_ treatment: ExtractionOptions.Treatment, rank: Int, dtype: DType) {
    let prefix = "base_model.model."
    switch treatment {
    case .saved:
      // A module that is saved is saved whole, whatever of it has changed: PEFT replaces modules, not parameters.
      let record = source.modelRecord
      entries = [Entry(name: prefix + source.name, dtype: record.dtype, shape: record.shape, content: .whole)]
    case .factored(let transposed, let embedding) where hasChanged:
      (isTransposed, isEmbedding) = (transposed, embedding)
      self.rank = min(rank, source.rows, source.columns)
      let shape = source.baseRecord.shape
      let names = embedding ? (".lora_embedding_A", ".lora_embedding_B") : (".lora_A.weight", ".lora_B.weight")
      let first = [self.rank] + (transposed ? [shape[0]] : Array(shape.dropFirst()))
      let second = [transposed ? shape[1] : shape[0], self.rank] + [Int](repeating: 1, count: shape.count - 2)
      entries = [
        Entry(name: prefix + module + names.0, dtype: dtype, shape: first, content: .first),
        Entry(name: prefix + module + names.1, dtype: dtype, shape: second, content: .second),
      ]
    default: entries = []
    }
  }

  func workBytes(rank: Int) -> Int {
    isFactored ? TaskFactors.bytes(rows: source.rows, columns: source.columns, rank: rank) : TaskVectorSource.blockBytes
  }

  /// Compute and write what was planned.
  func write(to file: File, _ offsets: [String: Int], rank: Int, dtype: DType) throws(Failure) {
    guard isFactored else { return try copy(to: file, at: offsets[entries[0].name]!) }
    let factors = try TaskFactors(source, rank: rank, dtype: dtype)
    (error, sigma) = (factors.error, factors.sigma)
    for entry in entries {
      // B A = L R, or its transpose R^T L^T.
      let isLeft = (entry.content == .second) != isTransposed
      let matrix = isLeft ? factors.left : factors.right
      let ordered = isTransposed ? Self.transposed(matrix) : matrix
      let bytes = ordered.count * dtype.size
      let raw = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes), alignment: 64)
      defer { raw.deallocate() }
      Cast.narrow(ordered.values, count: ordered.count, into: raw, dtype)
      try file.write(raw, count: bytes, at: offsets[entry.name]!)
    }
  }

  private static func transposed(_ matrix: DenseMatrix) -> DenseMatrix {
    let result = DenseMatrix(rows: matrix.columns, columns: matrix.rows)
    for i in 0..<matrix.rows {
      for j in 0..<matrix.columns { result.values[j * matrix.rows + i] = matrix.values[i * matrix.columns + j] }
    }
    return result
  }

  private func copy(to file: File, at offset: Int) throws(Failure) {
    error = 0
    let length = 1 << 20
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 64)
    defer { buffer.deallocate() }
    for start in stride(from: 0, to: source.modelRecord.byteCount, by: length) {
      let end = min(start + length, source.modelRecord.byteCount)
      try source.model.read(source.modelRecord, bytes: start..<end, into: buffer)
      try file.write(buffer, count: end - start, at: offset + start)
    }
  }
}
