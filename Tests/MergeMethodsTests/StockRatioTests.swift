import Glibc
import Testing

@testable import MergeMethods

@Suite struct StockRatioTests {
  private func ratio(
    _ aggregate: StockRatio.Aggregate = .cos, clamp: StockRatio.Clamp = .none, compat: StockRatio.Compat = .none,
    cosEps: Double = 1e-6
  ) -> StockRatio {
    StockRatio(aggregate: aggregate, clamp: clamp, compat: compat, cosEps: cosEps)
  }

  /// Unit vectors with these cosines: (0,1), (0,2) ... (1,2) ...
  private func gram(_ n: Int, _ cosines: [Double], norms: [Double]? = nil) -> GramMatrix {
    var full = [Double](repeating: 0, count: n * n)
    var next = 0
    let lengths = norms ?? [Double](repeating: 1, count: n)
    for i in 0..<n {
      full[i * n + i] = lengths[i] * lengths[i]
      for j in (i + 1)..<max(n, i + 1) {
        (full[i * n + j], full[j * n + i]) = (cosines[next] * lengths[i] * lengths[j], cosines[next] * lengths[i] * lengths[j])
        next += 1
      }
    }
    return GramMatrix(full: full, size: n)
  }

  private let example = GramMatrix(full: [0.0653, 0.0301, 0.0410, 0.0301, 0.0398, 0.0126, 0.0410, 0.0126, 0.0491], size: 3)
  private let cosines = [0.590429936, 0.724079947, 0.285028484]

  @Test func theExampleIsMet() {
    let cos = ratio().of(example)
    #expect((cos.cosine - cosines.reduce(0, +) / 3).magnitude <= Example.tolerance)
    #expect((cos.t - 0.774085450).magnitude <= Example.tolerance && !cos.outside)
    #expect((ratio(.angle).of(example).t - 0.782519160).magnitude <= Example.tolerance)
    let two = GramMatrix(full: [0.0653, 0.0301, 0.0301, 0.0398], size: 2)
    for aggregate in [StockRatio.Aggregate.cos, .angle, .adjacent] {
      #expect((ratio(aggregate).of(two).t - 0.742478399).magnitude <= Example.tolerance, "all agree for two models")
    }
    let adjacent = (cosines[0] + cosines[2]) / 2
    #expect((ratio(.adjacent).of(example).cosine - adjacent).magnitude <= Example.tolerance)
  }

  @Test(arguments: 2...6) func identicalDirectionsGiveTheAverageAndOrthogonalOnesTheBase(n: Int) {
    let pairs = n * (n - 1) / 2
    for aggregate in [StockRatio.Aggregate.cos, .angle, .adjacent] {
      // Lengths do not matter. Reduction: some units of 1.
      let norms = (1...n).map { Double($0) }
      let same = ratio(aggregate).of(gram(n, [Double](repeating: 1, count: pairs), norms: norms))
      #expect((same.t - 1).magnitude <= 1e-15 * Double(n) && (same.cosine - 1).magnitude <= 1e-15 && !same.outside)
      let orthogonal = ratio(aggregate).of(gram(n, [Double](repeating: 0, count: pairs), norms: norms))
      #expect(orthogonal.t.magnitude <= 1e-15 * Double(n) && !orthogonal.outside)
    }
  }

  @Test(arguments: [-0.3, -0.1, 0.2, 0.5, 0.9]) func equalCosinesGiveTheFormula(c: Double) {
    for n in 2...4 {
      let pairs = [Double](repeating: c, count: n * (n - 1) / 2)
      let expected = Double(n) * c / (1 + Double(n - 1) * c)
      for aggregate in [StockRatio.Aggregate.cos, .angle, .adjacent] {
        let result = ratio(aggregate).of(gram(n, pairs))
        #expect((result.t - expected).magnitude <= 1e-13 * max(1, expected.magnitude), "n \(n), \(aggregate)")
        #expect(result.outside == (c < 0))
      }
    }
  }

  @Test func thePoleGivesTheBase() {
    // c = -1 for two, -1/2 for three, -1/3 for four models: the denominator is 0, or within rounding of it.
    #expect(ratio().of(gram(2, [-1])).t == 0)
    #expect(ratio().of(gram(3, [-0.5, -0.5, -0.5])).t == 0)
    let third = [Double](repeating: -1.0 / 3, count: 6)
    #expect(ratio().of(gram(4, third)).t == 0)
    // Beyond the pole, which the mean of angles can cross: the base as well.
    #expect(ratio(.angle).of(gram(4, [-0.5, -0.5, -0.5, -0.5, -0.5, -0.5])).t == 0)
    #expect(ratio(.adjacent).of(gram(3, [-0.9, 0.9, -0.9])).t == 0)
    #expect(ratio(compat: .mergekit).of(gram(2, [-1])).t == 0)
  }

