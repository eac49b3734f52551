import JSON
import LinearAlgebra
import Platform
import TensorKernels

// YOYO-Fusion: robust averaging of RMS-normalised tensors in the subspace of their residuals.
//
//   r_i = sqrt(mean(x_i²) + 1e-8),  u_i = x_i / (r_i + eps)
//   m   = u_n (anchor), the coordinate-wise median, or their geometric median started there
//   R_i = u_i - m;  r* = sum_i c_i R_i from the subspace (FusionSubspace.swift);  y' = m + r*
//   w   = y' scaled to the mean norm of the x_i
//
// Inputs: K >= 1 models, any shape; K = 1 gives the model, equal models give that model. v1 is the seed document's algorithm,
// v3 the authors' newest: rank by participation ratio, standard median, weights about the median of each component, and at
// choice sign alignment with one model and the matrix boost (r* of a matrix becomes sigma_max times its polar factor).
// Everything between the sweeps is K x K in binary64, so the output is an affine combination of the inputs (anchor, geometric
// median), or of the inputs and their coordinate-wise median.
// Sweeps: norms; Gram about the centre; write. The boost adds two and holds r* in binary64.
// Traffic: (3 K + 1) * size bytes per element. NaN rule: Gram.swift.
// Source: andehury/YOYO-Fusion, README and code at 17bbf98 / 0338e00 (v1) and HEAD f8f5c4e (v3).

/// Robust fusion of fine-tunes without a base.
struct YoyoFusion: MergeMethod {
  private enum Version: String { case v1, v3 }

  static let schema = MethodSchema(
    name: "yoyo_fusion", title: "YOYO-Fusion",
    summary: "Normalises the models' tensors, finds their centre, averages the residuals robustly in a subspace, and restores "
      + "the mean norm. Needs no base.",
    family: "gram",
    citation: "andehury, YOYO-Fusion: plug-and-play merging of arbitrary fine-tunes with shared architecture, 2025",
    base: .donor,
    parameters: [
      ParameterSchema(
        "anchor_index", .model, default: 0,
        summary: "The model that is the centre, by its number from 1 or by its name; 0: a robust centre."),
      ParameterSchema(
        "use_geometric_median", .boolean, default: true,
        summary: "Without an anchor: the geometric median is the centre, else the coordinate-wise median."),
      ParameterSchema(
        "use_k_minus_one_truncation", .boolean, default: true,
        summary: "v1: keep K - 1 components and scale by the lost energy; else keep all."),
      ParameterSchema(
        "version", .choice(["v1", "v3"]), default: "v1", summary: "Which published algorithm.",
        source: "v1: the seed document (17bbf98). v3: YOYO-Fusion HEAD (f8f5c4e)."),
      ParameterSchema(
        "median", .choice(["lower", "standard"]), default: nil, isOptional: true,
        summary: "Coordinate-wise median of an even number of models: the lower of the middle two, or their mean. "
          + "Default: lower in v1, standard in v3.", source: "lower: v1 (torch.median). standard: v3."),
      ParameterSchema(
        "mad_median", .choice(["lower", "standard"]), default: "lower", summary: "The median in the scale estimates.",
        source: "lower: all versions."),
      ParameterSchema(
        "use_z_median", .boolean, default: true, summary: "v3: robust weights about the median of each component.",
        source: "v3."),
      ParameterSchema(
        "use_matrix_boost", .boolean, default: false,
        summary: "v3: raise all singular values of a matrix's residual to the largest (not for names with embed or lm_head). "
          + "Holds the matrix in binary64.", source: "v3."),
      ParameterSchema(
        "sign_reference_mode", .model, default: 0,
        summary: "v3: the model whose signs the others take, by its number from 1 or by its name; 0: none.", source: "v3."),
      ParameterSchema(
        "eps", .number, default: 1e-8, minimum: 0, summary: "Added to denominators.", source: "1e-8: YOYO-Fusion."),
    ],
    reports: ["rank", "energy", "scale", "weights", "coefficients", "degenerate"])

  private let anchor: Int
  private let signReference: Int
  private let useGeometricMedian: Bool
  private let version: Version
  private let median: MedianKind
  private let boost: Bool
  private let subspace: FusionSubspace
  private let eps: Double

