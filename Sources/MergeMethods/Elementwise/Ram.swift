import JSON
import Platform
import TensorKernels

// RAM (Reinforced Agent Merging): w = w_0 + lambda * tau; tau is what one model alone changed, and the mean of what several changed.
//
// A change is |d_i| > epsilon. Formula: ReinforcedMerge.swift. Inputs: base and K >= 1 models, any shape. One sweep; traffic:
// (K + 2) * size bytes per element. Source: Reinforced Agent Merging, arXiv:2601.13572; mergekit `ram`.

/// Changes of one model in full, changes of several averaged.
struct Ram: MergeMethod {
  static let schema = MethodSchema(
    name: "ram", title: "RAM (Reinforced Agent Merging)",
    summary: "Adds what one model alone changed in full, and the mean of what several changed.", family: "elementwise",
    citation: "Reinforced Agent Merging, arXiv:2601.13572", base: .required,
    parameters: [.activity, .lambda("Factor of the merged task vector.")], reports: ["unique", "shared"], makesTaskVector: true)

  private let parameters: Parameters

  init(_ parameters: Parameters) throws(Failure) { self.parameters = parameters }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    ReinforcedStages(parameters, tensor).write([Double](repeating: 1, count: tensor.modelCount), [])
  }
}

extension ParameterSchema {
  static let activity = ParameterSchema(
    "epsilon", .number, default: 1e-5, minimum: 0, summary: "A model has changed an element that differs by more than this.",
    source: "1e-5: mergekit.")
}

/// The sweeps of RAM and RAM+.
struct ReinforcedStages {
  let parameters: Parameters
  let tensor: TensorContext
  private let vectors: TaskVectors

  init(_ parameters: Parameters, _ tensor: TensorContext) {
    self.parameters = parameters
    self.tensor = tensor
    var filter = TaskVectorFilter()
    filter.cut = .below(threshold: parameters.number("epsilon"), tiesBefore: 0)
    vectors = TaskVectors(filters: [TaskVectorFilter](repeating: filter, count: tensor.modelCount), narrow: false)
  }

  private func merge(_ factors: [Double]) -> ReinforcedMerge { ReinforcedMerge(vectors, factors: factors) }

  private func block(_ block: Block) -> TaskVectorBlock {
    TaskVectorBlock(inputs: block.inputs, from: 0, count: block.count, start: block.start, workspace: block.workspace)
  }

  /// How many elements each model has changed alone, and with others.
  func count(_ next: @escaping (_ unique: [Double], _ shared: [Double]) -> Step) -> Step {
    let models = tensor.modelCount
    let merge = merge([Double](repeating: 1, count: models))
    return .sweep(
      Sweep(sums: 1 + merge.sums, writes: false) { block in
        block.sums[0] += merge.addCounts(self.block(block), to: block.sums + 1)
      } next: { sums in
        next(Array(sums[1...models]), Array(sums[(1 + models)...]))
      })
  }

  func write(_ factors: [Double], _ entries: [JSON.Member]) -> Step {
    let models = tensor.modelCount
    let merge = merge(factors)
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    let all = Double(max(1, tensor.count))
    return .sweep(
      Sweep(sums: 1 + merge.sums, writes: true) { block in
        block.sums[0] += merge.run(
          self.block(block), lambda: lambda, addsBase: output == .weights, output: block.output!, block.outputType,
          sums: block.sums + 1)
      } next: { sums in
        .finish(
          Decision(
            [
              .init(key: "unique", value: .array(sums[1...models].map { .double($0 / all) })),
              .init(key: "shared", value: .array(sums[(1 + models)...].map { .double($0 / all) })),
            ] + entries))
      })
  }
}
