// Agreeing vectors of two to four models in one pass: into rows, for their products, or combined and written.
//
//   e_i = f_i filter(x_i - x_0);   gamma = sign of sum e_i, or of sum sign(e_i);   f_i = e_i where sign(e_i) = gamma, else 0
//   out = x_0 + lambda sum_i c_i f_i
//
// What AgreeingVectors.swift says, and to the bit what it gives, where the vote is by mass or by count and the filters are those of
// FilteredLanes.swift.
// Traffic: (K + 1) * size bytes per element and K rows in L1, or (K + 2) * size, each once.

/// A kernel that votes by mass or by count.
protocol OnePassVote: OnePassKernel {
  var election: RowElection<Element.Arithmetic> { get }

  /// As `OnePassKernel.run`.
  func run<Kind: FilterKind, Models: FixedCount, Counts: Choice>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Element.Arithmetic>>, _: Kind.Type, _: Models.Type,
    _: Counts.Type
  ) -> Bool
}

extension OnePassVote {
  /// Can this election, with an output of `Out`, go in one pass?
  static func takes<Out: KernelElement>(_ election: RowElection<Element.Arithmetic>, _ out: Out.Type) -> Bool {
    takes(election.models, out) && (election.rule == .mass || election.rule == .count)
  }

  @inline(__always)
  func run<Kind: FilterKind, Models: FixedCount>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Element.Arithmetic>>, _ kind: Kind.Type,
    _ models: Models.Type
  ) -> Bool {
    election.rule == .count ? run(chunk, limits, kind, models, Yes.self) : run(chunk, limits, kind, models, No.self)
  }
}

/// Fills rows 0..<K with the agreeing vectors.
struct OnePassSelection<Element: KernelElement>: OnePassVote {
  typealias Scalar = Element.Arithmetic

  let election: RowElection<Scalar>

  /// nil: this election goes row by row.
  init?(_ election: RowElection<Scalar>, _ element: Element.Type) {
    guard Self.takes(election, element) else { return nil }
    self.election = election
  }

  @inline(never)
  func run<Kind: FilterKind, Models: FixedCount, Counts: Choice>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _: Kind.Type, _: Models.Type, _: Counts.Type
  ) -> Bool {
    let (models, drops, cuts, clips, counts) = (Models.count ?? 4, Kind.drops, Kind.cuts, Kind.clips, Counts.isYes)
    var lanes = FilteredLanes<Scalar>(limits, models: models)
    let vote = LaneVote<Scalar>(zeroSign: election.zeroSign)
    let (inputs, rows) = (LaneInputs(chunk), chunk.rows)
    for tile in 0..<chunk.length / 16 {
      if drops, tile % 16 == 0 { lanes.take(tile / 16) }
      let (x, a, b, c, d) = inputs.load(tile)
      let low = vote.agreeing(
        lanes.filter(x.low, a.low, b.low, c.low, d.low, models: models, drops: drops, cuts: cuts, clips: clips),
        models: models, counts: counts)
      rows.set(0, 2 &* tile, low.0)
      rows.set(1, 2 &* tile, low.1)
      if models > 2 { rows.set(2, 2 &* tile, low.2) }
      if models > 3 { rows.set(3, 2 &* tile, low.3) }
      let high = vote.agreeing(
        lanes.filter(x.high, a.high, b.high, c.high, d.high, models: models, drops: drops, cuts: cuts, clips: clips),
        models: models, counts: counts)
      rows.set(0, 2 &* tile &+ 1, high.0)
      rows.set(1, 2 &* tile &+ 1, high.1)
      if models > 2 { rows.set(2, 2 &* tile &+ 1, high.2) }
      if models > 3 { rows.set(3, 2 &* tile &+ 1, high.3) }
    }
    return lanes.isFinite
  }
}

/// Writes x_0 + lambda sum_i c_i f_i.
struct OnePassCombination<Element: KernelElement>: OnePassVote {
  typealias Scalar = Element.Arithmetic

  let election: RowElection<Scalar>
  private let coefficients: UnsafePointer<Scalar>
  private let place: MergedOutput

  /// nil: this combination goes row by row.
  init?<Out: KernelElement>(
    _ election: RowElection<Scalar>, _ coefficients: UnsafePointer<Scalar>, _ place: MergedOutput, _: Element.Type,
    _ out: Out.Type
  ) {
    guard Self.takes(election, out), place.addsBase else { return nil }
    (self.election, self.coefficients, self.place) = (election, coefficients, place)
  }

