import JSON
import Platform
import TensorKernels

// NearSwap: w = w_0 + c, c = w_1 - w_0 cut off at +-t: every weight goes to the model's if that is near, else t towards it.
//
// That is b w_1 + (1 - b) w_0 with b = min(1, t / |w_1 - w_0|). Inputs: base and one model, any shape. One sweep; traffic:
// 3 * size bytes per element. Types, rounding and NaN rule: NearSwap.swift.
// compat mergekit: differences below 1e-6 count as 1e-6.
// Source: alchemonaut, QuartetAnemoi-70B-t0.0001; mergekit `nearswap`.

/// The model where it is near the base, a bounded step towards it elsewhere.
struct Nearswap: MergeMethod {
  static let schema = MethodSchema(
    name: "nearswap", title: "NearSwap",
    summary: "The model's weight where it is within t of the base's, else the base's and a step of t towards it.",
    family: "elementwise", citation: "alchemonaut, QuartetAnemoi-70B-t0.0001, huggingface.co 2024; mergekit", base: .required,
    minModels: 1, maxModels: 1,
    parameters: [
      ParameterSchema("t", .number, default: nil, minimum: 0, summary: "How far a weight may move."),
      .compatMergekit("mergekit: differences below 1e-6 count as 1e-6."),
    ],
    reports: ["swapped"])

  private let kernel: NearSwap

  init(_ parameters: Parameters) throws(Failure) {
    kernel = NearSwap(limit: parameters.number("t"), floor: parameters.isMergekit ? 1e-6 : 0)
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let kernel = self.kernel
    return .sweep(
      Sweep(sums: 1, writes: true) { block in
        block.sums[0] += kernel.run(block.inputs, count: block.count, output: block.output!, block.outputType)
      } next: { sums in
        .finish(Decision([.init(key: "swapped", value: .double(sums[0] / Double(max(1, tensor.count))))]))
      })
  }
}
