// Task vectors: rows d_i = x_i - x_0, some of their elements dropped at random and the small ones trimmed.
//
//   d_i[e] <- 0 where the random word of (i, e) is not below its limit, where |d_i[e]| is above the model's ceiling, and where it is
//   below the model's cut
//
// Shapes: inputs [n], the base first. Types: F32, F64, F16 or BF16, all the same. Arithmetic: differences in the elements'
// arithmetic type (Lanes.swift). Magnitudes are ranked in binary32, or in binary64 where an input is F64; a magnitude equal to
// the cut is kept if its element comes before `tiesBefore`.
// NaN: a chunk with a difference that is not finite says so, and its result becomes NaN in those places when it is stored.
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

  /// Call `body` for each chunk of the block, its task vectors in rows 0..<K, filtered unless `raw`.
  /// - Parameters:
  ///   - factors: what the rows are multiplied by after their filters; nil: nothing.
  /// - Returns: 0, or NaN if an input is not finite or a difference overflows.
  @inline(__always)
  func chunks<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, raw: Bool = false, factors: [Double]? = nil,
    _ body: (TaskVectorChunk<Element>) -> Void
  ) -> Double {
    let models = models
    return withRowFilters(Element.self, block, raw: raw, factors: factors) { filters in
      var poison = 0.0
      for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
        var chunk = TaskVectorChunk<Element>(block, offset: offset, models: models)
        poison += chunk.fill(filters)
        body(chunk)
      }
      return poison
    }
  }

  /// Lend the filters as the chunks of a block take them.
  @inline(__always)
  func withRowFilters<Element: KernelElement, Result>(
    _: Element.Type, _ block: TaskVectorBlock, raw: Bool = false, factors: [Double]? = nil,
    _ body: (UnsafePointer<RowFilter>) -> Result
  ) -> Result {
    withUnsafeTemporaryAllocation(of: RowFilter.self, capacity: max(1, models)) { all in
      for k in 0..<models {
        all.initializeElement(
          at: k,
          to: RowFilter(
            raw ? nil : filters[k], Element.self, start: block.start, factor: factors?[k] ?? 1, narrow: narrow))
      }
      return withExtendedLifetime(filters) { body(UnsafePointer(all.baseAddress!)) }
    }
  }
}

/// At most 1024 elements of a block, whose task vectors stand in rows of its workspace, padded with zeros to a multiple of 16. Numbers and
/// addresses only: what a worker held by reference, chunk by chunk, the other workers would wait for.
struct TaskVectorChunk<Element: KernelElement> {
  let block: TaskVectorBlock
  /// 0..<K the task vectors, then the result, one for words or scores, and one for bits.
  let rows: Rows<Element.Arithmetic>
  let models: Int
  /// Its first element, counted from the block's.
  let offset: Int
  let length: Int
  /// Vectors of a row.
  let vectors: Int
  /// Is a difference not finite?
  var isPoisoned = false

  @inline(__always)
  init(_ block: TaskVectorBlock, offset: Int, models: Int) {
    (self.block, rows, self.models, self.offset) = (block, Rows(block.workspace), models, offset)
    length = min(KernelGeometry.chunk, block.count - offset)
    vectors = 2 * ((length + 15) / 16)
  }

  /// Its first element, counted from the tensor's start.
  var start: Int { block.start + offset }

  var resultRow: Int { models }
  var spareRow: Int { models + 1 }

  /// Fill the rows of the task vectors.
  /// - Parameter counts: receives per row how many elements are not 0 after its filter; nil: they are not counted.
  /// - Returns: 0, or NaN if a difference is not finite.
  @inline(__always)
  mutating func fill(_ filters: UnsafePointer<RowFilter>, _ counts: UnsafeMutablePointer<Double>? = nil) -> Double {
    var poison = 0.0
    for k in 0..<models { poison += filters[k].fill(self, k, counts.map { $0 + k }) }
    isPoisoned = poison != 0
    return poison
  }

  /// Make NaN what the result row holds where a difference is not finite.
  @inline(never)
  func poisonResult() {
    for k in 1...models {
      rows.fill(spareRow, Element.self, block.inputs, k, minus: 0, from: block.from + offset, count: length)
      for v in 0..<vectors {
        var poison = rows.vector(resultRow, v)
        poison.addProduct(rows.vector(spareRow, v), .zero)
        rows.set(resultRow, v, poison)
      }
    }
  }
}
