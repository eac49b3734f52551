import Glibc
import LinearAlgebra
import TensorKernels

/// YOYO-Fusion's step between two sweeps: from the Gram matrix of the residuals to the coefficients of r* = sum_i c_i R_i.
///
/// With Gram = V diag(sigma²) Vᵀ the projections are Z_ij = sigma_j V_ij, so robust weights, energy scale and the way back need
/// K x K numbers only, and no division by sigma: c = alpha V q, q_j = sum_i w_ij V_ij / (sum_i w_ij + eps).
struct FusionSubspace {
  enum Rank {
    /// min(K - 1, D) components, scaled by 1 / (kept energy), at most 10.
    case allButOne
    /// min(K, D) components, not scaled.
    case all
    /// The participation ratio (sum sigma²)² / sum sigma⁴, scaled by the root of 1 / (kept energy), at most 10.
    case participation
  }

  let rank: Rank
  let median: MedianKind
  /// Are the Tukey weights taken about the standard median of each component, rather than about 0?
  let aboutMedian: Bool
  let eps: Double

  struct Result {
    /// c_i, one per model.
    let coefficients: [Double]
    let rank: Int
    /// Share of the residuals' energy that is kept.
    let energy: Double
    let scale: Double
    /// Each model's global Tukey weight.
    let weights: [Double]
    /// Were the residuals too small to be looked at? Then the centre is the result.
    let degenerate: Bool
  }

  /// - Parameter elements: D, the elements of a tensor.
  func solve(_ gram: GramMatrix, elements: Int) -> Result {
    let k = gram.size
    let eigen = SymmetricEigen(gram.full, size: k)
    let sigmaSquared = eigen.values.map { max(0, $0) }
    let total = sigmaSquared.reduce(0, +)
    let longest = (0..<k).map { gram[$0, $0] }.max() ?? 0
    let components = min(k, elements)
    let kept = keptRank(sigmaSquared, total, components, k)
    if longest.squareRoot() < 1e-7 || total < 1e-16 || kept <= 0 {
      return Result(
        coefficients: [Double](repeating: 0, count: k), rank: 0, energy: 1, scale: 1, weights: [Double](repeating: 1, count: k),
        degenerate: true)
    }
    let energy = sigmaSquared[..<kept].reduce(0, +)
    let scale: Double
    switch rank {
    case .allButOne: scale = min(1 / (energy / (total + 1e-16) + 1e-16), 10)
    case .all: scale = 1
    case .participation: scale = min((total / (energy + 1e-16)).squareRoot(), 10)
    }

    // v[j][i] = V_ij, z[j][i] = Z_ij.
    let v = (0..<kept).map { Array(eigen.vector($0)) }
    let z = (0..<kept).map { j in v[j].map { $0 * sigmaSquared[j].squareRoot() } }
    let deviations = z.map { component -> [Double] in
      let center = aboutMedian ? Self.median(component, .standard) : 0
      return component.map { $0 - center }
    }
    let norms = (0..<k).map { i in deviations.reduce(0.0) { $0 + $1[i] * $1[i] }.squareRoot() }
    let global = tukey(norms, scale: madScale(norms))
    var coefficients = [Double](repeating: 0, count: k)
    for j in 0..<kept {
      let weights = zip(tukey(deviations[j], scale: madScale(deviations[j])), global).map { $0 * $1 }
      var (numerator, denominator) = (0.0, eps)
      for i in 0..<k {
        numerator += weights[i] * v[j][i]
        denominator += weights[i]
      }
      for i in 0..<k { coefficients[i] += scale * v[j][i] * numerator / denominator }
    }
    return Result(
      coefficients: coefficients, rank: kept, energy: total > 0 ? energy / total : 1, scale: scale, weights: global,
      degenerate: false)
  }

  private func keptRank(_ sigmaSquared: [Double], _ total: Double, _ components: Int, _ k: Int) -> Int {
    switch rank {
    case .allButOne: return min(k - 1, components)
    case .all: return components
    case .participation:
      let squares = sigmaSquared.reduce(0.0) { $0 + $1 * $1 }
      let ratio = (total * total / (squares + 1e-16)).rounded(.toNearestOrEven)
      return max(1, min(Int(min(ratio, Double(k))), components))
    }
  }

  /// Scale from the median absolute deviation about 0.
  private func madScale(_ values: [Double]) -> Double { max(1.4826 * Self.median(values.map(\.magnitude), median), 1e-12) }

  /// Tukey's biweight with c = 4.685.
  private func tukey(_ values: [Double], scale: Double) -> [Double] {
    values.map { value in
      let ratio = value.magnitude / (4.685 * scale + eps)
      let weight = max(0, 1 - ratio * ratio)
      return weight * weight
    }
  }

  static func median(_ values: [Double], _ kind: MedianKind) -> Double {
    let sorted = values.sorted()
    let lower = sorted[(sorted.count - 1) / 2]
    return kind == .lower ? lower : (lower + sorted[sorted.count / 2]) / 2
  }
}
