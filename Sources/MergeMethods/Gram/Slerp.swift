import Glibc
import JSON
import Platform

// Slerp: w = (sin((1-t) theta) a + sin(t theta) b) / sin(theta), theta the angle between the flattened tensors a and b.
//
// Inputs: two models, or a base (a) and one model (b); any shape. Where |cos theta| > dot_threshold, or a vector is zero, the
// angle says nothing and w = (1-t) a + t b. Two sweeps: the Gram matrix of [a, b - a], from which |a|, |b| and <a, b> follow
// without cancellation, then Combine. t = 0 gives a, t = 1 gives b, bit for bit.
// compat mergekit, fusion_bench: a vector of norm <= 1e-8 is not normalised, so a zero vector gives cos 0 and not the line.
// compat sd_mecha: the unit vectors are interpolated, times the interpolated norm; the line only where sin theta is 0.
// Traffic: 2 * 2 * size + size bytes per element.
// Source: Shoemake, "Animating rotation with quaternion curves", 1985; mergekit and FusionBench `slerp`, sd-mecha `slerp`.

/// Spherical interpolation between two models.
struct Slerp: MergeMethod {
  private enum Compat: String { case none, mergekit, fusionBench = "fusion_bench", sdMecha = "sd_mecha" }

  static let schema = MethodSchema(
    name: "slerp", title: "SLERP", summary: "Spherical interpolation between two models, or between the base and one model.",
    family: "gram", citation: "Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985", base: .optional,
    minModels: 1, maxModels: 2,
    parameters: [
      ParameterSchema(
        "t", .number, default: nil, minimum: 0, maximum: 1, summary: "Position: 0 is the base (or first model), 1 the other."),
      ParameterSchema(
        "dot_threshold", .number, default: 0.9995, minimum: 0, maximum: 1,
        summary: "Absolute cosine above which the interpolation is linear.", source: "0.9995: mergekit, FusionBench."),
      ParameterSchema(
        "compat", .choice(["none", "mergekit", "fusion_bench", "sd_mecha"]), default: "none",
        summary: "Reproduce a public tool where it differs.",
        source: "mergekit, fusion_bench: a zero vector is not replaced by linear interpolation. sd_mecha: unit vectors times "
          + "the interpolated norm, no threshold."),
    ],
    reports: ["cosine", "linear"])

  private let t: Double
  private let threshold: Double
  private let compat: Compat

  init(_ parameters: Parameters) throws(Failure) {
    t = parameters.number("t")
    threshold = parameters.number("dot_threshold")
    compat = parameters.choice("compat", as: Compat.self)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    guard tensor.inputCount == 2 else {
      throw Failure(
        .method, "slerp takes two models, or a base and one model; it was given \(tensor.inputCount) inputs: remove or add one")
    }
    return .sweep(
      .gramWithCrossTerms(about: 0, inputs: 2) { gram in
        let squareA = gram[0, 0]
        let squareB = max(0, gram[0, 0] + 2 * gram[0, 1] + gram[1, 1])
        let (a, b, cosine, linear) = coefficients(squareA.squareRoot(), squareB.squareRoot(), gram[0, 0] + gram[0, 1])
        let decision = Decision([
          .init(key: "cosine", value: .double(cosine)), .init(key: "linear", value: .bool(linear)),
        ])
        return AffineCombination([a, b], total: linear ? 1 : a + b).step(decision)
      })
  }

  /// Coefficients of a and b from |a|, |b| and <a, b>.
  private func coefficients(_ normA: Double, _ normB: Double, _ product: Double) -> (Double, Double, Double, Bool) {
    let line = (1 - t, t)
    let floor = compat == .none || compat == .sdMecha ? 0 : 1e-8
    if floor == 0, normA == 0 || normB == 0 { return (line.0, line.1, 0, true) }
    let cosine = product / ((normA > floor ? normA : 1) * (normB > floor ? normB : 1))
    if t == 0 || t == 1 { return (line.0, line.1, cosine, true) }
    if compat == .sdMecha {
      let angle = acos(min(max(cosine, -1), 1))
      guard sin(angle) > 0 else { return (line.0, line.1, cosine, true) }
      let norm = normA + t * (normB - normA)
      return (
        norm * sin((1 - t) * angle) / (sin(angle) * normA), norm * sin(t * angle) / (sin(angle) * normB), cosine, false
      )
    }
    if cosine.magnitude > threshold || cosine.magnitude >= 1 { return (line.0, line.1, cosine, true) }
    let angle = acos(cosine)
    return (sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle), cosine, false)
  }
}
