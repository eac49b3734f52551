import LinearAlgebra

// TIES over task vectors that are in memory: trim, elect, mean.
//
//   trim: of every vector the floor(density D) elements of largest magnitude stay; of equal ones, those of the highest index
//   elect: the sign of the sum over the vectors, plus where that is 0;  result: the mean of the elements of that sign
//
// Shapes: N vectors [D], destroyed; the result replaces the first. Arithmetic: binary64. Cost: N D comparisons a few times.
// Source: Yadav et al., "TIES-Merging: resolving interference when merging models", arXiv:2306.01708.

enum TiesInMemory {
  /// - Returns: the fraction of elements that were kept.
  static func merge(_ vectors: [DenseMatrix], density: Double) -> Double {
    let target = vectors[0]
    let scratch = DenseMatrix(rows: 1, columns: target.count)
    let kept = min(target.count, Int((density * Double(target.count)).rounded(.down)))
    for vector in vectors {
      _ = OrderStatistic.dropSmallest(target.count - kept, of: vector.values, count: vector.count, scratch: scratch.values)
    }
    for i in 0..<target.count {
      var mass = 0.0
      for vector in vectors { mass += vector.values[i] }
      var (sum, agreeing) = (0.0, 0)
      for vector in vectors where vector.values[i] != 0 && (vector.values[i] > 0) == (mass >= 0) {
        sum += vector.values[i]
        agreeing += 1
      }
      target.values[i] = agreeing > 0 ? sum / Double(agreeing) : 0
    }
    return target.count > 0 ? Double(kept) / Double(target.count) : 0
  }

  /// Bytes beside the vectors.
  static func scratchBytes(count: Int) -> Int { count * 8 }
}