  @inline(never)
  func run<Kind: FilterKind, Models: FixedCount, Counts: Choice>(
    _ chunk: TaskVectorChunk<Element>, _ limits: UnsafePointer<RowLimits<Scalar>>, _: Kind.Type, _: Models.Type, _: Counts.Type
  ) -> Bool {
    let (models, drops, cuts, clips, counts) = (Models.count ?? 4, Kind.drops, Kind.cuts, Kind.clips, Counts.isYes)
    var lanes = FilteredLanes<Scalar>(limits, models: models)
    let vote = LaneVote<Scalar>(zeroSign: election.zeroSign)
    let factors: FilteredLanes<Scalar>.Four = (
      SIMD8(repeating: coefficients[0]), SIMD8(repeating: coefficients[1]), SIMD8(repeating: coefficients[min(2, models - 1)]),
      SIMD8(repeating: coefficients[min(3, models - 1)])
    )
    let lambda = SIMD8<Scalar>(repeating: Scalar(place.lambda))
    let inputs = LaneInputs(chunk)
    let target = place.pointer + chunk.offset * Element.size
    for tile in 0..<chunk.length / 16 {
      if drops, tile % 16 == 0 { lanes.take(tile / 16) }
      let (x, a, b, c, d) = inputs.load(tile)
      let low = vote.agreeing(
        lanes.filter(x.low, a.low, b.low, c.low, d.low, models: models, drops: drops, cuts: cuts, clips: clips),
        models: models, counts: counts)
      let high = vote.agreeing(
        lanes.filter(x.high, a.high, b.high, c.high, d.high, models: models, drops: drops, cuts: cuts, clips: clips),
        models: models, counts: counts)
      // What is subtracted: a positive zero leaves x as it is, -0.0 too.
      let merged = Lanes(
        low: x.low - (0 - sum(low, factors, models: models) * lambda),
        high: x.high - (0 - sum(high, factors, models: models) * lambda))
      lanes.check(merged.low)
      lanes.check(merged.high)
      Element.storeNumbers(merged, target, tile &* (16 &* Element.size))
    }
    return lanes.isFinite
  }

  @inline(__always)
  private func sum(
    _ values: FilteredLanes<Scalar>.Four, _ factors: FilteredLanes<Scalar>.Four, models: Int
  ) -> SIMD8<Scalar> {
    var total = SIMD8<Scalar>.zero
    total.addProduct(factors.0, values.0)
    total.addProduct(factors.1, values.1)
    if models > 2 { total.addProduct(factors.2, values.2) }
    if models > 3 { total.addProduct(factors.3, values.3) }
    return total
  }
}

/// The vote of two to four models on eight elements. By masks as whole numbers: lanes that are chosen the compiler halves and joins.
private struct LaneVote<Scalar: ArithmeticScalar> {
  typealias Mask = SIMD8<Scalar.Count>

  /// By mass: above the one a vote is positive, below the other negative.
  private let bounds: (positive: SIMD8<Scalar>, negative: SIMD8<Scalar>)
  /// The same of a vote by count.
  private let counts: (positive: Mask, negative: Mask)

  @inline(__always)
  init(zeroSign: Scalar) {
    let least = Scalar.leastNonzeroMagnitude
    bounds = (SIMD8(repeating: zeroSign > 0 ? -least : 0), SIMD8(repeating: zeroSign < 0 ? least : 0))
    counts = (SIMD8(repeating: zeroSign > 0 ? -1 : 0), SIMD8(repeating: zeroSign < 0 ? 1 : 0))
  }

  /// What agrees with the vote, else 0, of either sign.
  // Transparent: see FilteredLanes.filter.
  @_transparent
  func agreeing(_ e: FilteredLanes<Scalar>.Four, models: Int, counts isByCount: Bool) -> FilteredLanes<Scalar>.Four {
    let (hasThird, hasFourth) = (models > 2, models > 3)
    let winner: (positive: Mask, negative: Mask)
    if isByCount {
      var vote = ballot(e.0) &+ ballot(e.1)
      if hasThird { vote = vote &+ ballot(e.2) }
      if hasFourth { vote = vote &+ ballot(e.3) }
      let sign = Scalar.Count(Scalar.Count.bitWidth - 1)
      winner = ((counts.positive &- vote) &>> sign, (vote &- counts.negative) &>> sign)
    } else {
      var vote = e.0 + e.1
      if hasThird { vote += e.2 }
      if hasFourth { vote += e.3 }
      winner = (Scalar.isLess(bounds.positive, vote), Scalar.isLess(vote, bounds.negative))
    }
    // From 0 to infinity, from -infinity to 0, or 0 alone.
    let most = Scalar.cleared(SIMD8(repeating: .infinity), where: ~winner.positive)
    let least = Scalar.cleared(SIMD8(repeating: -.infinity), where: ~winner.negative)
    return (
      Scalar.larger(Scalar.smaller(e.0, most), least), Scalar.larger(Scalar.smaller(e.1, most), least),
      hasThird ? Scalar.larger(Scalar.smaller(e.2, most), least) : .zero,
      hasFourth ? Scalar.larger(Scalar.smaller(e.3, most), least) : .zero
    )
  }

  /// 1 where positive, -1 where negative, else 0.
  @inline(__always)
  private func ballot(_ e: SIMD8<Scalar>) -> Mask { Scalar.isLess(e, .zero) &- Scalar.isLess(.zero, e) }
}
