// The disjoint merge of two to four models in one pass: what stands in registers between the inputs and the output.
//
//   e_i = f_i filter(x_i - x_0);   gamma = sign of sum e_i;   tau = sum_A e_i, or sum_A e_i / sum_A b_i;   out = x_0 + lambda tau
//
// What DisjointMerge.swift says, and to the bit what it gives, where the vote is by mass or there is none, the output in the inputs'
// type, F16 or BF16, and every filter holds for a whole chunk of whole tiles; the rest goes row by row. Registers are too few for more
// models, or for binary64.
// Shapes, NaN rule: TaskVectors.swift; a chunk with a difference that is not finite is left to the rows.
// Traffic: (K + 2) * size bytes per element, each once.

/// What stays of one model's elements in a chunk.
struct RowLimits<Scalar: ArithmeticScalar> {
  /// What a random drop has kept; nil: everything.
  var mask: UnsafePointer<SIMD8<Int32>>?
  var least: Scalar
  var most: Scalar
  var factor: Scalar
}

struct OnePassMerge<Element: KernelElement> {
  typealias Scalar = Element.Arithmetic

  private let merge: RowMerge<Scalar>
  private let place: MergedOutput
  private let divides: Bool

  /// nil: this merge goes row by row.
  init?<Out: KernelElement>(_ merge: RowMerge<Scalar>, _ place: MergedOutput, _: Element.Type, _: Out.Type) {
    guard Scalar.self == Float.self, Out.self == Element.self, 2...4 ~= merge.election.models,
      merge.election.rule == .none || merge.election.rule == .mass && merge.election.zeroSign != 0, merge.rule != .max,
      place.addsBase
    else { return nil }
    (self.merge, self.place) = (merge, place)
    divides = merge.rule == .mean
  }

  /// Merge a chunk and write it.
  /// - Parameters:
  ///   - filters: of each model.
  ///   - sums: as DisjointMerge has them.
  /// - Returns: false when it has to go row by row, and nothing has been added.
  @inline(__always)
  func run(
    _ chunk: TaskVectorChunk<Element>, _ filters: UnsafePointer<RowFilter>, _ sums: UnsafeMutablePointer<Double>
  ) -> Bool {
    guard chunk.length % 16 == 0 else { return false }
    // Looked at before any mask is made, which takes longest.
    var (drops, clips) = (0, false)
    for k in 0..<chunk.models {
      guard filters[k].hasLimits(chunk) else { return false }
      drops += filters[k].drops ? 1 : 0
      clips = clips || filters[k].clips
    }
    guard drops == 0 || drops == chunk.models && !clips else { return false }
    return withUnsafeTemporaryAllocation(of: RowLimits<Scalar>.self, capacity: 4) { limits in
      let limits = limits.baseAddress!
      for k in 0..<chunk.models { filters[k].set(limits + k, chunk, k) }
      switch (drops > 0, clips) {
      case (true, _): return run(chunk, limits, sums, Yes.self, No.self)
      case (false, true): return run(chunk, limits, sums, No.self, Yes.self)
      case (false, false): return run(chunk, limits, sums, No.self, No.self)
      }
    }
  }

