import Checkpoints
import LinearAlgebra
import MergeMethods
import Platform
import TensorKernels

// The sweeps that rebuild one tensor of a task model. Each reads its share of the mask or the correction when it begins, and the
// merged tensor block by block. Arithmetic: binary64, rounded once to the output. NaN and infinities are passed on.

/// All bytes of a stored tensor.
private func bytes(_ record: TensorRecord, of checkpoint: Checkpoint) throws(Failure) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: record.byteCount)
  var failure: Failure?
  bytes.withUnsafeMutableBytes { raw in
    guard let start = raw.baseAddress else { return }
    do throws(Failure) { try checkpoint.read(record, bytes: 0..<raw.count, into: start) } catch { failure = error }
  }
  if let failure { throw failure }
  return bytes
}

/// A stored float tensor in binary64.
private func numbers(_ record: TensorRecord, of checkpoint: Checkpoint) throws(Failure) -> DenseMatrix {
  let raw = try bytes(record, of: checkpoint)
  let matrix = DenseMatrix(
    rows: record.shape.first ?? 1, columns: record.shape.isEmpty ? 1 : record.count / max(1, record.shape[0]))
  raw.withUnsafeBytes {
    if record.count > 0 { Cast.convert($0.baseAddress!, record.dtype, count: record.count, into: matrix.values, .f64) }
  }
  return matrix
}

/// The last step: every element by `body`, which is given binary64 inputs of a stretch and writes its result over the last one.
private func write(
  inputs: Int, granule: Int = 1,
  _ body: @escaping (_ rows: [UnsafeMutablePointer<Double>], _ start: Int, _ count: Int) -> Void
) -> Step {
  var sweep = Sweep(sums: 0, writes: true) { block in
    let length = granule > 1 ? granule : KernelGeometry.chunk
    let size = block.inputs.dtype.size
    withUnsafeTemporaryAllocation(of: Double.self, capacity: inputs * length) { space in
      let rows = (0..<inputs).map { space.baseAddress! + $0 * length }
      for start in stride(from: 0, to: block.count, by: length) {
        let count = min(length, block.count - start)
        for k in 0..<inputs {
          Cast.convert(block.inputs.table[k] + start * size, block.inputs.dtype, count: count, into: rows[k], .f64)
        }
        body(rows, block.start + start, count)
        Cast.narrow(
          rows[inputs - 1], count: count, into: block.output! + start * block.outputType.size, block.outputType)
      }
    }
  } next: { _ in
    .finish(Decision())
  }
  sweep.granule = granule
  return .sweep(sweep)
}

/// base + mask * (merged - base) / lambda. Inputs: base, merged.
struct MaskedDifference: SweepProgram {
  private let checkpoint: Checkpoint
  private let record: TensorRecord
  private let lambda: Double
  var acceptsNonFinite: Bool { true }

  init(_ checkpoint: Checkpoint, _ record: TensorRecord, lambda: Double) {
    self.checkpoint = checkpoint
    self.record = record
    self.lambda = lambda
  }

  func scratchBytes(_ tensor: TensorContext) -> Int { record.byteCount }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let bits = try bytes(record, of: checkpoint)
    let lambda = self.lambda
    return write(inputs: 2) { rows, start, count in
      let (base, merged) = (rows[0], rows[1])
      for i in 0..<count {
        let element = start + i
        if bits[element / 8] >> UInt8(element % 8) & 1 == 0 {
          merged[i] = base[i]
        } else if lambda != 1 {
          merged[i] = base[i] + (merged[i] - base[i]) / lambda
        }
      }
    }
  }
}

/// merged + difference. Input: merged.
struct AddedDifference: SweepProgram {
  private let checkpoint: Checkpoint
  private let record: TensorRecord
  var acceptsNonFinite: Bool { true }

  init(_ checkpoint: Checkpoint, _ record: TensorRecord) {
    self.checkpoint = checkpoint
    self.record = record
  }

  func scratchBytes(_ tensor: TensorContext) -> Int { record.byteCount + record.count * 8 }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let difference = try numbers(record, of: checkpoint)
    return write(inputs: 1) { rows, start, count in
      for i in 0..<count { rows[0][i] += difference.values[start + i] }
    }
  }
}

/// merged + left * right + sparse, for a matrix or what was taken for one. Input: merged.
struct LowRankCorrection: SweepProgram {
  private let checkpoint: Checkpoint
  private let left: TensorRecord
  private let right: TensorRecord
  private let mask: TensorRecord
  private let values: TensorRecord
  var acceptsNonFinite: Bool { true }

  /// nil when the correction has nothing for the tensor.
  init?(_ checkpoint: Checkpoint, _ record: TensorRecord) throws(Failure) {
    let names = CorrectionNames.parts.map { record.name + $0 }
    let found = names.compactMap { checkpoint.tensor(named: $0) }
    guard !found.isEmpty else { return nil }
    guard found.count == names.count else {
      throw Failure(.missingTensor, "\(checkpoint.path) has only a part of the correction of '\(record.name)': make it again")
    }
    (left, right, mask, values) = (found[0], found[1], found[2], found[3])
    self.checkpoint = checkpoint
    guard let rows = record.shape.first, rows > 0, left.shape.count == 2, right.shape.count == 2, left.shape[0] == rows,
      right.shape == [left.shape[1], record.count / rows], mask.shape == [(record.count + 7) / 8], mask.dtype == .u8,
      values.shape.count == 1, [left, right, values].allSatisfy({ $0.dtype.isFloat })
    else {
      throw Failure(.shape, "the correction of '\(record.name)' in \(checkpoint.path) does not fit its shape \(record.shape)")
    }
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    8 * (left.count + right.count + values.count) + mask.byteCount + max(left.byteCount, right.byteCount, values.byteCount)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let (u, v) = (try numbers(left, of: checkpoint), try numbers(right, of: checkpoint))
    let sparse = try numbers(values, of: checkpoint)
    let bits = try bytes(mask, of: checkpoint)
    let columns = v.columns
    // Where each row's values begin: as many as there are bits before it.
    var offsets = [0]
    for row in 0..<u.rows {
      var count = 0
      for element in row * columns..<(row + 1) * columns { count += Int(bits[element / 8] >> UInt8(element % 8) & 1) }
      offsets.append(offsets[row] + count)
    }
    guard offsets[u.rows] == sparse.count else {
      throw Failure(
        .format, "the mask of '\(tensor.name)' in \(checkpoint.path) has \(offsets[u.rows]) bits, but \(sparse.count) values")
    }
    // Rows go through the product in tiles of a fixed height, so that their bits do not depend on the blocks.
    let height = max(1, 65536 / max(1, columns))
    return write(inputs: 1, granule: height * columns) { rows, start, count in
      let (first, height) = (start / columns, count / columns)
      let tile = DenseMatrix(rows: height, columns: columns)
      tile.view.product(u.rows(first..<first + height), v.view)
      for i in 0..<height {
        var next = offsets[first + i]
        for j in 0..<columns {
          let element = (first + i) * columns + j
          var addition = tile.values[i * columns + j]
          if bits[element / 8] >> UInt8(element % 8) & 1 == 1 {
            addition += sparse.values[next]
            next += 1
          }
          rows[0][i * columns + j] += addition
        }
      }
    }
  }
}
