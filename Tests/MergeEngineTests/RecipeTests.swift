import JSON
import MergeEngine
import Platform
import Testing

@Suite struct RecipeTests {
  private func refuse(_ recipe: JSON, strict: Bool = false) -> Failure? {
    var options = JobOptions()
    options.strict = strict
    do throws(Failure) {
      _ = try Job(recipe: recipe, outputPath: nil, options: options)
      return nil
    } catch { return error }
  }

  @Test(arguments: [
    ("[]", Status.recipe), ("{}", .recipe), (#"{"merge_method": 3}"#, .recipe), (#"{"merge_method": "liner"}"#, .method),
    (#"{"merge_method": "linear"}"#, .recipe), (#"{"merge_method": "linear", "models": []}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{}]}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": ""}]}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": "/nowhere"}]}"#, .notFound),
    (#"{"merge_method": "linear", "models": [{"model": "org/name@main"}]}"#, .notFound),
    (#"{"merge_method": "model_stock", "models": [{"model": "/nowhere"}]}"#, .method),
    (#"{"merge_method": "linear", "slices": [{}], "models": [{"model": "x"}]}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": "x"}], "dtype": "int4"}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": "x"}], "on_missing": "guess"}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": "x"}], "config_source": 9}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": "x"}], "parameters": {"weight": [{"filter": "a"}]}}"#, .recipe),
    (#"{"merge_method": "linear", "models": [{"model": "x"}], "parameters": {"weight": null}}"#, .recipe),
  ])
  func refusesWhatItCannotUnderstand(text: String, status: Status) throws {
    let failure = refuse(try JSON.parse(text, source: "recipe"))
    #expect(failure?.status == status, "\(failure?.message ?? "accepted")")
    #expect(failure?.message.isEmpty == false)
  }

  @Test func anUnknownMethodSuggestsTheNearest() throws {
    let failure = refuse(["merge_method": "model_stok", "models": [["model": "x"]]])
    #expect(failure?.message.contains("model_stock") == true)
  }

  @Test func unknownKeysWarnOrFail() throws {
    let family = try Family()
    let recipe = family.recipe("linear", ["wieght": 1], adding: [.init(key: "dytpe", value: "float32")])
    let job = try Job(recipe: recipe, outputPath: nil, options: JobOptions())
    #expect(job.planText.contains("did you mean 'dtype'"))
    #expect(job.planText.contains("did you mean 'weight'"))
    #expect(refuse(recipe, strict: true) != nil)
  }

  @Test func aValueOutOfRangeIsAnErrorEverywhere() throws {
    let family = try Family(models: 1)
    #expect(refuse(family.recipe("slerp", ["t": 1.5]))?.status == .parameter)
    #expect(refuse(family.recipe("yoyo_scale", ["solver": "best"]))?.status == .parameter)
  }

  @Test func filtersAndGradientsPickValuesByName() throws {
    let family = try Family(models: 2)
    let own: JSON = [
      "weight": [["filter": "layers", "value": [0.0, 1.0]], ["filter": "embed", "value": 0.25], ["value": 0.5]]
    ]
    let list: JSON = [
      ["model": .string(family.folder("model-0")), "parameters": own],
      ["model": .string(family.folder("model-1")), "parameters": ["weight": ["value": 1]]],
    ]
    let recipe: JSON = ["merge_method": "linear", "models": list, "parameters": ["normalize": false]]
    let job = try Job(recipe: recipe, outputPath: nil, options: JobOptions())
    let plan = try JSON.parse(Array(job.planText.utf8), source: "plan")
    func weights(_ name: String) -> [Double]? {
      plan["tensors"]?.array?.first { $0["name"]?.string == name }?["parameters"]?["weight"]?.array?.compactMap(\.double)
    }
    #expect(weights("layers.0.w") == [0, 1])
    #expect(weights("layers.1.w") == [1, 1])
    #expect(weights("embed.weight") == [0.25, 1])
    #expect(weights("scale") == [0.5, 1])
  }

  @Test func anAnchorMayBeNamed() throws {
    let family = try Family()
    try family.merge(family.recipe("yoyo_fusion", ["anchor_index": "model-1"]), to: "named")
    try family.merge(family.recipe("yoyo_fusion", ["anchor_index": 2]), to: "numbered")
    #expect(try bytes(of: "layers.0.w", in: family.folder("named")) == bytes(of: "layers.0.w", in: family.folder("numbered")))
    #expect(refuse(family.recipe("yoyo_fusion", ["anchor_index": "nobody"]))?.status == .parameter)
    #expect(refuse(family.recipe("yoyo_fusion", ["anchor_index": 4]))?.status == .parameter)
  }
}
