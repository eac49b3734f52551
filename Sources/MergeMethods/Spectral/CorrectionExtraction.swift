import JSON
import LinearAlgebra
import Platform
import TensorKernels

// scale_svd, then: extract: what to add to a merged model to come near each task model, stored compactly (docs/masks.md).
//
//   w_i - w_merged ~ U_i V_i + S_i (LowRankPlusSparse.swift): the factors, the bits of S_i's mask and its values, in the stored type
//
// Inputs: the merged model as base, and N >= 1 task models. Tensors that are not decomposed keep their whole difference. Sweeps: one
// per model; no merged tensor is written. Memory: one matrix, its parts and the decomposition's workspace.
// Rounding: one, into the stored type. Source: the seed framework's extract_scale_vector(model, merged model).

/// Writes corrections as artifacts.
struct CorrectionExtraction {
  let options: SpectralOptions
  let compression: LowRankPlusSparse.Options

  /// Four artifacts per model for a matrix, one for any other tensor.
  func artifacts(_ tensor: TensorContext, dtype: DType) -> [Artifact] {
    (0..<tensor.modelCount).flatMap { model -> [Artifact] in
      func artifact(_ suffix: String, _ dtype: DType, _ shape: [Int]) -> Artifact {
        Artifact(collection: CorrectionNames.collection, model: model, suffix: suffix, dtype: dtype, shape: shape)
      }
      guard let (m, n) = options.matrix(tensor) else { return [artifact(CorrectionNames.difference, dtype, tensor.shape)] }
      let rank = compression.rank(rows: m, columns: n)
      let names = CorrectionNames.parts
      return [
        artifact(names[0], dtype, [m, rank]), artifact(names[1], dtype, [rank, n]),
        artifact(names[2], .u8, [(m * n + 7) / 8]), artifact(names[3], dtype, [compression.kept(rows: m, columns: n)]),
      ]
    }
  }

  /// - Parameter matrices: nil where the tensor is not decomposed.
  func begin(_ tensor: TensorContext, _ matrices: CompressedTaskMatrices?) throws(Failure) -> Step {
    if let matrices { return try decompose(0, matrices, tensor.artifacts) }
    let vectors = StoredTaskMatrices(
      rows: 1, columns: tensor.count, weights: [Double](repeating: 1, count: tensor.modelCount))
    return try difference(0, vectors, tensor.artifacts, isExcluded: options.isExcluded(tensor))
  }

  private func need(_ sink: (any ArtifactSink)?) throws(Failure) -> any ArtifactSink {
    guard let sink else {
      throw Failure(
        .argument, "corrections are written by a merge of checkpoints: for one matrix in memory there is low_rank_plus_sparse")
    }
    return sink
  }

  // MARK: - Matrices

  private func decompose(
    _ model: Int, _ matrices: CompressedTaskMatrices, _ artifacts: (any ArtifactSink)?
  ) throws(Failure) -> Step {
    let (m, n) = (matrices.rows, matrices.columns)
    guard model < matrices.modelCount else {
      return .finish(
        Decision([
          .init(key: "low_rank", value: .int(compression.rank(rows: m, columns: n))),
          .init(key: "stored", value: .double(Double(compression.kept(rows: m, columns: n)) / Double(m * n))),
          .init(key: "residuals", value: list(matrices.residuals)),
        ]))
    }
    return try matrices.parts(model) { (parts) throws(Failure) in
      let sink = try need(artifacts)
      let rank = compression.rank(rows: m, columns: n)
      // A zero task vector has zero parts.
      let left = parts?.left ?? DenseMatrix(rows: m, columns: rank)
      let right = parts?.right ?? DenseMatrix(rows: rank, columns: n)
      let first = 4 * model
      write(left.values, left.count, to: sink, artifact: first)
      write(right.values, right.count, to: sink, artifact: first + 1)
      let (bits, values) = pack(parts?.sparse ?? DenseMatrix(rows: m, columns: n))
      bits.withUnsafeBytes { sink.write($0.baseAddress!, count: $0.count, artifact: first + 2, at: 0) }
      values.withUnsafeBufferPointer { if $0.count > 0 { write($0.baseAddress!, $0.count, to: sink, artifact: first + 3) } }
      return try decompose(model + 1, matrices, artifacts)
    }
  }

  /// The bits of the mask and the values where they are set, as many as the mask keeps: where elements that it kept are 0 in value,
  /// the first zeros of the row (or of the matrix) stand for them.
  private func pack(_ sparse: DenseMatrix) -> (bits: [UInt8], values: [Double]) {
    var bits = [UInt8](repeating: 0, count: (sparse.count + 7) / 8)
    var values: [Double] = []
    let isGlobal = compression.mask == .global
    let stretch = isGlobal ? sparse.count : sparse.columns
    let wanted = compression.kept(rows: isGlobal ? sparse.rows : 1, columns: sparse.columns)
    for start in stride(from: 0, to: sparse.count, by: max(1, stretch)) {
      let found = (start..<start + stretch).count { sparse.values[$0] != 0 }
      var missing = wanted - found
      for i in start..<start + stretch {
        if sparse.values[i] == 0 {
          guard missing > 0 else { continue }
          missing -= 1
        }
        bits[i / 8] |= 1 << UInt8(i % 8)
        values.append(sparse.values[i])
      }
    }
    return (bits, values)
  }

  // MARK: - Other tensors

  private func difference(
    _ model: Int, _ vectors: StoredTaskMatrices, _ artifacts: (any ArtifactSink)?, isExcluded: Bool
  ) throws(Failure) -> Step {
    guard model < vectors.modelCount else { return .finish(Decision([.init(key: "excluded", value: .bool(isExcluded))])) }
    return try vectors.model(model) { (vector) throws(Failure) in
      let values = vector ?? DenseMatrix(rows: 1, columns: vectors.columns)
      write(values.values, vectors.columns, to: try need(artifacts), artifact: model)
      return try difference(model + 1, vectors, artifacts, isExcluded: isExcluded)
    }
  }

  /// Round numbers into the stored type, a stretch at a time.
  private func write(_ values: UnsafePointer<Double>, _ count: Int, to sink: any ArtifactSink, artifact: Int) {
    let size = sink.dtype.size
    let chunk = 65536
    withUnsafeTemporaryAllocation(byteCount: min(chunk, max(1, count)) * size, alignment: 64) { space in
      for start in stride(from: 0, to: count, by: chunk) {
        let part = min(chunk, count - start)
        Cast.narrow(values + start, count: part, into: space.baseAddress!, sink.dtype)
        sink.write(space.baseAddress!, count: part * size, artifact: artifact, at: start * size)
      }
    }
  }
}
