import MergeMethods
import Platform

/// README.md of a merged checkpoint: what it is made of, how, and with which recipe.
enum ModelCard {
  static func text(_ report: Report, path: String) -> String {
    let plan = report.plan
    let schema = plan.recipe.schema
    var lines = [
      "---", "base_model: []", "library_name: transformers", "tags:", "- stockpot", "- merge", "---",
      "# \(FileSystem.name(of: path))", "",
      "A merge of pre-trained models, made with Stockpot \(LibraryVersion.string).", "", "## Merge details", "",
      "Method: **\(schema.title)** (`\(schema.name)`). \(schema.summary)", "", "Source: \(schema.citation).", "",
    ]
    if let base = plan.inputs.first(where: \.isBase) { lines += ["Base: `\(base.path)`", ""] }
    lines += ["Models:", ""] + plan.inputs.filter { !$0.isBase }.map { "- `\($0.path)`" }
    lines += [
      "", "Config, tokenizer and other files: from `\(plan.inputs[plan.donor].path)`.", "",
      "\(report.merged) tensors merged, \(report.results.count - report.merged) copied; what was decided for each is in "
        + "`merge_report.json` and `merge_report.csv`.", "",
    ]
    if !report.warnings.isEmpty { lines += ["Warnings:", ""] + report.warnings.map { "- \($0)" } + [""] }
    let isYAML = report.recipeText != nil
    let recipe = report.recipeText ?? plan.recipe.json.serialized(indent: 2)
    lines += ["## Recipe", "", "```\(isYAML ? "yaml" : "json")", trimmed(recipe), "```", ""]
    return lines.joined(separator: "\n")
  }

  private static func trimmed(_ text: String) -> String {
    var result = Substring(text)
    while let last = result.last, last == "\n" || last == "\r\n" || last == " " { result.removeLast() }
    return String(result)
  }
}
