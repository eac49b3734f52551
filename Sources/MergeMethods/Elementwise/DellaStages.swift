import JSON
import Platform
import TensorKernels

// DELLA's drop, as two methods share it: in each row the chance of an element to stay grows with the rank of its magnitude, from
// density - epsilon to density + epsilon (RowRanks.swift).
//
// A row of a matrix is one output's weights; of a tensor of more dimensions, all that has the same first index; a vector is one row.
// A density of 1 drops nothing, of 0 everything; in between, density +- epsilon must be inside (0, 1).
// Sweeps: one for the L1 sums, if task vectors are rescaled, and one to write; each ranks a row while it is in cache. Traffic of each:
// (K + 1) * size bytes per element. Memory: the masks of one block per worker, and those of the tensor, a bit per element, up to 64 MiB,
// which are then made only once.
// compat mergekit: rows of a tensor of more than two dimensions run along the second axis, as torch's dim=1 has it.
// Source: Deep et al., "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling", arXiv:2406.11617.

struct DellaStages {
  private let parameters: Parameters
  private let tensor: TensorContext
  private let weights: [Double]
  private let density: [Double]
  private let epsilon: [Double]
  private let rescale: TaskVectorSettings.Rescale
  /// A row is `length` elements, `step` apart.
  private let length: Int
  private let step: Int
  /// For all sweeps; nil: each makes its own.
  private let masks: Masks?

  /// One bit per element of each model. Written by the first sweep, each byte by one worker, and read by the second.
  private final class Masks: @unchecked Sendable {
    private let bits: UnsafeMutablePointer<UInt8>
    private let bytes: Int
    var isComplete = false

    init(models: Int, elements: Int) {
      bytes = PackedMask.bytes(elements: elements)
      bits = .allocate(capacity: max(1, models * bytes))
    }

    deinit { bits.deallocate() }

    /// - Parameter start: a multiple of 8.
    func put(_ mask: UnsafePointer<UInt8>, model: Int, start: Int, count: Int) {
      PackedMask.pack(mask, count: count, into: bits + model * bytes + start / 8)
    }

    func get(model: Int, start: Int, count: Int, into mask: UnsafeMutablePointer<UInt8>) {
      PackedMask.unpack(bits + model * bytes + start / 8, count: count, into: mask)
    }
  }

  /// Bytes of the masks that are kept; 0: none.
  private static func keptMasks(_ tensor: TensorContext, _ rescale: TaskVectorSettings.Rescale) -> Int {
    let bytes = tensor.modelCount * PackedMask.bytes(elements: tensor.count)
    return rescale == .l1 && bytes <= 64 << 20 ? bytes : 0
  }

  init(_ parameters: Parameters, _ tensor: TensorContext, rescale: TaskVectorSettings.Rescale) throws(Failure) {
    self.parameters = parameters
    self.tensor = tensor
    self.rescale = rescale
    let models = tensor.modelCount
    weights = try parameters.perModel("weight", count: models)
    density = try parameters.perModel("density", count: models)
    epsilon = try parameters.perModel("epsilon", count: models)
    for (p, e) in zip(density, epsilon) where p > 0 && p < 1 && !(p + e.magnitude < 1 && p - e.magnitude > 0) {
      throw Failure(
        .parameter,
        "density \(p) with epsilon \(e) of \(parameters.schema.name) leaves the chances between 0 and 1: give an epsilon "
          + "below \(min(p, 1 - p))")
    }
    let shape = tensor.shape
    if shape.count > 2, parameters.isMergekit {
      (length, step) = (max(1, shape[1]), max(1, shape.dropFirst(2).reduce(1, *)))
    } else {
      (length, step) = (max(1, shape.count < 2 ? tensor.count : shape.dropFirst().reduce(1, *)), 1)
    }
    // Blocks begin at multiples of the granule, and so share no byte.
    let isKept = Self.keptMasks(tensor, rescale) > 0 && Self.granule(length * step) % 8 == 0
    masks = isKept ? Masks(models: tensor.modelCount, elements: tensor.count) : nil
  }

  /// Whole rows, and at least a chunk, so that sums are cut at the same places whatever the blocks are.
  private static func granule(_ slab: Int) -> Int { (KernelGeometry.chunk + slab - 1) / slab * slab }

  var sumOfWeights: Double { weights.reduce(0, +) }

  // MARK: - Masks

