import Checkpoints
import Platform

/// The tokenizer files of the output that are not copies of the donor's: those that come with the recipe's vocabulary, and those
/// that hold its chat template.
struct TokenizerFiles {
  private enum Content {
    case file(String)
    case text([UInt8])
  }

  private var contents: [(name: String, content: Content)] = []
  /// Do they make up the whole tokenizer, so that the donor's stays behind?
  let replacesDonor: Bool
  private(set) var warnings: [String] = []

  var names: [String] { contents.map(\.name) }

  /// - Throws: `.recipe`, `.notFound` and `.format`: what is given is no folder of tokenizer files, or no chat template.
  init(_ recipe: Recipe, _ opened: PlanInputs) throws(Failure) {
    replacesDonor = recipe.vocabulary?.files != nil
    if let folder = recipe.vocabulary?.files {
      guard FileSystem.kind(folder) == .folder else {
        throw Failure(
          .notFound, "vocabulary.files is \(folder), which is no folder: give one with the output's tokenizer files")
      }
      for name in try FileSystem.list(folder) {
        guard SideFiles.isTokenizerFile(name), FileSystem.kind(folder + "/" + name) == .file else {
          throw Failure(.recipe, "vocabulary.files holds '\(name)', which is no tokenizer file: remove it from \(folder)")
        }
        contents.append((name, .file(folder + "/" + name)))
      }
    }
    guard let wanted = recipe.chatTemplate else { return }
    let template: String
    if wanted == "auto" {
      let folders = opened.inputs.compactMap(\.checkpoint.folder)
      guard let found = try ChatTemplate.commonest(in: folders) else {
        warnings.append("chat_template is auto, but no input has a chat template: none is set")
        return
      }
      template = found
    } else {
      template = try ChatTemplate.text(wanted)
    }
    let donor = replacesDonor ? nil : opened.inputs[opened.donor].checkpoint.folder
    let known = contents
    let files = try ChatTemplate.files(setting: template) { (name) throws(Failure) -> [UInt8]? in
      if let own = known.first(where: { $0.name == name }) { return try Self.bytes(own.content) }
      guard let path = donor.map({ $0 + "/" + name }), FileSystem.kind(path) == .file else { return nil }
      return try FileSystem.read(path)
    }
    for file in files {
      contents.removeAll { $0.name == file.name }
      contents.append((file.name, .text(file.bytes)))
    }
  }

  func write(to folder: String) throws(Failure) {
    for (name, content) in contents { try FileSystem.write(try Self.bytes(content), to: folder + "/" + name) }
  }

  private static func bytes(_ content: Content) throws(Failure) -> [UInt8] {
    switch content {
    case .file(let path): try FileSystem.read(path)
    case .text(let bytes): bytes
    }
  }
}
