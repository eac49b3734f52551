import JSON
import Platform
import TensorKernels

// NuSLERP: w = (sin((1-t) theta) a + sin(t theta) b) / sin(theta), t = b_2 / (b_1 + b_2) from the models' weights (1/2 if they cancel).
//
// a, b: the two models; with a base, their differences from it, and w is added to the base. theta is the angle of the flattened
// tensors, of the slices along the last axis (nuslerp_flatten: false), or of those along the first axis (nuslerp_row_wise: true
// besides). A tensor of fewer than two dimensions is one vector. Where sin(theta) < 1e-8 (1e-6 near 180 degrees),
// or a vector is zero or has one element, w = (1-t) a + t b.
// Inputs: two models, and a base or none; any shape. Types and rounding: Gram.swift, Combine.swift.
// Sweeps: flattened, Gram and Combine, (2 K + 1) * size bytes per element (K inputs); last axis, one in which a slice stays in
// cache; first axis, two, with three sums per slice (ColumnArcs.swift).
// compat mergekit: norms below 1e-7 count as 1e-7, so a zero vector is taken for orthogonal.
// Source: mergekit `nuslerp`; Shoemake, "Animating rotation with quaternion curves", 1985.

/// Spherical interpolation by weights, of whole tensors or slice by slice.
struct Nuslerp: MergeMethod {
  private enum Slices { case none, last, first }

  static let schema = MethodSchema(
    name: "nuslerp", title: "NuSLERP",
    summary: "Spherical interpolation between two models, or their task vectors, by weights; of whole tensors or of slices.",
    family: "gram", citation: "mergekit, nuslerp (arcee-ai/mergekit); Shoemake, SIGGRAPH 1985", base: .optional, minModels: 2,
    maxModels: 2,
    parameters: [
      .weight("Weight of the model: the position is the second's share of the sum."),
      ParameterSchema(
        "nuslerp_flatten", .boolean, default: true, summary: "Take a tensor for one vector, rather than for many.",
        source: "true: mergekit."),
      ParameterSchema(
        "nuslerp_row_wise", .boolean, default: false,
        summary: "Without flattening, which slices are vectors: false, those along the last axis; true, those along the first.",
        source: "false: mergekit, whose code gives the name this meaning."),
      .compatMergekit("mergekit: norms below 1e-7 count as 1e-7, so a zero vector is taken for orthogonal."),
    ],
    reports: ["t", "cosine", "linear", "slices"])

  private let parameters: Parameters
  private let slices: Slices
  private let floor: Double

  init(_ parameters: Parameters) throws(Failure) {
    self.parameters = parameters
    slices = parameters.boolean("nuslerp_flatten") ? .none : parameters.boolean("nuslerp_row_wise") ? .first : .last
    floor = parameters.isMergekit ? 1e-7 : 0
  }

  private func position(_ count: Int) throws(Failure) -> Double {
    let weights = try parameters.perModel("weight", count: count)
    let sum = weights.reduce(0, +)
    return sum.magnitude < 1e-6 ? 0.5 : weights[1] / sum
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    slices == .first && tensor.shape.count > 1 ? ColumnArcs.scratchBytes(tensor) : 0
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let t = try position(tensor.modelCount)
    if tensor.shape.count < 2 || slices == .none { return flattened(t, tensor) }
    if slices == .last { return rows(t, tensor) }
    return ColumnArcs(tensor, t: t, floor: floor).begin()
  }

  // MARK: - One vector

  private func combination(_ arc: SphereArc, _ tensor: TensorContext) -> AffineCombination {
    if tensor.hasBase {
      return AffineCombination(lambdas: [arc.a, arc.b], output: .weights, sum: arc.isLinear ? 1 : nil)
    }
    return AffineCombination([arc.a, arc.b], total: arc.isLinear ? 1 : arc.a + arc.b)
  }

  private func flattened(_ t: Double, _ tensor: TensorContext) -> Step {
    let finish = { (gram: GramMatrix) -> Step in
      let arc = SphereArc(
        t: t, squareA: gram[0, 0], squareB: gram[1, 1], product: gram[0, 1], elements: tensor.count, floor: floor)
      return combination(arc, tensor).step(
        Decision([
          .init(key: "t", value: .double(t)), .init(key: "cosine", value: .double(arc.cosine)),
          .init(key: "linear", value: .bool(arc.isLinear)),
        ]))
    }
    if tensor.hasBase { return .sweep(.gramOfDifferences(from: 0, inputs: 3) { finish($0) }) }
    return .sweep(.gramOfInputs(2) { finish($0) })
  }

  // MARK: - Slices along the last axis

  /// One sweep: a slice's inner products and its result while it is in cache.
  private func rows(_ t: Double, _ tensor: TensorContext) -> Step {
    let length = max(1, tensor.shape.last ?? 1)
    let pairs = RowPairs(rows: 2)
    // Sums: of all squares, and how many slices were joined by a line.
    var sweep = Sweep(sums: 2, writes: true) { block in
      withUnsafeTemporaryAllocation(of: Double.self, capacity: 3) { triangle in
        for start in stride(from: 0, to: block.count, by: length) {
          triangle.initialize(repeating: 0)
          Gram.accumulate(
            block.inputs, from: start, count: length, reference: tensor.hasBase ? 0 : nil, crossTerms: false, pairs: pairs,
            sums: triangle.baseAddress!, workspace: block.workspace)
          let arc = SphereArc(
            t: t, squareA: triangle[0], squareB: triangle[2], product: triangle[1], elements: length, floor: floor)
          combination(arc, tensor).run(
            block.inputs, from: start, count: length, output: block.output! + start * block.outputType.size, block.outputType)
          block.sums[0] += triangle[0] + triangle[2]
          block.sums[1] += arc.isLinear ? 1 : 0
        }
      }
    } next: { sums in
      .finish(Decision(ColumnArcs.entries(t, linear: Int(sums[1]), slices: tensor.count / length)))
    }
    sweep.granule = length
    // Products that leave the range of binary32 make the tensor start again in binary64.
    sweep.squares = [0]
    sweep.needsFiniteSums = true
    return .sweep(sweep)
  }
}
