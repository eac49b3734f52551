import Testing

@testable import MergeMethods

@Suite struct SuggestionTests {
  private static let methods = ["linear", "task_arithmetic", "slerp", "model_stock", "yoyo_scale", "geometric_median"]

  private static let near: [(String, String)] = [
    ("linaer", "linear"), ("Linear", "linear"), ("liner", "linear"), ("slurp", "slerp"), ("modelstock", "model_stock"),
    ("model-stock", "model_stock"), ("task_arithmatic", "task_arithmetic"), ("yoyoscale", "yoyo_scale"),
    ("YOYO_SCALE", "yoyo_scale"), ("geometric_mean", "geometric_median"), ("slerp", "slerp"),
  ]

  @Test(arguments: near) func aSlipFindsItsName(typed: String, meant: String) {
    #expect(Suggestion.nearest(to: typed, among: Self.methods) == meant)
  }

  @Test(arguments: ["", "x", "ties", "something_else", "lerp_model"]) func aStrangerFindsNothing(typed: String) {
    #expect(Suggestion.nearest(to: typed, among: Self.methods) == nil)
  }

  @Test func theLimitIsAThirdOfTheNameAndAtLeastOne() {
    // Nine letters allow three changes, not four.
    #expect(Suggestion.nearest(to: "abcdefXYZ", among: ["abcdefghi"]) == "abcdefghi")
    #expect(Suggestion.nearest(to: "abcdeWXYZ", among: ["abcdefghi"]) == nil)
    #expect(Suggestion.nearest(to: "s", among: ["t"]) == "t")
    #expect(Suggestion.nearest(to: "st", among: ["t"]) == "t")
    #expect(Suggestion.nearest(to: "stu", among: ["t"]) == nil)
  }

  @Test func insertionsDeletionsAndSubstitutionsCountOneEach() {
    // Three edits of different kinds between these two, and the limit for nine letters is three.
    #expect(Suggestion.nearest(to: "bcdXefghij", among: ["abcdefghi"]) == "abcdefghi")
    #expect(Suggestion.nearest(to: "bcdXefghijk", among: ["abcdefghi"]) == nil)
  }

  @Test func theNearestOfSeveralWinsAndTheFirstOfEquals() {
    #expect(Suggestion.nearest(to: "weigh", among: ["height", "weight"]) == "weight")
    #expect(Suggestion.nearest(to: "cat", among: ["hat", "rat"]) == "hat")
    #expect(Suggestion.nearest(to: "cat", among: []) == nil)
  }
}