  init(_ parameters: Parameters) throws(Failure) {
    anchor = try Self.modelNumber(parameters, "anchor_index")
    useGeometricMedian = parameters.boolean("use_geometric_median")
    version = parameters.choice("version", as: Version.self)
    if parameters.has("median") {
      median = parameters.choice("median") == "lower" ? .lower : .standard
    } else {
      median = version == .v1 ? .lower : .standard
    }
    eps = parameters.number("eps")
    boost = version == .v3 && parameters.boolean("use_matrix_boost")
    signReference = try Self.modelNumber(parameters, "sign_reference_mode")
    guard version == .v3 || (signReference == 0 && !parameters.boolean("use_matrix_boost")) else {
      throw Failure(
        .parameter, "use_matrix_boost and sign_reference_mode of yoyo_fusion belong to version: v3: set it, or drop them")
    }
    let rank: FusionSubspace.Rank =
      version == .v3 ? .participation : (parameters.boolean("use_k_minus_one_truncation") ? .allButOne : .all)
    subspace = FusionSubspace(
      rank: rank, median: parameters.choice("mad_median") == "lower" ? .lower : .standard,
      aboutMedian: version == .v3 && parameters.boolean("use_z_median"), eps: eps)
  }

  private static func modelNumber(_ parameters: Parameters, _ name: String) throws(Failure) -> Int {
    if let text = parameters.value(name)?.string {
      throw Failure(
        .parameter,
        "'\(name)' of yoyo_fusion is '\(text)', which is none of the models: give a model of the recipe, or its number from 1")
    }
    return parameters.integer(name)
  }

  func scratchBytes(_ tensor: TensorContext) -> Int {
    guard isBoosted(tensor) else { return 0 }
    let (m, n) = (tensor.shape[0], tensor.shape[1])
    return DenseMatrix.bytes(rows: m, columns: n) + PolarFactor.workspaceBytes(rows: m, columns: n)
  }

  private func isBoosted(_ tensor: TensorContext) -> Bool {
    let name = tensor.name.lowercased()
    return boost && tensor.shape.count == 2 && tensor.count > 0 && !name.contains("embed") && !name.contains("lm_head")
  }

  func begin(_ tensor: TensorContext) throws(Failure) -> Step {
    let k = tensor.modelCount
    for (name, number) in [("anchor_index", anchor), ("sign_reference_mode", signReference)] where number > k {
      throw Failure(
        .parameter, "'\(name)' of yoyo_fusion is \(number), but there are \(k) models: it counts them from 1, and 0 means none")
    }
    if k == 1 { return .copy(input: 0, Decision([.init(key: "weights", value: [1])])) }
    let pairs = RowPairs(diagonal: k)
    var sweep = Sweep(sums: k, writes: false) { block in
      Gram.accumulate(
        block.inputs, count: block.count, reference: nil, crossTerms: false, pairs: pairs, sums: block.sums,
        workspace: block.workspace)
    } next: { squares in
      residuals(tensor, norms: squares.map { $0.squareRoot() })
    }
    sweep.squares = Array(0..<k)
    return .sweep(sweep)
  }

  // MARK: - Centre and residuals

  /// Sizes of the inputs: norms, RMS values and what they are multiplied by.
  private struct Sizes {
    let norms: [Double]
    let scales: [Double]
    let meanRMS: Double
    let meanNorm: Double
  }

  private func residuals(_ tensor: TensorContext, norms: [Double]) -> Step {
    let k = tensor.modelCount
    let rms = norms.map { max(($0 * $0 / (Double(tensor.count) + 1e-12) + 1e-8).squareRoot(), 1e-6) }
    let sizes = Sizes(
      norms: norms, scales: rms.map { 1 / ($0 + eps) }, meanRMS: rms.reduce(0, +) / Double(k),
      meanNorm: norms.reduce(0, +) / Double(k))
    let center: CentredRows.Centre =
      anchor > 0
      ? .affine(weights: (0..<k).map { $0 == anchor - 1 ? 1 : 0 }) : .median(median, SortingNetwork(count: k))
    let rows = CentredRows(
      scales: sizes.scales, signReference: signReference > 0 ? signReference - 1 : nil, centre: center)
    return .sweep(
      .centredGram(rows, inputs: k) { gram in
        let about = CentreStatistics(gram)
        if anchor == 0, useGeometricMedian, let weights = seedMedian(about.residuals) {
          return fuse(tensor, sizes, rows.about(weights), about.moved(to: weights), affine: weights)
        }
        let affine = anchor > 0 ? (0..<k).map { $0 == anchor - 1 ? 1.0 : 0 } : nil
        return fuse(tensor, sizes, rows, about, affine: affine)
      })
  }

