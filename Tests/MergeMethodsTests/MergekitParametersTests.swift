import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct MergekitParametersTests {
  @Test(arguments: [
    "ties", "dare_linear", "dare_ties", "task_arithmetic", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear",
  ])
  func theTaskVectorMethodsTakeAllOfMergekitsParameters(name: String) throws {
    let schema = try Registry.method(named: name).schema
    for parameter in ["weight", "density", "normalize", "rescale", "lambda", "int8_mask"] {
      #expect(schema.parameter(parameter) != nil, "\(parameter)")
    }
    #expect(schema.parameter("density")?.defaultValue == 1.0 && schema.parameter("lambda")?.defaultValue == 1.0)
    #expect(schema.parameter("normalize")?.defaultValue == .bool(name == "ties" || name == "della"))
    _ = try make(name, ["weight": 0.5, "density": 0.5, "normalize": true, "rescale": true, "lambda": 1, "int8_mask": true])
  }

  @Test func whatChangesNothingChangesNothing() throws {
    let plain = try Runner().merge(make("task_arithmetic"), Example.models, base: Example.base)
    let given = try Runner().merge(
      make("task_arithmetic", ["density": 0.2, "rescale": true, "int8_mask": true]), Example.models, base: Example.base)
    #expect(given.values == plain.values)
  }

  @Test func aMeanIsRescaledOnlyOnRequest() throws {
    let cases: [(given: JSON, merge: DisjointMerge.Rule, expected: TaskVectorSettings.Rescale)] = [
      ([:], .mean, .none), ([:], .sum, .l1), (["compat": "mergekit"], .mean, .l1), (["rescale": "inverse"], .mean, .inverse),
      (["rescale": false], .sum, .none),
    ]
    for (given, merge, expected) in cases {
      #expect(try Parameters(DareTies.schema, members(given)).rescale(before: merge) == expected)
    }
  }
}
