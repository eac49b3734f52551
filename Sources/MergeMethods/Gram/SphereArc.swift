import Glibc

/// Position on the arc between two vectors, from their inner products: the coefficients of both.
struct SphereArc {
  let a: Double
  let b: Double
  let cosine: Double
  /// On the straight line, because the angle is 0, or 180 degrees, or a vector has no direction.
  let isLinear: Bool

  /// - Parameters:
  ///   - t: 0 for the first vector, 1 for the second.
  ///   - elements: of each vector; a single one is parallel or opposite, whatever rounding says.
  ///   - floor: norms below this are taken as this, as mergekit does; 0: a zero vector has no direction.
  init(t: Double, squareA: Double, squareB: Double, product: Double, elements: Int, floor: Double) {
    let line = (a: 1 - t, b: t)
    let isZero = floor == 0 && (squareA == 0 || squareB == 0)
    let (normA, normB) = (max(squareA.squareRoot(), floor), max(squareB.squareRoot(), floor))
    // The root of the product is exact where both squares are equal: equal vectors have cosine 1.
    let both = squareA * squareB
    let norms = both.isNormal && floor == 0 ? both.squareRoot() : normA * normB
    let cosine = isZero ? 0 : min(max(product / norms, -1), 1)
    let angle = acos(cosine)
    let sine = sin(angle)
    // Near 180 degrees the arc is not determined, and rounding would be magnified.
    isLinear = isZero || elements == 1 || sine < (cosine < 0 ? 1e-6 : 1e-8) || t == 0 || t == 1
    self.cosine = cosine
    (a, b) = isLinear ? line : (sin((1 - t) * angle) / sine, sin(t * angle) / sine)
  }
}
