import Glibc
import Testing

@testable import MergeMethods

@Suite struct SphereArcTests {
  private func arc(_ t: Double, _ a: [Double], _ b: [Double], floor: Double = 0) -> SphereArc {
    func product(_ x: [Double], _ y: [Double]) -> Double { zip(x, y).reduce(0) { $0 + $1.0 * $1.1 } }
    return SphereArc(
      t: t, squareA: product(a, a), squareB: product(b, b), product: product(a, b), elements: a.count, floor: floor)
  }

  @Test(arguments: [0.1, 0.5, 0.8]) func aRightAngleIsDividedByT(t: Double) {
    let arc = arc(t, [2, 0], [0, 5])
    #expect((arc.a - cos(t * .pi / 2)).magnitude <= 1e-15 && (arc.b - sin(t * .pi / 2)).magnitude <= 1e-15 && !arc.isLinear)
  }

  @Test func linesAreTakenWhereThereIsNoArc() {
    for (a, b) in [([1.0, 2], [1.0, 2]), ([1, 2], [-2, -4]), ([0, 0], [1, 1]), ([1, 1], [0, 0])] {
      let arc = arc(0.25, a, b)
      #expect(arc.isLinear && arc.a == 0.75 && arc.b == 0.25, "\(a) \(b)")
    }
    #expect(arc(0, [1, 0], [0, 1]).a == 1 && arc(1, [1, 0], [0, 1]).b == 1)
    #expect(arc(0.25, [3], [-7]).isLinear && !arc(0.25, [3, 1], [-7, 1]).isLinear)
  }

  @Test func aFloorShortensTheCosineOfSmallVectors() {
    #expect((arc(0.5, [1e-8, 0], [1e-8, 0], floor: 1e-7).cosine - 0.01).magnitude <= 1e-15)
    #expect(arc(0.5, [0, 0], [1, 0], floor: 1e-7).cosine == 0)
  }
}
