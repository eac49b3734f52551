import JSON
import Platform
import TensorKernels

// TALL masks and consensus, as three methods share them: the multi-task vector tau and the masks m_i = |d_i| > l_i |tau - d_i|.
//
// tau = sum_i b_i d_i, or with use_ties the disjoint sum of TIES (TallMask.swift, Ties.swift). Inputs: base and K >= 1 models.
// Sweeps: one, and those of TIES with use_ties. Traffic of each: (K + 1) * size bytes per element.
// Source: Wang et al., "Localizing Task Information for Improved Model Merging and Compression", arXiv:2405.07813; tall_masks.

struct MultiTaskVector {
  /// - Parameter ties: the default of use_ties.
  static func parameters(ties: Bool) -> [ParameterSchema] {
    [
      ParameterSchema(
        "tall_mask_lambda", .number, default: 0.4, minimum: 0, perModel: true,
        summary: "How much of the rest of the multi-task vector a model's change must exceed to be kept by its mask.",
        source: "0.2 to 0.6, chosen by validation: tall_masks. 0.6: FusionBench."),
      .weight("Weight of the model's task vector in the multi-task vector."),
      ParameterSchema(
        "use_ties", .boolean, default: .bool(ties),
        summary: "Make the multi-task vector by TIES: trim, vote, sum of what agrees.", source: "tall_masks."),
      .density("Share of the elements that the trim of TIES keeps.", default: 0.2, source: "0.2: tall_masks."),
      .trim(default: "inclusive"), .trimScope(default: "model"), .zeroSign(default: "majority"),
      .lambda("Factor of the multi-task vector. tall_masks and FusionBench choose it by validation; 0.3 is usual."),
    ]
  }

  static let reports = ["mask_kept", "consensus_kept", "thresholds", "majority_sign"]

  let parameters: Parameters
  let usesTies: Bool

  init(_ parameters: Parameters) {
    self.parameters = parameters
    usesTies = parameters.boolean("use_ties")
  }

  var scope: Scope { usesTies ? parameters.choice("scope", as: Scope.self) : .tensor }

  private func settings(_ models: Int) throws(Failure) -> TaskVectorSettings {
    var settings = TaskVectorSettings(weights: try parameters.perModel("weight", count: models))
    guard usesTies else { return settings }
    settings.density = try parameters.perModel("density", count: models)
    settings.trim = parameters.choice("trim", as: TaskVectorSettings.Trim.self)
    settings.zeroSign = parameters.choice("zero_sign", as: TaskVectorSettings.ZeroSign.self)
    settings.scope = scope
    settings.elect = .mass
    return settings
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    (try? settings(tensor.modelCount)).map { TaskVectorStages.scratchBytes($0, tensor) } ?? 0
  }

  /// - Parameter consensus: how many masks must agree; nil: tau is not masked.
  func begin(_ tensor: TensorContext, consensus: Int?) throws(Failure) -> Step {
    let lambdas = try parameters.perModel("tall_mask_lambda", count: tensor.modelCount)
    let stages = TaskVectorStages(try settings(tensor.modelCount), tensor)
    return try stages.begin { () throws(Failure) in
      write(stages, TallMasks(stages.disjointMerge, lambdas: lambdas, consensus: consensus))
    }
  }

  private func write(_ stages: TaskVectorStages, _ masks: TallMasks) -> Step {
    let tensor = stages.tensor
    let (lambda, output) = (parameters.number("lambda"), parameters.choice("output", as: OutputKind.self))
    let sink = masks.consensus == nil ? tensor.artifacts : nil
    return .sweep(
      stages.sweep(sums: masks.sums, writes: true) { _, small, block, sums in
        func run(_ bits: UnsafePointer<UnsafeMutablePointer<UInt8>>?) -> Double {
          masks.run(
            small,
            .init(
              lambda: lambda, addsBase: output == .weights, merged: block.output!, block.outputType, bits: bits), sums: sums)
        }
        guard let sink else { return run(nil) }
        let bytes = (block.count + 7) / 8
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(1, bytes * tensor.modelCount)) { space in
          let rows = (0..<tensor.modelCount).map { space.baseAddress! + $0 * bytes }
          let poison = rows.withUnsafeBufferPointer { run($0.baseAddress!) }
          for (k, row) in rows.enumerated() { sink.write(row, count: bytes, artifact: k, at: block.start / 8) }
          return poison
        }
      } next: { sums in
        var decision = stages.decision()
        let all = Double(max(1, tensor.count))
        let kept = sums.prefix(tensor.modelCount).map { JSON.double($0 / all) }
        decision.entries.append(.init(key: "mask_kept", value: .array(kept)))
        if masks.consensus != nil {
          decision.entries.append(.init(key: "consensus_kept", value: .double((sums.last ?? 0) / all)))
        }
        return .finish(decision)
      })
  }
}
