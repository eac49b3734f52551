import JSON
import Testing

@testable import MergeMethods

@Suite struct MethodSchemaTests {
  private func schema(makesTaskVector: Bool = false, maxModels: Int? = nil) -> MethodSchema {
    MethodSchema(
      name: "example", title: "Example", summary: "For tests.", family: "gram", citation: "A paper.", base: .optional,
      minModels: 2,
      maxModels: maxModels,
      parameters: [
        ParameterSchema("t", .number, default: nil, minimum: 0, maximum: 1, summary: "Position.", source: "A tool."),
        ParameterSchema("mode", .choice(["a", "b"]), default: "b", summary: "Way."),
        ParameterSchema("weight", .number, default: 1.0, perModel: true, summary: "Weight."),
        ParameterSchema("maybe", .strings, default: nil, isOptional: true, summary: "Names."),
      ],
      reports: ["x", "y"], makesTaskVector: makesTaskVector)
  }

  @Test func jsonSaysAllThereIsToKnow() {
    let json = schema(maxModels: 5).json
    #expect(
      json.members?.map(\.key) == ["name", "title", "summary", "family", "citation", "inputs", "parameters", "reports"])
    #expect(json["name"] == "example" && json["title"] == "Example" && json["summary"] == "For tests.")
    #expect(json["family"] == "gram" && json["citation"] == "A paper.")
    #expect(json["inputs"] == ["base": "optional", "min_models": 2, "max_models": 5])
    #expect(json["reports"] == ["x", "y"])
    #expect(schema().json["inputs"]?["max_models"] == .null)
  }

  @Test func parametersSayTheirTypeDefaultAndRange() {
    let list = schema().json["parameters"]?.array ?? []
    #expect(list.map { $0["name"]?.string } == ["t", "mode", "weight", "maybe", "on_non_finite"])
    #expect(
      list[0] == [
        "name": "t", "type": "number", "required": true, "default": nil, "minimum": 0.0, "maximum": 1.0, "per_model": false,
        "summary": "Position.", "source": "A tool.",
      ])
    #expect(
      list[1] == [
        "name": "mode", "type": "choice", "required": false, "default": "b", "choices": ["a", "b"], "per_model": false,
        "summary": "Way.",
      ])
    #expect(list[2]["per_model"] == true && list[2]["default"] == 1.0 && list[2]["minimum"] == nil)
    #expect(list[3]["required"] == false && list[3]["default"] == .null && list[3]["type"] == "list")
    #expect(list[4]["choices"] == ["error", "warn", "ignore"] && list[4]["default"] == "error")
  }

  @Test func onlyMethodsWithATaskVectorTakeOutput() {
    #expect(schema().parameter("output") == nil)
    #expect(schema(makesTaskVector: true).parameter("output")?.kind == .choice(["weights", "task_vector"]))
    #expect(schema().parameter("on_non_finite") != nil && schema().parameter("t")?.isRequired == true)
    #expect(schema().parameter("T") == nil)
  }

  @Test func everyKindHasItsName() {
    let kinds: [(ParameterSchema.Kind, String)] = [
      (.number, "number"), (.integer, "integer"), (.boolean, "boolean"), (.choice([]), "choice"), (.strings, "list"),
      (.vectors, "vectors"),
      (.model, "model"),
    ]
    for (kind, name) in kinds { #expect(ParameterSchema("p", kind, default: 0, summary: "").typeName == name) }
  }

  @Test func requiredMeansNoDefaultAndNotOptional() {
    #expect(ParameterSchema("p", .number, default: nil, summary: "").isRequired)
    #expect(!ParameterSchema("p", .number, default: 0, summary: "").isRequired)
    #expect(!ParameterSchema("p", .number, default: nil, isOptional: true, summary: "").isRequired)
  }

  @Test func theTextOfTheSchemaReadsBack() throws {
    let json = schema(makesTaskVector: true).json
    #expect(try JSON.parse(json.serialized(), source: "schema") == json)
  }

  @Test func otherSpellingsAreListedWithTheirChoice() {
    let parameter = ParameterSchema(
      "rescale", .choice(["l1", "none"]), default: "l1", aliases: ["true": "l1", "false": "none"], summary: "Way.")
    #expect(
      parameter.json == [
        "name": "rescale", "type": "choice", "required": false, "default": "l1", "choices": ["l1", "none"],
        "aliases": ["false": "none", "true": "l1"], "per_model": false, "summary": "Way.",
      ])
  }
}
