import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct PassthroughTests {
  @Test func oneModelIsCopiedOrScaled() throws {
    #expect(try Runner().merge(make("passthrough"), [[1, -2]]).copied == 0)
    #expect(try Runner().merge(make("passthrough", ["scale": .null]), [[1, -2]]).copied == 0)
    #expect(try Runner().merge(make("passthrough", ["scale": 1]), [[1, -2]]).copied == 0)
    let merged = try Runner().merge(make("passthrough", ["scale": [0.5]]), [[1, -2]])
    #expect(merged.values == [0.5, -1] && merged.decision["scale"]?.double == 0.5)
    #expect(try Runner().merge(make("passthrough", ["scale": 0]), [[1, -2]]).values == [0, 0])
  }

  @Test func severalAreRefused() {
    expectFailure(.method, "at most 1") { try Passthrough.schema.check(models: 2, hasBase: false) }
  }
}