  /// Weights of the geometric median as YOYO-Fusion stops it: weights 1 / (d + eps) from the coordinate-wise median, at most
  /// 100 steps, and the iterate BEFORE the first step shorter than 1e-6. Nil when that is the coordinate-wise median itself.
  private func seedMedian(_ gram: GramMatrix) -> [Double]? {
    let k = gram.size
    var current: [Double]?
    for _ in 0..<100 {
      let distances = current.map { Weiszfeld.distances(gram, to: $0) } ?? (0..<k).map { gram.norm($0) }
      let next = Weiszfeld.normalized(distances.map { 1 / ($0 + eps) })
      let move = current.map { old in zip(next, old).map { $0 - $1 } } ?? next
      if max(0, gram.form(move, move)).squareRoot() < 1e-6 { break }
      current = next
    }
    return current
  }

  // MARK: - Result

  private func fuse(
    _ tensor: TensorContext, _ sizes: Sizes, _ rows: CentredRows, _ about: CentreStatistics, affine: [Double]?
  ) -> Step {
    if about.residuals.isZero, sizes.norms.allSatisfy({ $0 == sizes.norms[0] }), signReference == 0 {
      return .copy(input: 0, Decision([.init(key: "degenerate", value: true)], warnings: warnings(tensor)))
    }
    let result = subspace.solve(about.residuals, elements: tensor.count)
    let c = result.coefficients
    let decision = Decision(
      [
        .init(key: "rank", value: .int(result.rank)), .init(key: "energy", value: .double(result.energy)),
        .init(key: "scale", value: .double(result.scale)),
        .init(key: "weights", value: .array(result.weights.map { .double($0) })),
        .init(key: "coefficients", value: .array(c.map { .double($0) })),
        .init(key: "degenerate", value: .bool(result.degenerate)),
      ], warnings: warnings(tensor))
    if isBoosted(tensor), !result.degenerate {
      return boosted(tensor, sizes, rows, about, c, decision)
    }
    let factor = restoring(sizes, norm: about.norm(adding: c))
    let sum = c.reduce(0, +)
    if let affine, signReference == 0 {
      let total = (0..<c.count).map { factor * sizes.scales[$0] * (affine[$0] * (1 - sum) + c[$0]) }
      return AffineCombination(total, total: total.reduce(0, +)).step(decision)
    }
    return .centredCombination(
      rows, centreCoefficient: factor * (1 - sum), coefficients: c.map { factor * $0 }, decision)
  }

  /// The factor that gives y' the mean norm of the inputs.
  private func restoring(_ sizes: Sizes, norm: Double) -> Double {
    sizes.meanRMS * sizes.meanNorm / (sizes.meanRMS * norm + eps)
  }

  private func warnings(_ tensor: TensorContext) -> [String] {
    guard tensor.modelCount == 2 else { return [] }
    if anchor > 0, subspace.median == .lower {
      return ["yoyo_fusion of two models with an anchor gives the anchor, rescaled: the other model's weight is 0"]
    }
    if anchor == 0, !useGeometricMedian, median == .lower {
      return [
        "yoyo_fusion of two models about the lower median gives their elementwise minimum, rescaled: set median: standard"
      ]
    }
    return []
  }

  // MARK: - Matrix boost

