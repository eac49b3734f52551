// The disjoint merge of two to four models in one pass: what stands in registers between the inputs and the output.
//
//   e_i = f_i filter(x_i - x_0);   gamma = sign of sum e_i;   tau = sum_A e_i, or sum_A e_i / sum_A b_i;   out = x_0 + lambda tau
//
// What DisjointMerge.swift says, and to the bit what it gives, where the vote is by mass or there is none, and the filters are those of
// FilteredLanes.swift.
// Traffic: (K + 2) * size bytes per element, each once.

struct OnePassMerge<Element: KernelElement>: OnePassKernel {
  typealias Scalar = Element.Arithmetic

  private let merge: RowMerge<Scalar>
  private let place: MergedOutput
  private let divides: Bool
  private let sums: UnsafeMutablePointer<Double>

  /// nil: this merge goes row by row.
  /// - Parameter sums: as DisjointMerge has them.
  init?<Out: KernelElement>(
    _ merge: RowMerge<Scalar>, _ place: MergedOutput, _: Element.Type, _ out: Out.Type, sums: UnsafeMutablePointer<Double>
  ) {
    guard Self.takes(merge.election.models, out), place.addsBase, merge.rule != .max,
      merge.election.rule == .none || merge.election.rule == .mass && merge.election.zeroSign != 0
    else { return nil }
    (self.merge, self.place, self.sums) = (merge, place, sums)
    divides = merge.rule == .mean
  }

  @inline(__always)
  func run<Kind: FilterKind, Models: FixedCount>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _ kind: Kind.Type, _ models: Models.Type
  ) -> Bool {
    switch (merge.election.votes, divides) {
    case (true, true): run(chunk, limits, kind, models, Yes.self, Yes.self)
    case (true, false): run(chunk, limits, kind, models, Yes.self, No.self)
    case (false, true): run(chunk, limits, kind, models, No.self, Yes.self)
    case (false, false): run(chunk, limits, kind, models, No.self, No.self)
    }
  }

  @inline(never)
  private func run<Kind: FilterKind, Models: FixedCount, Votes: Choice, Divides: Choice>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _: Kind.Type, _: Models.Type, _: Votes.Type,
    _: Divides.Type
  ) -> Bool {
    let (models, drops, cuts, clips) = (Models.count ?? 4, Kind.drops, Kind.cuts, Kind.clips)
    var lanes = FilteredLanes<Scalar>(limits, models: models)
    var merged = MergedLanes<Scalar>(
      merge.weights, models: models, zeroSign: merge.election.zeroSign, lambda: Scalar(place.lambda))
    let inputs = LaneInputs(chunk)
    let target = place.pointer + chunk.offset * Element.size
    for tile in 0..<chunk.length / 16 {
      if drops, tile % 16 == 0 { lanes.take(tile / 16) }
      let (x, a, b, c, d) = inputs.load(tile)
      let low = merged.merge(
        x.low, lanes.filter(x.low, a.low, b.low, c.low, d.low, models: models, drops: drops, cuts: cuts, clips: clips),
        models: models, votes: Votes.isYes, divides: Divides.isYes)
      let high = merged.merge(
        x.high, lanes.filter(x.high, a.high, b.high, c.high, d.high, models: models, drops: drops, cuts: cuts, clips: clips),
        models: models, votes: Votes.isYes, divides: Divides.isYes)
      Element.store(Lanes(low: low, high: high), target, tile &* (16 &* Element.size))
    }
    guard lanes.isFinite else { return false }
    lanes.addCounts(to: sums, length: chunk.length, models: models)
    sums[models] += merged.conflicts
    return true
  }
}

/// What filtered lanes become, and in how many places their signs disagree.
private struct MergedLanes<Scalar: ArithmeticScalar> {
  private let weights: FilteredLanes<Scalar>.Four
  /// Below it a vote is negative.
  private let bound: SIMD8<Scalar>
  private let lambda: SIMD8<Scalar>
  /// Marks of -1.
  private var disagreed = SIMD8<Scalar.Count>.zero

  @inline(__always)
  init(_ weights: UnsafePointer<Scalar>, models: Int, zeroSign: Scalar, lambda: Scalar) {
    self.weights = (
      SIMD8(repeating: weights[0]), SIMD8(repeating: weights[1]), SIMD8(repeating: weights[min(2, models - 1)]),
      SIMD8(repeating: weights[min(3, models - 1)])
    )
    bound = SIMD8(repeating: zeroSign < 0 ? .leastNonzeroMagnitude : 0)
    self.lambda = SIMD8(repeating: lambda)
  }

  var conflicts: Double { -Double(disagreed.wrappedSum()) }

  /// What the model adds to the divisor where it agrees: where it is positive after a vote, and not 0 without one.
  @inline(__always)
  private func share(_ own: SIMD8<Scalar>, _ weight: SIMD8<Scalar>, _ votes: Bool) -> SIMD8<Scalar> {
    Scalar.positive(votes ? own : Scalar.magnitudes(own, narrow: false), weight)
  }

  // Transparent: see FilteredLanes.filter.
  @_transparent
  mutating func merge(
    _ x: SIMD8<Scalar>, _ e: FilteredLanes<Scalar>.Four, models: Int, votes: Bool, divides: Bool
  ) -> SIMD8<Scalar> {
    let (hasThird, hasFourth) = (models > 2, models > 3)
    var total = e.0 + e.1
    if hasThird { total += e.2 }
    if hasFourth { total += e.3 }
    // What agrees with the vote is positive once the lanes with a negative vote are negated. Without a vote all agree.
    let isNegative = votes ? Scalar.isLess(total, bound) : .zero
    let own =
      votes
      ? (
        Scalar.negated(e.0, where: isNegative), Scalar.negated(e.1, where: isNegative), Scalar.negated(e.2, where: isNegative),
        Scalar.negated(e.3, where: isNegative)
      ) : e
    let positive = (
      Scalar.larger(.zero, own.0), Scalar.larger(.zero, own.1), Scalar.larger(.zero, own.2), Scalar.larger(.zero, own.3)
    )
    var (most, least) = (positive.0 + positive.1, Scalar.smaller(Scalar.smaller(.zero, own.0), own.1))
    if hasThird { (most, least) = (most + positive.2, Scalar.smaller(least, own.2)) }
    if hasFourth { (most, least) = (most + positive.3, Scalar.smaller(least, own.3)) }
    // After a vote something agrees wherever anything is not 0.
    disagreed &+= votes ? Scalar.isLess(least, .zero) : Scalar.isLess(.zero, Scalar.smaller(most, 0 - least))
    if votes { total = most }
    if divides {
      var divisor = share(own.0, weights.0, votes) + share(own.1, weights.1, votes)
      if hasThird { divisor += share(own.2, weights.2, votes) }
      if hasFourth { divisor += share(own.3, weights.3, votes) }
      total /= Scalar.fillingZeros(divisor, with: 1)
    }
    if votes { total = Scalar.negated(total, where: isNegative) }
    // What is subtracted: a positive zero leaves x as it is, -0.0 too.
    return x - (0 - total * lambda)
  }
}
