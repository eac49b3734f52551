import MergeMethods
import Platform

// How a tensor goes on whose sums cannot be trusted, and what the report says of it in the end.

extension ActiveTensor {
  /// What to do instead of the method's next step, when the sums cannot be trusted; nil: nothing.
  func recovery(after sweep: Sweep, _ sums: [Double]) throws(Failure) -> Step? {
    if case .nonFinite(let input, let element)? = trouble {
      trouble = nil
      if try Comparison.allEqual(task.inputs, count: task.context.count) { return try stepOfEqualInputs() }
      throw Failure(
        .nonFinite,
        "'\(task.context.name)' of \(task.inputNames[input]) has a NaN or an infinity at element \(element): repair it, or set "
          + "on_non_finite: warn or ignore")
    }
    let finite = sums[..<(sums.count - sweep.maxima)].allSatisfy(\.isFinite)
    let tooSmall = sweep.squares.contains { sums[$0] < 1e-25 }
    if !isWide, kernelType.size == 2, !finite && nonFinite == 0 || tooSmall || trouble != nil {
      isWide = true
      trouble = nil
      guard let method = task.method else { return nil }
      return try method.begin(task.context)
    }
    trouble = nil
    guard !finite, sweep.writes ? sweep.needsFiniteSums : task.method?.acceptsNonFinite != true else { return nil }
    if task.policy == .error {
      throw Failure(
        .nonFinite, "the inner products of '\(task.context.name)' are too large for binary64: scale its values down")
    }
    if task.equalInputs == .zeros {
      return .zeros(Decision(warnings: ["the inner products are not finite: no change of \(task.inputNames[0])"]))
    }
    return .copy(
      input: 0, Decision(warnings: ["the inner products are not finite: copied from \(task.inputNames[0])"]))
  }

  /// What is made of equal inputs with values that are not finite.
  private func stepOfEqualInputs() throws(Failure) -> Step {
    func decision(_ what: String) -> Decision {
      Decision(warnings: ["equal in all inputs, with values that are not finite: \(what)"])
    }
    switch task.equalInputs {
    case .input: return .copy(input: 0, decision("copied"))
    case .zeros: return .zeros(decision("no change"))
    case .multiple:
      guard let method = task.method else { return .copy(input: 0, decision("copied")) }
      keepsNonFinite = true
      warnings += decision("kept in the result").warnings
      return try method.begin(task.context)
    }
  }

  /// What became of a tensor; its inputs are let go.
  func conclude(_ decision: Decision, copied: Bool) -> TensorResult {
    var decision = decision
    decision.warnings += warnings
    if nonFinite > 0 {
      decision.entries.append(.init(key: "non_finite", value: .int(nonFinite)))
      if task.policy == .warn {
        decision.warnings.append("\(nonFinite) blocks of the inputs hold values that are not finite")
      }
    }
    if overflowed > 0 {
      decision.entries.append(.init(key: "overflowed", value: .int(overflowed)))
      decision.warnings.append(
        "\(overflowed) finite results do not fit in \(task.outputType.name) and became infinite or NaN")
    }
    task.release()
    return TensorResult(decision: decision, copied: copied, seconds: Machine.seconds() - started)
  }
}
