import Glibc

/// Model Stock's interpolation ratio from the Gram matrix of the task vectors.
///
///   c_ij = G_ij / (|d_i| |d_j|) in [-1, 1], 0 where a norm is 0;   c = an average of the c_ij;   t = N c / (1 + (N - 1) c)
///
/// The averages: `cos` the mean over all pairs, `angle` the cosine of the mean angle, `adjacent` the mean over (i, i + 1).
/// A denominator <= 1e-12 gives t = 0, the base.
struct StockRatio {
  enum Aggregate: String { case cos, angle, adjacent }
  enum Clamp: String { case none, unit }
  enum Compat: String { case none, mergekit, fusionBench = "fusion_bench", sdMecha = "sd_mecha" }

  let aggregate: Aggregate
  let clamp: Clamp
  let compat: Compat
  /// Floor of each norm under sd_mecha.
  let cosEps: Double

  struct Result {
    let cosine: Double
    let t: Double
    /// Was t outside [0, 1] before any clamp?
    let outside: Bool
  }

  func of(_ gram: GramMatrix) -> Result {
    let n = gram.size
    var sum = 0.0
    var pairs = 0
    for i in 0..<n {
      for j in (i + 1)..<max(n, i + 1) where aggregate != .adjacent || j == i + 1 {
        let value = cosine(gram, i, j)
        sum += aggregate == .angle ? acos(value) : value
        pairs += 1
      }
    }
    let mean = pairs > 0 ? sum / Double(pairs) : 0
    let cosine = aggregate == .angle ? cos(mean) : mean
    let count = Double(n)
    var denominator = 1 + (count - 1) * cosine
    var t: Double
    switch compat {
    case .fusionBench:
      denominator += 1e-8
      t = count * cosine / denominator
    case .sdMecha:
      t = count * cosine / denominator
    case .none, .mergekit:
      t = denominator <= 1e-12 ? 0 : count * cosine / denominator
    }
    // Outside by more than rounding: identical models have t = 1 up to a few units in the last place.
    let outside = !(t >= -1e-9 && t <= 1 + 1e-9)
    if clamp == .unit { t = min(max(t, 0), 1) }
    return Result(cosine: cosine, t: t, outside: outside)
  }

  private func cosine(_ gram: GramMatrix, _ i: Int, _ j: Int) -> Double {
    let (a, b) = (gram.norm(i), gram.norm(j))
    switch compat {
    case .mergekit: return min(max(gram[i, j] / max(a * b, 1e-6), -1), 1)
    case .fusionBench: return min(max(gram[i, j] / (a * b + 1e-8), -1), 1)
    case .sdMecha: return gram[i, j] / (max(a, cosEps) * max(b, cosEps))
    case .none:
      guard a > 0, b > 0 else { return 0 }
      // The root of the product is exact where both squares are equal, so equal task vectors have cosine 1 and t = 1.
      let product = gram[i, i] * gram[j, j]
      let norms = product.isNormal ? product.squareRoot() : a * b
      return min(max(gram[i, j] / norms, -1), 1)
    }
  }
}