  @inline(__always)
  private func run<Drops: Choice, Clips: Choice>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _ sums: UnsafeMutablePointer<Double>,
    _ drops: Drops.Type, _ clips: Clips.Type
  ) -> Bool {
    switch (merge.election.votes, divides) {
    case (true, true): run(chunk, limits, sums, drops, clips, Yes.self, Yes.self)
    case (true, false): run(chunk, limits, sums, drops, clips, Yes.self, No.self)
    case (false, true): run(chunk, limits, sums, drops, clips, No.self, Yes.self)
    case (false, false): run(chunk, limits, sums, drops, clips, No.self, No.self)
    }
  }

  @inline(__always)
  private func run<Drops: Choice, Clips: Choice, Votes: Choice, Divides: Choice>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _ sums: UnsafeMutablePointer<Double>,
    _ drops: Drops.Type, _ clips: Clips.Type, _ votes: Votes.Type, _ divides: Divides.Type
  ) -> Bool {
    switch chunk.models {
    case 2: run(chunk, limits, sums, drops, clips, votes, divides, Two.self)
    case 3: run(chunk, limits, sums, drops, clips, votes, divides, Three.self)
    default: run(chunk, limits, sums, drops, clips, votes, divides, Four.self)
    }
  }

  @inline(never)
  private func run<Drops: Choice, Clips: Choice, Votes: Choice, Divides: Choice, Models: FixedCount>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _ sums: UnsafeMutablePointer<Double>,
    _: Drops.Type, _: Clips.Type, _: Votes.Type, _: Divides.Type, _: Models.Type
  ) -> Bool {
    let choices = Choices(
      drops: Drops.isYes, clips: Clips.isYes, votes: Votes.isYes, divides: Divides.isYes, models: Models.count ?? 4)
    let (third, fourth) = (choices.models > 2 ? 2 : 1, choices.models > 3 ? 3 : 1)
    var lanes = MergedLanes<Scalar>(
      limits, merge.weights, third, fourth, zeroSign: merge.election.zeroSign, Scalar(place.lambda))
    let offset = (chunk.block.from + chunk.offset) * Element.size
    let table = chunk.block.inputs.table
    let (base, first, second) = (table[0] + offset, table[1] + offset, table[2] + offset)
    let (other, last) = (table[third + 1] + offset, table[fourth + 1] + offset)
    let target = place.pointer + chunk.offset * Element.size
    for tile in 0..<chunk.length / 16 {
      if choices.drops, tile % 16 == 0 { lanes.take(limits, tile / 16, third, fourth) }
      let byte = tile &* (16 &* Element.size)
      let x = Element.load(base, byte)
      let (a, b) = (Element.load(first, byte), Element.load(second, byte))
      let (c, d) = (Element.load(other, byte), Element.load(last, byte))
      let low = lanes.merge(x.low, a.low, b.low, c.low, d.low, choices)
      let high = lanes.merge(x.high, a.high, b.high, c.high, d.high, choices)
      Element.store(Lanes(low: low, high: high), target, byte)
    }
    return lanes.add(to: sums, length: chunk.length, models: choices.models)
  }
}

/// What is known when the loops are compiled.
private struct Choices {
  let drops: Bool
  let clips: Bool
  let votes: Bool
  let divides: Bool
  let models: Int
}

/// What the lanes of a tile go through, and what they have added up to.
private struct MergedLanes<Scalar: ArithmeticScalar> {
  private struct Model {
    let least: SIMD8<Scalar>
    let most: SIMD8<Scalar>
    let factor: SIMD8<Scalar>
    let weight: SIMD8<Scalar>
    /// The masks of the lanes that come next, the lowest bits first.
    var bits = SIMD8<Int32>.zero
    var trimmed = SIMD8<Scalar.Count>.zero

    @inline(__always)
    init(_ limits: RowLimits<Scalar>, _ weight: Scalar) {
      (least, most) = (SIMD8(repeating: limits.least), SIMD8(repeating: limits.most))
      (factor, self.weight) = (SIMD8(repeating: limits.factor), SIMD8(repeating: weight))
    }

    @inline(__always)
    mutating func filter(_ difference: SIMD8<Scalar>, _ choices: Choices) -> SIMD8<Scalar> {
      var d = difference
      if choices.drops {
        d = Scalar.kept(d, mask: (bits &<< 31) &>> 31)
        bits = bits &>> 1
      }
      let rank = Scalar.magnitudes(d, narrow: false)
      var goes = Scalar.isBelow(rank, least)
      if choices.clips { goes |= Scalar.isBelow(most, rank) }
      trimmed &+= goes
      return Scalar.cleared(d, where: goes) * factor
    }

    /// What the model adds to the divisor where it agrees: where it is positive after a vote, and not 0 without one.
    @inline(__always)
    func share(_ own: SIMD8<Scalar>, _ votes: Bool) -> SIMD8<Scalar> {
      Scalar.positive(votes ? own : Scalar.magnitudes(own, narrow: false), weight)
    }
  }

  private var first: Model
  private var second: Model
  private var third: Model
  private var fourth: Model
  private let zeroSign: Scalar
  private let lambda: SIMD8<Scalar>
  private var poison = SIMD8<Scalar>.zero
  private var agreed = SIMD8<Scalar.Count>.zero

