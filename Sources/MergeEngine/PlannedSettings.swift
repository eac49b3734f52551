import JSON
import MergeMethods
import Platform

/// The parameters that the tensors of a plan are merged with, and their methods: each combination once.
struct PlannedSettings {
  struct Entry {
    let parameters: [JSON.Member]
    let method: any MergeMethod
    let policy: NonFinitePolicy
    let equalInputs: EqualInputs
  }

  private(set) var entries: [Entry] = []

  /// The number of a combination, checked when it is new. A gradient gives every layer its own, so only the last few are compared.
  mutating func add(_ parameters: [JSON.Member], _ recipe: Recipe) throws(Failure) -> Int {
    if let known = entries.suffix(16).lastIndex(where: { $0.parameters == parameters }) { return known }
    let values = try Parameters(recipe.schema, parameters)
    entries.append(
      Entry(
        parameters: parameters, method: try recipe.method.init(values),
        policy: values.choice("on_non_finite", as: NonFinitePolicy.self), equalInputs: recipe.method.ofEqualInputs(values)))
    return entries.count - 1
  }
}
