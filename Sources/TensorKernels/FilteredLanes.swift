// The filtered task vectors of two to four models in registers, for the kernels that take a chunk in one pass between inputs and output.
//
//   e_i = f_i filter(x_i - x_0)
//
// What RowFilter.swift says, and to the bit what it gives, where the output has the inputs' type, F16 or BF16, and every filter holds for a
// whole chunk of whole tiles; the rest goes row by row. Registers are too few for more models, or for binary64.
// Shapes, NaN rule: TaskVectors.swift; a chunk with a difference that is not finite is left to the rows. Arithmetic: binary32, a
// difference and a product rounded once each. Traffic: (K + 1) * size bytes read per element, once.

/// What stays of one model's elements in a chunk.
struct RowLimits<Scalar: ArithmeticScalar> {
  /// What a random drop has kept; nil: everything.
  var mask: UnsafePointer<SIMD8<Int32>>?
  /// The least magnitude that stays, at least the smallest that is not 0.
  var least: Scalar
  var most: Scalar
  var factor: Scalar

  @inline(__always)
  var cuts: Bool { least > Scalar(Float.leastNonzeroMagnitude) }
}

/// What the filters of all models do, known when the loops are compiled.
protocol FilterKind {
  static var drops: Bool { get }
  static var cuts: Bool { get }
  static var clips: Bool { get }
}

extension FilterKind {
  static var drops: Bool { false }
  static var cuts: Bool { false }
  static var clips: Bool { false }
}

enum DropKind: FilterKind { static var drops: Bool { true } }
enum CutKind: FilterKind { static var cuts: Bool { true } }

enum DropAndCutKind: FilterKind {
  static var drops: Bool { true }
  static var cuts: Bool { true }
}

enum CutAndClipKind: FilterKind {
  static var cuts: Bool { true }
  static var clips: Bool { true }
}

/// A kernel that takes chunks in one pass.
protocol OnePassKernel {
  associatedtype Element: KernelElement
  /// Take a chunk.
  /// - Returns: false if a difference or a result is not finite, and nothing has been added to any sum.
  func run<Kind: FilterKind, Models: FixedCount>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Element.Arithmetic>>, _: Kind.Type, _: Models.Type
  ) -> Bool
}

extension OnePassKernel {
  /// Can a merge of so many models from `Element` to `Out` go in one pass?
  static func takes<Out: KernelElement>(_ models: Int, _: Out.Type) -> Bool {
    Element.Arithmetic.self == Float.self && Out.self == Element.self && 2...4 ~= models
  }

  /// - Parameter filters: of each model.
  /// - Returns: false when the chunk has to go row by row, and nothing has been added to any sum.
  @inline(__always)
  func take(_ chunk: TaskVectorChunk<Element>, _ filters: UnsafePointer<RowFilter>) -> Bool {
    guard chunk.length % 16 == 0 else { return false }
    // Looked at before any mask is made, which takes longest.
    var (drops, clips) = (0, false)
    for k in 0..<chunk.models {
      guard filters[k].hasLimits(chunk) else { return false }
      drops += filters[k].drops ? 1 : 0
      clips = clips || filters[k].clips
    }
    guard drops == 0 || drops == chunk.models && !clips else { return false }
    return withUnsafeTemporaryAllocation(of: RowLimits<Element.Arithmetic>.self, capacity: 4) { limits in
      let limits = limits.baseAddress!
      var cuts = false
      for k in 0..<chunk.models {
        filters[k].set(limits + k, chunk, k)
        cuts = cuts || limits[k].cuts
      }
      switch (drops > 0, cuts, clips) {
      case (true, false, _): return run(chunk, limits, DropKind.self)
      case (true, true, _): return run(chunk, limits, DropAndCutKind.self)
      case (false, _, false): return run(chunk, limits, CutKind.self)
      case (false, _, true): return run(chunk, limits, CutAndClipKind.self)
      }
    }
  }

  @inline(__always)
  private func run<Kind: FilterKind>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Element.Arithmetic>>, _ kind: Kind.Type
  ) -> Bool {
    switch chunk.models {
    case 2: run(chunk, limits, kind, Two.self)
    case 3: run(chunk, limits, kind, Three.self)
    default: run(chunk, limits, kind, Four.self)
    }
  }
}

/// Where the 16 elements of a tile are read: of a model that is not there, where those of another one are.
struct LaneInputs<Element: KernelElement> {
  private let base: UnsafeRawPointer
  private let first: UnsafeRawPointer
  private let second: UnsafeRawPointer
  private let third: UnsafeRawPointer
  private let fourth: UnsafeRawPointer

  @inline(__always)
  init(_ chunk: TaskVectorChunk<Element>) {
    let (table, offset) = (chunk.block.inputs.table, (chunk.block.from + chunk.offset) * Element.size)
    (base, first, second) = (table[0] + offset, table[1] + offset, table[2] + offset)
    (third, fourth) = (table[min(3, chunk.models)] + offset, table[min(4, chunk.models)] + offset)
  }

