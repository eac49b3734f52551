// Task vectors: rows d_i = x_i - x_0, some of their elements dropped at random and the small ones trimmed.
//
//   d_i[e] <- 0 where the random word of (i, e) is not below its limit, where |d_i[e]| is above the model's ceiling, and where it is
//   below the model's cut
//
// Shapes: inputs [n], the base first. Types: F32, F64, F16 or BF16, all the same. Arithmetic: differences in the elements'
// arithmetic type (Lanes.swift). Magnitudes are ranked in binary32, or in binary64 where an input is F64; a magnitude equal to
// the cut is kept if its element comes before `tiesBefore`.
// NaN: a row of zeros gets NaN where any input is NaN or infinite, for the caller to add to its result.
// Nothing is stored: each sweep over the data makes the same rows again. Traffic: (K + 1) * size bytes per element.

/// A stretch of the inputs as these kernels take it.
public struct TaskVectorBlock {
  public let inputs: KernelInputs
  /// First element, counted from the inputs' pointers.
  public let from: Int
  public let count: Int
  /// The same element, counted from the tensor's start: random words and ties depend on it.
  public let start: Int
  /// `KernelGeometry.workspaceBytes(rows: inputs.count)` bytes.
  public let workspace: UnsafeMutableRawPointer

  public init(inputs: KernelInputs, from: Int, count: Int, start: Int, workspace: UnsafeMutableRawPointer) {
    self.inputs = inputs
    self.from = from
    self.count = count
    self.start = start
    self.workspace = workspace
  }
}

/// The filtered task vectors of K models.
public struct TaskVectors: Sendable {
  public var filters: [TaskVectorFilter]
  /// Are magnitudes ranked in binary32?
  public let narrow: Bool

  public init(filters: [TaskVectorFilter], narrow: Bool) {
    self.filters = filters
    self.narrow = narrow
  }

  public var models: Int { filters.count }

  // Rows of the workspace: 0..<K task vectors, K the poison, K + 1 the caller's, then the random words.
  var poisonRow: Int { models }
  var resultRow: Int { models + 1 }
  var wordsRow: Int { models + 2 }

  /// Call `body` for each chunk of the block, its task vectors in rows 0..<K, filtered unless `raw`.
  /// - Parameters:
  ///   - factors: what the rows are multiplied by after their filters; nil: nothing.
  ///   - counts: receives per row how many elements are not 0 after that; nil: they are not counted.
  /// - Returns: 0, or NaN if an input is not finite or a difference overflows.
  @inline(__always)
  func chunks<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, raw: Bool = false, factors: [Double]? = nil,
    counts: UnsafeMutablePointer<Double>? = nil,
    _ body: (_ rows: Rows<Element.Arithmetic>, _ offset: Int, _ length: Int, _ vectors: Int) -> Void
  ) -> Double {
    let rows = Rows<Element.Arithmetic>(block.workspace)
    let passes = raw ? [] : filters.map { FilterPass($0, Element.self) }
    var poison = 0.0
    var offset = 0
    while offset < block.count {
      let length = min(KernelGeometry.chunk, block.count - offset)
      let vectors = 2 * ((length + 15) / 16)
      var own = 0.0
      for k in 0..<models {
        if raw {
          var row = TaskVectorRow<Element>(block, offset, length, rows, k)
          own += row.run(drops: No.self, cuts: No.self, clips: No.self, scales: No.self)
        } else {
          own += filtered(
            Element.self, block, offset, length, rows, k, passes[k], factors?[k] ?? 1, counts.map { $0 + k })
        }
      }
      mark(Element.self, block, offset, length, rows, isPoisoned: own != 0)
      body(rows, offset, length, vectors)
      poison += own
      offset += length
    }
    return poison
  }

  /// Fill a row with its task vector, filtered and multiplied: in one pass, where that is enough.
  /// - Returns: 0, or NaN if a difference is not finite.
  @inline(never)
  private func filtered<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ offset: Int, _ length: Int, _ rows: Rows<Element.Arithmetic>, _ k: Int,
    _ pass: FilterPass?, _ factor: Double, _ count: UnsafeMutablePointer<Double>?
  ) -> Double {
    typealias Scalar = Element.Arithmetic
    let (start, vectors) = (block.start + offset, 2 * ((length + 15) / 16))
    var row = TaskVectorRow<Element>(block, offset, length, rows, k)
    // F64 may become 0 in binary32: then what a cut of zeros would leave is not all that is not 0.
    let zerosAreKnown = !(narrow && Element.self == F64Element.self)
    guard let (mask, least, most) = pass?.chunk(start, length, Scalar.self, narrow: narrow),
      zerosAreKnown || most == .infinity
    else {
      let poison = row.run(drops: No.self, cuts: No.self, clips: No.self, scales: No.self)
      filter(Element.self, rows, k, start: start, length: length, vectors: vectors)
      if factor != 1 { for v in 0..<vectors { rows.set(k, v, rows.vector(k, v) * Scalar(factor)) } }
      count?.pointee += rows.nonZeros(k, vectors: vectors)
      return poison
    }
    let countsByCut = count != nil && zerosAreKnown
    row.mask = mask
    row.factor = Scalar(factor)
    row.narrow = narrow
    row.most = most
    let smallest = narrow ? Scalar(Float.leastNonzeroMagnitude) : .leastNonzeroMagnitude
    row.least = max(least, countsByCut || most < .infinity ? smallest : 0)
    let poison =
      switch (mask != nil, row.least > 0, most < .infinity) {
      case (false, false, _): row.run(drops: No.self, cuts: No.self, clips: No.self, scales: Yes.self)
      case (false, true, false): row.run(drops: No.self, cuts: Yes.self, clips: No.self, scales: Yes.self)
      case (false, true, true): row.run(drops: No.self, cuts: Yes.self, clips: Yes.self, scales: Yes.self)
      case (true, false, _): row.run(drops: Yes.self, cuts: No.self, clips: No.self, scales: Yes.self)
      case (true, true, false): row.run(drops: Yes.self, cuts: Yes.self, clips: No.self, scales: Yes.self)
      case (true, true, true): row.run(drops: Yes.self, cuts: Yes.self, clips: Yes.self, scales: Yes.self)
      }
    if let count {
      count.pointee += countsByCut && factor != 0 ? Double(row.kept) : rows.nonZeros(k, vectors: vectors)
    }
    return poison
  }

  /// Fill the poison row.
  @inline(__always)
  private func mark<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ offset: Int, _ length: Int, _ rows: Rows<Element.Arithmetic>, isPoisoned: Bool
  ) {
    let vectors = 2 * ((length + 15) / 16)
    for v in 0..<vectors { rows.set(poisonRow, v, .zero) }
    guard isPoisoned else { return }
    for k in 0..<models {
      rows.fill(resultRow, Element.self, block.inputs, k + 1, minus: 0, from: block.from + offset, count: length)
      for v in 0..<vectors {
        var poison = rows.vector(poisonRow, v)
        poison.addProduct(rows.vector(resultRow, v), .zero)
        rows.set(poisonRow, v, poison)
      }
    }
  }
}