  @Test func theToolsGoThroughThePole() {
    let fusionBench = ratio(.angle, compat: .fusionBench).of(gram(2, [-1]))
    // -2 / (1e-8 - 1 + 1): the cosine itself is off by 1e-8, too.
    #expect(fusionBench.t < -1e7 && fusionBench.outside)
    let sdMecha = ratio(.adjacent, compat: .sdMecha).of(gram(2, [-1]))
    #expect(sdMecha.t == -.infinity && sdMecha.outside)
    let beyond = ratio(.adjacent, compat: .sdMecha).of(gram(3, [-0.9, 0.9, -0.9]))
    #expect(beyond.t > 1 && beyond.outside)
  }

  @Test func clampKeepsTheRatioInTheUnitInterval() {
    let negative = ratio(clamp: .unit).of(gram(2, [-0.5]))
    #expect(negative.t == 0 && negative.outside && negative.cosine == -0.5)
    let large = ratio(.adjacent, clamp: .unit, compat: .sdMecha).of(gram(3, [-0.9, 0.9, -0.9]))
    #expect(large.t == 1 && large.outside)
    let inside = ratio(clamp: .unit).of(gram(2, [0.5]))
    #expect((inside.t - 2.0 / 3).magnitude <= 1e-15 && !inside.outside)
  }

  @Test func aZeroVectorHasNoDirection() {
    // Its cosines count as 0: (0.8 + 0 + 0) / 3.
    let result = ratio().of(gram(3, [0.8, 0, 0], norms: [1, 1, 0]))
    #expect((result.cosine - 0.8 / 3).magnitude <= 1e-15)
    #expect(ratio().of(gram(2, [0], norms: [0, 0])).t == 0)
    // As an angle it is a right one.
    let angle = ratio(.angle).of(gram(3, [1, 0, 0], norms: [1, 1, 0]))
    #expect((angle.cosine - cos(Double.pi / 3)).magnitude <= 1e-15)
  }

  @Test func withoutCompatTheScaleDoesNotMatter() {
    let plain = ratio().of(example).t
    for scale in [1e-100, 1e-12, 1e12, 1e100] {
      let scaled = GramMatrix(full: example.full.map { $0 * scale }, size: 3)
      #expect((ratio().of(scaled).t - plain).magnitude <= 1e-14)
    }
  }

  @Test func compatHasTheEpsilonsOfEachTool() {
    // Norms 1e-4: their product, 1e-8, is floored at 1e-6 by mergekit, and has 1e-8 added by FusionBench; sd-mecha floors each.
    let small = gram(2, [0.5], norms: [1e-4, 1e-4])
    #expect((ratio(compat: .mergekit).of(small).cosine - 0.005).magnitude <= 1e-15)
    #expect((ratio(.angle, compat: .fusionBench).of(small).cosine - 0.25).magnitude <= 1e-12)
    #expect((ratio(.adjacent, compat: .sdMecha).of(small).cosine - 0.5).magnitude <= 1e-12)
    #expect((ratio(.adjacent, compat: .sdMecha, cosEps: 1e-3).of(small).cosine - 0.005).magnitude <= 1e-15)
    #expect((ratio().of(small).cosine - 0.5).magnitude <= 1e-12)
  }

  @Test func roundingBeyondOneIsCut() {
    // A product one unit above that of the norms.
    let rounded = GramMatrix(full: [1, 1 + 0x1p-52, 1 + 0x1p-52, 1], size: 2)
    for compat in [StockRatio.Compat.none, .mergekit] { #expect(ratio(compat: compat).of(rounded).cosine == 1) }
    #expect(ratio(.angle).of(rounded).t == 1)
    let negative = GramMatrix(full: [1, -1 - 0x1p-52, -1 - 0x1p-52, 1], size: 2)
    #expect(ratio().of(negative).cosine == -1)
  }

  @Test func oneModelHasNoPairs() {
    let alone = ratio().of(gram(1, []))
    #expect(alone.t == 0 && alone.cosine == 0)
  }
}