  @inline(__always)
  init(
    _ limits: UnsafePointer<RowLimits<Scalar>>, _ weights: UnsafePointer<Scalar>, _ third: Int, _ fourth: Int, zeroSign: Scalar,
    _ lambda: Scalar
  ) {
    (first, second) = (Model(limits[0], weights[0]), Model(limits[1], weights[1]))
    (self.third, self.fourth) = (Model(limits[third], weights[third]), Model(limits[fourth], weights[fourth]))
    (self.zeroSign, self.lambda) = (zeroSign, SIMD8(repeating: lambda))
  }

  /// Take the masks of 32 vectors.
  @inline(__always)
  mutating func take(_ limits: UnsafePointer<RowLimits<Scalar>>, _ group: Int, _ third: Int, _ fourth: Int) {
    first.bits = limits[0].mask![group]
    second.bits = limits[1].mask![group]
    self.third.bits = limits[third].mask![group]
    self.fourth.bits = limits[fourth].mask![group]
  }

  // Transparent, as it is beyond the size that the compiler inlines for the asking, and a call would write all of this to memory.
  @_transparent
  mutating func merge(
    _ x: SIMD8<Scalar>, _ a: SIMD8<Scalar>, _ b: SIMD8<Scalar>, _ c: SIMD8<Scalar>, _ d: SIMD8<Scalar>, _ choices: Choices
  ) -> SIMD8<Scalar> {
    let (hasThird, hasFourth) = (choices.models > 2, choices.models > 3)
    let differences = (a - x, b - x, hasThird ? c - x : .zero, hasFourth ? d - x : .zero)
    poison.addProduct(differences.0, .zero)
    poison.addProduct(differences.1, .zero)
    if hasThird { poison.addProduct(differences.2, .zero) }
    if hasFourth { poison.addProduct(differences.3, .zero) }
    let (e0, e1) = (first.filter(differences.0, choices), second.filter(differences.1, choices))
    let e2 = hasThird ? third.filter(differences.2, choices) : .zero
    let e3 = hasFourth ? fourth.filter(differences.3, choices) : .zero
    var total = e0 + e1
    if hasThird { total += e2 }
    if hasFourth { total += e3 }
    let sign = choices.votes ? Scalar.signs(total, ofZero: zeroSign) : .zero
    // Signs are +-1, so that products with them are exact: what agrees is what is positive after one. Without a vote all agree.
    let own = choices.votes ? (e0 * sign, e1 * sign, e2 * sign, e3 * sign) : (e0, e1, e2, e3)
    let positive = (
      Scalar.larger(.zero, own.0), Scalar.larger(.zero, own.1), Scalar.larger(.zero, own.2), Scalar.larger(.zero, own.3)
    )
    var (most, least) = (positive.0 + positive.1, Scalar.smaller(Scalar.smaller(.zero, own.0), own.1))
    if hasThird { (most, least) = (most + positive.2, Scalar.smaller(least, own.2)) }
    if hasFourth { (most, least) = (most + positive.3, Scalar.smaller(least, own.3)) }
    agreed &+= Scalar.isBelow(Scalar.smaller(most, 0 - least), SIMD8(repeating: .leastNonzeroMagnitude))
    if choices.votes { total = most }
    if choices.divides {
      let isYes = choices.votes
      var divisor = first.share(own.0, isYes) + second.share(own.1, isYes)
      if hasThird { divisor += third.share(own.2, isYes) }
      if hasFourth { divisor += fourth.share(own.3, isYes) }
      total /= Scalar.fillingZeros(divisor, with: 1)
    }
    if choices.votes { total *= sign }
    // What is subtracted: a positive zero leaves x as it is, -0.0 too.
    return x - (0 - total * lambda)
  }

  /// Add what has been counted; false, and nothing, if a difference is not finite.
  @inline(__always)
  func add(to sums: UnsafeMutablePointer<Double>, length: Int, models: Int) -> Bool {
    guard laneSum(poison) == 0 else { return false }
    // Marks are -1.
    sums[0] += Double(length + Int(first.trimmed.wrappedSum()))
    sums[1] += Double(length + Int(second.trimmed.wrappedSum()))
    if models > 2 { sums[2] += Double(length + Int(third.trimmed.wrappedSum())) }
    if models > 3 { sums[3] += Double(length + Int(fourth.trimmed.wrappedSum())) }
    sums[models] += Double(length + Int(agreed.wrappedSum()))
    return true
  }
}
