import Glibc
import JSON
import Platform
import TensorKernels

// Arcee Fusion: w = w_0 + lambda * d where the importance of the element is at least the threshold, else w_0.
//
//   importance = |d| * KL(softmax(row of w_1) || softmax(row of w_0)), rows along the last axis (RowDivergence.swift)
//   threshold = median + 1.5 * (third - first quartile) of the tensor's importances, at floor(q (n - 1)) in ascending order
//
// Inputs: base and one model, any shape; a 0-D tensor is one row. The quartiles are exact, where mergekit draws a million elements of
// a larger tensor at random. Importances are compared in binary32 (binary64 if an input is F64), as multiples of a power of two near
// the largest divergence, so that small ones do not vanish.
// Sweeps: one for the divergences, with a row in cache; two for the quartiles (four for F64); one to write. Traffic of each:
// 2 * size bytes per element. Memory: 8 bytes per row.
// Source: mergekit `arcee_fusion`.

/// The changes that matter most, by size and by how much they move the row's softmax.
struct ArceeFusion: MergeMethod {
  static let schema = MethodSchema(
    name: "arcee_fusion", title: "Arcee Fusion",
    summary: "Keeps the changes whose importance, size times divergence of the row's softmax, stands out; the base elsewhere.",
    family: "elementwise", citation: "Arcee AI, Arcee Fusion, arcee.ai; mergekit (arcee-ai/mergekit)", base: .required,
    minModels: 1, maxModels: 1, parameters: [.lambda("Factor of what is kept.")], reports: ["kept", "threshold", "divergence"],
    makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  private static func rowLength(_ tensor: TensorContext) -> Int { max(1, tensor.shape.last ?? 1) }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    // Two workers' rows among them.
    tensor.count / Self.rowLength(tensor) * 8 + ScoreSearch.scratchBytes(ranks: 3, tensor) + 2 * RowDivergence.scratchBytes
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let length = Self.rowLength(tensor)
    let rows = RowNumbers(count: tensor.count / length)
    // A sum that a NaN shows in, and the largest divergence.
    var sweep = Sweep(sums: 2, writes: false) { block in
      for start in stride(from: 0, to: block.count, by: length) {
        let divergence = max(0, RowDivergence.of(block.inputs, from: start, count: length, p: 1, q: 0))
        rows.values[(block.start + start) / length] = divergence
        block.sums[0] += divergence
        block.sums[1] = max(block.sums[1], divergence)
      }
    } next: { sums in
      let largest = sums[1]
      let exponent = largest > 0 ? largest.exponent : 0
      for row in 0..<rows.count { rows.values[row] = scalbn(rows.values[row], -Int32(exponent)) }
      return fuse(ElementScores(.change(rows, rowLength: length), models: 1, narrow: !tensor.isDouble), tensor, exponent, sums)
    }
    sweep.maxima = 1
    sweep.granule = length
    sweep.wide = true
    return .sweep(sweep)
  }

  private func fuse(_ scores: ElementScores, _ tensor: TensorContext, _ exponent: Int, _ sums: [Double]) -> Step {
    let count = tensor.count
    let mean = sums[0] / Double(max(1, count / Self.rowLength(tensor)))
    if count == 0 { return write(SelectiveMerge(scores, .all), tensor, 0, mean) }
    // Ranks from the largest.
    let ranks = [0.25, 0.5, 0.75].map { count - Int($0 * Double(count - 1)) }
    return ScoreSearch(scores, tensor, ranks: 3).begin { _ in
      ranks.map { ThresholdTarget(rank: $0, ties: .all) }
    } _: { found in
      let quartiles = found.map { $0!.value }
      let threshold = quartiles[1] + 1.5 * (quartiles[2] - quartiles[0])
      return write(
        SelectiveMerge(scores, .from(threshold: threshold, tiesBefore: .max)), tensor, scalbn(threshold, Int32(exponent)), mean)
    }
  }

  private func write(_ merge: SelectiveMerge, _ tensor: TensorContext, _ threshold: Double, _ divergence: Double) -> Step {
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    var sweep = Sweep(sums: 2, writes: true) { block in
      block.sums[0] += merge.run(
        ScoreSearch.block(block), weights: [1], floor: 0, lambda: lambda, addsBase: output == .weights, output: block.output!,
        block.outputType, sums: block.sums + 1)
    } next: { sums in
      .finish(
        Decision([
          .init(key: "kept", value: .double(sums[1] / Double(max(1, tensor.count)))),
          .init(key: "threshold", value: .double(threshold)), .init(key: "divergence", value: .double(divergence)),
        ]))
    }
    sweep.wide = true
    return .sweep(sweep)
  }
}