  /// r* as a matrix, all its singular values raised to the largest, then added to the centre.
  private func boosted(
    _ tensor: TensorContext, _ sizes: Sizes, _ rows: CentredRows, _ about: CentreStatistics, _ c: [Double], _ decision: Decision
  ) -> Step {
    let matrix = DenseMatrix(rows: tensor.shape[0], columns: tensor.shape[1])
    let none = [Double](repeating: 0, count: c.count)
    var residual = Sweep(sums: 0, writes: false) { block in
      rows.combine(
        block.inputs, count: block.count, centreCoefficient: -c.reduce(0, +), coefficients: c, addition: nil,
        output: matrix.values + block.start, .f64, workspace: block.workspace)
    } next: { (_) throws(Failure) in
      guard let sigma = PolarFactor.replace(matrix.view, nullSpace: .complete)?.largest else {
        throw Failure(
          .nonFinite, "the singular values of '\(tensor.name)' did not converge: set use_matrix_boost: false for it")
      }
      var square = 0.0
      for i in 0..<tensor.count {
        matrix.values[i] *= sigma
        square += matrix.values[i] * matrix.values[i]
      }
      return .sweep(
        self.product(matrix, rows, none) { withCentre in
          let norm = max(0, about.centreSquare + 2 * withCentre + square).squareRoot()
          let factor = self.restoring(sizes, norm: norm)
          for i in 0..<tensor.count { matrix.values[i] *= factor }
          var write = Sweep(sums: 0, writes: true) { block in
            rows.combine(
              block.inputs, count: block.count, centreCoefficient: factor, coefficients: none,
              addition: UnsafePointer(matrix.values + block.start), output: block.output!, block.outputType,
              workspace: block.workspace)
          } next: { _ in
            .finish(decision)
          }
          write.wide = true
          return .sweep(write)
        })
    }
    residual.wide = true
    return .sweep(residual)
  }

  /// <m, matrix> in one sweep.
  private func product(
    _ matrix: DenseMatrix, _ rows: CentredRows, _ none: [Double], next: @escaping (Double) -> Step
  ) -> Sweep {
    var sweep = Sweep(sums: 1, writes: false) { block in
      withUnsafeTemporaryAllocation(of: Double.self, capacity: KernelGeometry.chunk) { center in
        for start in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
          let count = min(KernelGeometry.chunk, block.count - start)
          rows.combine(
            block.inputs, from: start, count: count, centreCoefficient: 1, coefficients: none, addition: nil,
            output: center.baseAddress!, .f64, workspace: block.workspace)
          var sum = 0.0
          for i in 0..<count { sum += center[i] * matrix.values[block.start + start + i] }
          block.sums[0] += sum
        }
      }
    } next: { sums in
      next(sums[0])
    }
    sweep.wide = true
    return sweep
  }
}

/// Inner products of the centre and the residuals about it.
private struct CentreStatistics {
  let residuals: GramMatrix
  /// <m, m>.
  let centreSquare: Double
  /// <m, R_i>.
  private let products: [Double]

  /// From the Gram matrix of [m, R_1, ..., R_K].
  init(_ gram: GramMatrix) {
    let k = gram.size - 1
    var full = [Double](repeating: 0, count: k * k)
    for i in 0..<k { for j in 0..<k { full[i * k + j] = gram[i + 1, j + 1] } }
    residuals = GramMatrix(full: full, size: k)
    centreSquare = gram[0, 0]
    products = (0..<k).map { gram[0, $0 + 1] }
  }

  private init(residuals: GramMatrix, centreSquare: Double, products: [Double]) {
    self.residuals = residuals
    self.centreSquare = centreSquare
    self.products = products
  }

  /// The same about the centre m + sum_i a_i R_i, sum a = 1.
  func moved(to a: [Double]) -> CentreStatistics {
    let k = a.count
    let images = (0..<k).map { i in (0..<k).reduce(0.0) { $0 + residuals[i, $1] * a[$1] } }
    let along = zip(a, products).reduce(0.0) { $0 + $1.0 * $1.1 }
    let square = zip(a, images).reduce(0.0) { $0 + $1.0 * $1.1 }
    var full = [Double](repeating: 0, count: k * k)
    for i in 0..<k { for j in 0..<k { full[i * k + j] = residuals[i, j] - images[i] - images[j] + square } }
    return CentreStatistics(
      residuals: GramMatrix(full: full, size: k), centreSquare: centreSquare + 2 * along + square,
      products: (0..<k).map { products[$0] + images[$0] - along - square })
  }

  /// |m + sum_i c_i R_i|.
  func norm(adding c: [Double]) -> Double {
    let cross = zip(c, products).reduce(0.0) { $0 + $1.0 * $1.1 }
    return max(0, centreSquare + 2 * cross + residuals.form(c, c)).squareRoot()
  }
}
