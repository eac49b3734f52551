import JSON
import Platform

/// The chat template of a model: the Jinja text that turns messages into a prompt, in chat_template.jinja, in the
/// `chat_template` of tokenizer_config.json, or in chat_template.json, whichever the model has, in this order.
public enum ChatTemplate {
  static let file = "chat_template.jinja"
  static let json = "chat_template.json"
  static let config = "tokenizer_config.json"

  private static let longest = 16_000_000

  /// What `chat_template` of a recipe means: a name of ours, or the text itself.
  /// - Throws: `.recipe` for what is neither.
  public static func text(_ value: String) throws(Failure) -> String {
    if let known = named[value] { return known }
    guard value.utf8.count >= 20, value.utf8.contains(UInt8(ascii: "{")) else {
      throw Failure(
        .recipe,
        "'chat_template' is \(quoted(value)): give auto, one of \(named.keys.sorted().joined(separator: ", ")), or a Jinja template "
          + "of at least 20 characters")
    }
    return value
  }

  /// The template in a model's folder; nil when it has none.
  public static func found(in folder: String) throws(Failure) -> String? {
    if let bytes = try read(joined(folder, file)) { return String(decoding: bytes, as: UTF8.self) }
    for name in [config, json] {
      let path = joined(folder, name)
      guard let bytes = try read(path) else { continue }
      if let value = try TextMembers(bytes, source: path).value("chat_template"), let text = standard(value) { return text }
    }
    return nil
  }

  /// A template, or the one named "default" of several.
  private static func standard(_ value: JSON) -> String? {
    if let text = value.string { return text }
    return value.array?.first { $0["name"]?.string == "default" }?["template"]?.string
  }

  /// The template that most folders have, spaces around it aside; of several, the one that comes first. nil: none has any.
  public static func commonest(in folders: [String]) throws(Failure) -> String? {
    var counts: [(text: String, count: Int)] = []
    for folder in folders {
      guard let text = try found(in: folder).map(trimmed), !text.isEmpty else { continue }
      if let known = counts.firstIndex(where: { $0.text == text }) {
        counts[known].count += 1
      } else {
        counts.append((text, 1))
      }
    }
    let most = counts.map(\.count).max()
    return counts.first { $0.count == most }?.text
  }

  /// The files that hold a template once it is set: those that hold one now, or chat_template.jinja.
  /// - Parameter current: the bytes of a tokenizer file of the output; nil: there is none of that name.
  public static func files(
    setting template: String, current: (String) throws(Failure) -> [UInt8]?
  ) throws(Failure) -> [(name: String, bytes: [UInt8])] {
    var files: [(name: String, bytes: [UInt8])] = []
    if try current(file) != nil { files.append((file, Array(template.utf8))) }
    for name in [config, json] {
      guard let bytes = try current(name) else { continue }
      let members = try TextMembers(bytes, source: name)
      if members.has("chat_template") { files.append((name, members.setting("chat_template", to: .string(template)))) }
    }
    return files.isEmpty ? [(file, Array(template.utf8))] : files
  }

  private static func read(_ path: String) throws(Failure) -> [UInt8]? {
    FileSystem.kind(path) == .file ? try readSmallFile(path, limit: longest) : nil
  }

  private static func trimmed(_ text: String) -> String {
    let scalars = Array(text.unicodeScalars)
    let isSpace = { (scalar: Unicode.Scalar) in scalar.properties.isWhitespace }
    guard let first = scalars.firstIndex(where: { !isSpace($0) }), let last = scalars.lastIndex(where: { !isSpace($0) })
    else { return "" }
    var result = String.UnicodeScalarView()
    result.append(contentsOf: scalars[first...last])
    return String(result)
  }
}

// MARK: - Named templates

extension ChatTemplate {
  /// Written from the formats' own descriptions: Stanford Alpaca's prompts, OpenAI's ChatML, and the model cards of Llama 3,
  /// Mistral Instruct and EXAONE.
  static let named: [String: String] = [
    // A preamble, then headings; the answer follows "### Response:".
    "alpaca": """
    {%- if messages and messages[0]['role'] == 'system' -%}
      {{- messages[0]['content'] | trim + '\\n\\n' -}}
      {%- set turns = messages[1:] -%}
    {%- else -%}
      {{- 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n' -}}
      {%- set turns = messages -%}
    {%- endif -%}
    {%- for message in turns -%}
      {%- if message['role'] == 'user' -%}
        {{- '### Instruction:\\n' + message['content'] | trim + '\\n\\n' -}}
      {%- elif message['role'] == 'assistant' -%}
        {{- '### Response:\\n' + message['content'] | trim + eos_token | default('') + '\\n\\n' -}}
      {%- else -%}
        {{- raise_exception('The alpaca format has the roles system (first), user and assistant') -}}
      {%- endif -%}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
      {{- '### Response:\\n' -}}
    {%- endif -%}
    """,
    // <|im_start|>role, a line break, the text, <|im_end|>.
    "chatml": """
    {%- for message in messages -%}
      {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
      {{- '<|im_start|>assistant\\n' -}}
    {%- endif -%}
    """,
    // A header with the role, an empty line, the text, <|eot_id|>.
    "llama3": """
    {{- bos_token -}}
    {%- for message in messages -%}
      {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
      {{- message['content'] | trim + '<|eot_id|>' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
      {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
    {%- endif -%}
    """,
    // [INST] user [/INST] answer and end of sequence; a system text goes into the first turn.
    "mistral": """
    {{- bos_token -}}
    {%- if messages and messages[0]['role'] == 'system' -%}
      {%- set system = messages[0]['content'] | trim + '\\n\\n' -%}
      {%- set turns = messages[1:] -%}
    {%- else -%}
      {%- set system = '' -%}
      {%- set turns = messages -%}
    {%- endif -%}
    {%- for message in turns -%}
      {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('After an optional system message, user and assistant take turns') -}}
      {%- endif -%}
      {%- if message['role'] == 'user' -%}
        {{- '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' -}}
      {%- elif message['role'] == 'assistant' -%}
        {{- ' ' + message['content'] | trim + eos_token | default('') -}}
      {%- else -%}
        {{- raise_exception('The mistral format has the roles system (first), user and assistant') -}}
      {%- endif -%}
    {%- endfor -%}
    """,
    // [|role|]text; the system's and the assistant's end with [|endofturn|], the user's with a line break.
    "exaone": """
    {%- if not messages or messages[0]['role'] != 'system' -%}
      {{- '[|system|][|endofturn|]\\n' -}}
    {%- endif -%}
    {%- for message in messages -%}
      {{- '[|' + message['role'] + '|]' + message['content'] -}}
      {{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
      {{- '[|assistant|]' -}}
    {%- endif -%}
    """,
  ]
}
