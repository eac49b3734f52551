import JSON
import Platform
import Testing

@testable import MergeMethods

@Suite struct RegistryTests {
  private static let schemas = Registry.methods.map { $0.schema }

  @Test func theMethodsOfTheFamiliesAreThere() {
    let names = Self.schemas.map(\.name)
    for name in ["linear", "task_arithmetic", "slerp", "model_stock", "yoyo_scale", "geometric_median", "yoyo_fusion"] {
      #expect(names.contains(name))
    }
    for name in [
      "ties", "ties_soup", "dare_linear", "dare_ties", "tsd", "tsd_v2", "tgmd", "magnitude_prune", "magmax", "tall_mask",
      "consensus_ta", "consensus_ties",
    ] {
      #expect(names.contains(name))
    }
    for name in ["tsvm", "iso_c", "iso_cts", "scale_svd"] { #expect(names.contains(name)) }
    // mergekit's, beside those above.
    for name in [
      "nuslerp", "multislerp", "karcher", "passthrough", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear", "sce",
      "ram",
      "ramplus_tl", "nearswap", "arcee_fusion",
    ] {
      #expect(names.contains(name))
    }
    #expect(Set(names).count == names.count)
  }

  @Test func everySchemaIsComplete() {
    for schema in Self.schemas {
      #expect(
        !schema.name.isEmpty && schema.name.utf8.allSatisfy { (97...122).contains($0) || $0 == 95 || (48...57).contains($0) })
      #expect(!schema.title.isEmpty && schema.summary.hasSuffix("."), "\(schema.name)")
      #expect(schema.citation.count > 10 && ["gram", "elementwise", "spectral"].contains(schema.family), "\(schema.name)")
      #expect(schema.minModels >= 1 && schema.maxModels.map { $0 >= schema.minModels } ?? true, "\(schema.name)")
      #expect(!schema.reports.isEmpty && Set(schema.reports).count == schema.reports.count, "\(schema.name)")
      let parameters = schema.allParameters
      #expect(Set(parameters.map(\.name)).count == parameters.count, "\(schema.name)")
      for parameter in parameters {
        #expect(parameter.summary.hasSuffix("."), "\(schema.name) \(parameter.name)")
        if case .choice(let choices) = parameter.kind { #expect(choices.count > 1 && Set(choices).count == choices.count) }
      }
    }
  }

  @Test func everyDefaultIsAValueThatTheSchemaTakes() throws {
    for schema in Self.schemas {
      // A middle value for what has no default.
      let required = schema.allParameters.filter(\.isRequired).map { JSON.Member(key: $0.name, value: 0.5) }
      for parameter in schema.allParameters {
        guard let value = parameter.defaultValue else { continue }
        let read = try Parameters(schema, required + [.init(key: parameter.name, value: value)])
        #expect(read.value(parameter.name) == value, "\(schema.name) \(parameter.name)")
      }
    }
  }

  @Test func everyChoiceOfEveryMethodCanBeMade() throws {
    for method in Registry.methods {
      let required = method.schema.allParameters.filter(\.isRequired).map { JSON.Member(key: $0.name, value: 0.5) }
      for parameter in method.schema.allParameters {
        guard case .choice(let choices) = parameter.kind else { continue }
        for choice in choices {
          // A group of columns has a length.
          let others = choice == "n:m" ? members(["prune_n": 2, "prune_m": 4]) : []
          _ = try Registry.make(method, required + others + [.init(key: parameter.name, value: .string(choice))])
        }
      }
    }
  }

  @Test func methodsAreFoundByName() throws {
    for schema in Self.schemas { #expect(try Registry.method(named: schema.name).schema.name == schema.name) }
  }

  @Test func anUnknownMethodGetsASuggestion() {
    expectFailure(.method, "'model_stonk'", "did you mean 'model_stock'?") { _ = try Registry.method(named: "model_stonk") }
    expectFailure(.method, "'qwertyuiop'", "linear, task_arithmetic") { _ = try Registry.method(named: "qwertyuiop") }
    expectFailure(.method) { _ = try Registry.method(named: "") }
  }

  @Test func makingChecksTheParameters() throws {
    let slerp = try Registry.method(named: "slerp")
    expectFailure(.parameter, "'t'") { _ = try Registry.make(slerp, []) }
    expectFailure(.parameter, "'t'", "between 0 and 1") { _ = try Registry.make(slerp, members(["t": 2])) }
    #expect(try Registry.make(slerp, members(["t": 0.5])) is Slerp)
  }

  @Test func useOfTheBaseFollowsTheSchema() throws {
    for method in Registry.methods where method.schema.name != "geometric_median" {
      let required = method.schema.allParameters.filter(\.isRequired).map { JSON.Member(key: $0.name, value: 0.5) }
      let made = try Registry.make(method, required)
      switch method.schema.base {
      case .required: #expect(made.usesBase(given: true) && made.usesBase(given: false))
      case .optional: #expect(made.usesBase(given: true) && !made.usesBase(given: false))
      case .donor: #expect(!made.usesBase(given: true) && !made.usesBase(given: false))
      }
    }
  }
}