  /// A sweep over whole rows: `run` is given the filtered task vectors and adds to the sums from 1 on.
  private func sweep(
    sums: Int, writes: Bool, _ run: @escaping (TaskVectors, TaskVectorBlock, Block, UnsafeMutablePointer<Double>) -> Double,
    next: @escaping (ArraySlice<Double>) throws(Failure) -> Step
  ) -> Sweep {
    let models = tensor.modelCount
    let narrow = !tensor.isDouble
    let (density, epsilon, length, step) = (self.density, self.epsilon, self.length, self.step)
    let seed = UInt64(parameters.integer("random_seed"))
    let ranks = (0..<models).map { k in
      RowRanks(
        probability: density[k], slope: epsilon[k], length: length,
        stream: RandomStream(seed: seed, name: tensor.name, model: k), narrow: narrow)
    }
    let (first, masks) = (tensor.firstModel, self.masks)
    var sweep = Sweep(sums: sums + 1, writes: writes) { block in
      let scratch = RowRanks.Scratch(length: length, step: step)
      withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(1, models * block.count)) { space in
        var vectors = TaskVectors(filters: [TaskVectorFilter](repeating: TaskVectorFilter(), count: models), narrow: narrow)
        for k in 0..<models {
          if density[k] <= 0 { vectors.filters[k].cut = .everything }
          guard density[k] > 0, density[k] < 1 else { continue }
          let mask = space.baseAddress! + k * block.count
          if let masks, masks.isComplete {
            masks.get(model: k, start: block.start, count: block.count, into: mask)
          } else {
            ranks[k].mask(
              block.inputs, model: first + k, start: block.start, count: block.count, step: step, scratch: scratch, into: mask)
            masks?.put(mask, model: k, start: block.start, count: block.count)
          }
          vectors.filters[k].drop = .masked(BlockMask(bytes: mask, start: block.start))
        }
        let small = TaskVectorBlock(
          inputs: block.inputs, from: 0, count: block.count, start: block.start, workspace: block.workspace)
        block.sums[0] += run(vectors, small, block, block.sums + 1)
      }
    } next: { (sums) throws(Failure) in
      masks?.isComplete = true
      return try next(sums.dropFirst())
    }
    sweep.granule = Self.granule(length * step)
    return sweep
  }

  /// Bytes of the masks that are kept, and of one worker's block and rows.
  static func scratchBytes(_ tensor: TensorContext, rescale: TaskVectorSettings.Rescale) -> Int {
    let row = max(1, tensor.shape.count < 2 ? tensor.count : tensor.shape.dropFirst().reduce(1, *))
    let block = max(row + KernelGeometry.chunk, 65536)
    let kept = keptMasks(tensor, rescale)
    return kept + tensor.modelCount * block + RowRanks.Scratch.bytes(length: row, step: 1)
  }

  // MARK: - Rescale, and write

  func begin(_ last: @escaping (_ factors: [Double]) -> Step) -> Step {
    let models = tensor.modelCount
    switch rescale {
    case .none: return last([Double](repeating: 1, count: models))
    case .inverse: return last(density.map { $0 > 0 ? 1 / $0 : 1 })
    case .l1:
      guard density.contains(where: { $0 < 1 }) else { return last([Double](repeating: 1, count: models)) }
      let smallest = parameters.isMergekit ? 1e-7 : 0
      return .sweep(
        sweep(sums: 2 * models, writes: false) { [granule = Self.granule(length * step)] vectors, block, _, sums in
          var poison = 0.0
          for from in stride(from: 0, to: block.count, by: granule) {
            let part = TaskVectorBlock(
              inputs: block.inputs, from: from, count: min(granule, block.count - from), start: block.start + from,
              workspace: block.workspace)
            poison += vectors.addMagnitudes(part, to: sums)
          }
          return poison
        } next: { sums in
          let pairs = zip(sums.prefix(models), sums.dropFirst(models))
          return last(pairs.map { all, kept in all > smallest && kept > smallest ? all / kept : 1 })
        })
    }
  }

  func write(
    _ factors: [Double], elect: SignElection.Rule, zeroSign: Double, merge rule: DisjointMerge.Rule, lambda: Double
  ) -> Step {
    let (weights, models) = (self.weights, tensor.modelCount)
    let election = SignElection(elect, zeroSign: zeroSign, factors: zip(weights, factors).map { $0 * $1 })
    let addsBase = parameters.choice("output", as: OutputKind.self) == .weights
    let all = Double(max(1, tensor.count))
    return .sweep(
      sweep(sums: models + 1, writes: true) { vectors, block, whole, sums in
        DisjointMerge(vectors, election, rule, weights: weights)
          .run(block, lambda: lambda, addsBase: addsBase, output: whole.output!, whole.outputType, sums: sums)
      } next: { sums in
        var entries: [JSON.Member] = []
        if rescale != .none { entries.append(.init(key: "rescale", value: .array(factors.map { .double($0) }))) }
        entries.append(.init(key: "kept", value: .array(sums.prefix(models).map { .double($0 / all) })))
        entries.append(.init(key: "conflicts", value: .double((sums.last ?? 0) / all)))
        return .finish(Decision(entries))
      })
  }
}

extension ParameterSchema {
  static let dellaEpsilon = ParameterSchema(
    "epsilon", .number, default: 0.15, minimum: -1, maximum: 1, perModel: true,
    summary: "How far the chance of the largest element of a row is above the density, and that of the smallest below it.",
    source: "0.15: mergekit.")

  static let dellaCompat = compatMergekit(
    "mergekit: rows run along the second axis, whatever the number of dimensions; no L1 rescale where a sum is below 1e-7; and "
      + "a mean is rescaled like a sum.")
}