  typealias Tile = (
    base: Lanes<Element.Arithmetic>, Lanes<Element.Arithmetic>, Lanes<Element.Arithmetic>, Lanes<Element.Arithmetic>,
    Lanes<Element.Arithmetic>
  )

  @inline(__always)
  func load(_ tile: Int) -> Tile {
    let byte = tile &* (16 &* Element.size)
    return (
      Element.load(base, byte), Element.load(first, byte), Element.load(second, byte), Element.load(third, byte),
      Element.load(fourth, byte)
    )
  }
}

/// What the lanes of a tile go through, and what has been counted.
struct FilteredLanes<Scalar: ArithmeticScalar> {
  private struct Model {
    let least: SIMD8<Scalar>
    let most: SIMD8<Scalar>
    let factor: SIMD8<Scalar>
    let mask: UnsafePointer<SIMD8<Int32>>?
    /// The masks of the lanes that come next, the highest bits first.
    var bits = SIMD8<Int32>.zero
    /// How many are 0, as marks of -1.
    var zeros = SIMD8<Scalar.Count>.zero

    @inline(__always)
    init(_ limits: RowLimits<Scalar>) {
      (least, most) = (SIMD8(repeating: limits.least), SIMD8(repeating: limits.most))
      (factor, mask) = (SIMD8(repeating: limits.factor), limits.mask)
    }

    @inline(__always)
    mutating func filter(_ difference: SIMD8<Scalar>, drops: Bool, cuts: Bool, clips: Bool) -> SIMD8<Scalar> {
      var d = difference
      if drops {
        d = Scalar.kept(d, mask: bits &>> 31)
        bits = bits &<< 1
      }
      guard cuts else {
        zeros &+= Scalar.isZero(d)
        return d * factor
      }
      let rank = Scalar.magnitudes(d, narrow: false)
      var goes = Scalar.isBelow(rank, least)
      if clips { goes |= Scalar.isBelow(most, rank) }
      zeros &+= goes
      return Scalar.cleared(d, where: goes) * factor
    }
  }

  private var first: Model
  private var second: Model
  private var third: Model
  private var fourth: Model
  private var poison = SIMD8<Scalar>.zero

  @inline(__always)
  init(_ limits: UnsafePointer<RowLimits<Scalar>>, models: Int) {
    (first, second) = (Model(limits[0]), Model(limits[1]))
    (third, fourth) = (Model(limits[min(2, models - 1)]), Model(limits[min(3, models - 1)]))
  }

  /// Take the masks of 32 vectors.
  @inline(__always)
  mutating func take(_ group: Int) {
    first.bits = first.mask![group]
    second.bits = second.mask![group]
    third.bits = third.mask![group]
    fourth.bits = fourth.mask![group]
  }

  typealias Four = (SIMD8<Scalar>, SIMD8<Scalar>, SIMD8<Scalar>, SIMD8<Scalar>)

  /// The filtered differences of eight elements; 0 of a model that is not there.
  // Transparent, as it is beyond the size that the compiler inlines for the asking, and a call would write all of this to memory.
  @_transparent
  mutating func filter(
    _ x: SIMD8<Scalar>, _ a: SIMD8<Scalar>, _ b: SIMD8<Scalar>, _ c: SIMD8<Scalar>, _ d: SIMD8<Scalar>, models: Int,
    drops: Bool, cuts: Bool, clips: Bool
  ) -> Four {
    let (d0, d1) = (a - x, b - x)
    let (d2, d3) = (models > 2 ? c - x : .zero, models > 3 ? d - x : .zero)
    // A finite sum that overflows goes row by row for nothing, which is right too.
    var sum = d0 + d1
    if models > 2 { sum += d2 }
    if models > 3 { sum += d3 }
    poison.addProduct(sum, .zero)
    return (
      first.filter(d0, drops: drops, cuts: cuts, clips: clips), second.filter(d1, drops: drops, cuts: cuts, clips: clips),
      models > 2 ? third.filter(d2, drops: drops, cuts: cuts, clips: clips) : .zero,
      models > 3 ? fourth.filter(d3, drops: drops, cuts: cuts, clips: clips) : .zero
    )
  }

  /// Look at a result too, which is stored as a number.
  @inline(__always)
  mutating func check(_ result: SIMD8<Scalar>) { poison.addProduct(result, .zero) }

  /// Is everything finite?
  @inline(__always)
  var isFinite: Bool { laneSum(poison) == 0 }

  /// Add how many elements of each model are not 0.
  @inline(__always)
  func addCounts(to sums: UnsafeMutablePointer<Double>, length: Int, models: Int) {
    sums[0] += Double(length + Int(first.zeros.wrappedSum()))
    sums[1] += Double(length + Int(second.zeros.wrappedSum()))
    if models > 2 { sums[2] += Double(length + Int(third.zeros.wrappedSum())) }
    if models > 3 { sums[3] += Double(length + Int(fourth.zeros.wrappedSum())) }
  }
}
