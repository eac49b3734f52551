import Testing

@testable import TensorKernels

// Plain references for the elementwise kernels: one element after the other, in Double, rounded after every step to the
// arithmetic type. Double holds more than twice the digits of Float, so rounding a single operation twice changes nothing.

/// Philox4x32-10, one counter at a time.
enum ScalarPhilox {
  static func block(counter: [UInt32], key: [UInt32]) -> [UInt32] {
    var (x, k) = (counter, key)
    for round in 0..<10 {
      if round > 0 { (k[0], k[1]) = (k[0] &+ 0x9E37_79B9, k[1] &+ 0xBB67_AE85) }
      let (first, second) = (UInt64(0xD251_1F53) * UInt64(x[0]), UInt64(0xCD9E_8D57) * UInt64(x[2]))
      x = [
        UInt32(second >> 32) ^ x[1] ^ k[0], UInt32(truncatingIfNeeded: second), UInt32(first >> 32) ^ x[3] ^ k[1],
        UInt32(truncatingIfNeeded: first),
      ]
    }
    return x
  }

  /// docs/masks.md: FNV-1a of the name's bytes.
  static func hash(_ name: String) -> UInt64 {
    name.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  /// The word of element `e`.
  static func word(seed: UInt64, _ name: String, model: UInt32, stream: UInt32 = 0, _ e: Int) -> UInt32 {
    let key = hash(name) ^ seed
    let index = UInt64(e / 4)
    return block(
      counter: [UInt32(truncatingIfNeeded: index), UInt32(index >> 32), model, stream],
      key: [UInt32(truncatingIfNeeded: key), UInt32(key >> 32)])[e % 4]
  }
}

extension Inputs {
  /// To the arithmetic type of the elements.
  func rounded(_ value: Double) -> Double { dtype.isWide ? value : Double(Float(value)) }

  /// Models minus base, as the arithmetic type has them.
  var differences: [[Double]] {
    let x = values
    return x.dropFirst().map { row in zip(row, x[0]).map { rounded($0 - $1) } }
  }

  func block(from: Int = 0, count: Int, start: Int? = nil, workspace: GuardedBytes) -> TaskVectorBlock {
    TaskVectorBlock(inputs: kernel, from: from, count: count, start: start ?? from, workspace: workspace.start)
  }
}

func noFilters(_ models: Int, narrow: Bool = true) -> TaskVectors {
  TaskVectors(filters: (0..<models).map { _ in TaskVectorFilter() }, narrow: narrow)
}

/// Kinds of `filters`.
let filterKinds = ["none", "cut", "cut through ties", "clip", "drop", "drop of one", "drop and cut"]

func filters(_ kind: String, _ models: Int) -> TaskVectors {
  var vectors = noFilters(models)
  for k in 0..<models {
    switch kind {
    case "cut": vectors.filters[k].cut = .below(threshold: 0.5 + 0.25 * Double(k % 2), tiesBefore: 0)
    case "cut through ties": vectors.filters[k].cut = .below(threshold: 0.5, tiesBefore: 700 + 900 * k)
    case "clip":
      vectors.filters[k].ceiling = .above(threshold: 1.5, dropsBefore: 0)
      vectors.filters[k].cut = .below(threshold: 0.25, tiesBefore: .max)
    case "drop":
      vectors.filters[k].drop = .bernoulli(RandomStream(seed: 4, name: "t", model: k), limit: 3 << 30)
    case "drop of one":
      if k == 0 { vectors.filters[k].drop = .bernoulli(RandomStream(seed: 4, name: "t", model: k), limit: 3 << 30) }
    case "drop and cut":
      vectors.filters[k].drop = .bernoulli(RandomStream(seed: 4, name: "t", model: k), limit: 1 << 31)
      vectors.filters[k].cut = .below(threshold: 0.5, tiesBefore: 1024)
    default: break
    }
  }
  return vectors
}

/// Magnitudes that are exact in every type, many of them equal.
func magnitudes(_ count: Int, seed: Int) -> [Double] { (0..<count).map { Double(($0 * 37 + seed) % 23) * 0.25 } }

func pattern(_ value: Double, narrow: Bool) -> UInt64 { narrow ? UInt64(Float(value).bitPattern) : value.bitPattern }

/// The rows that `chunks` shows, in the order of the elements, and what it returns.
func rows(
  _ vectors: TaskVectors, _ inputs: Inputs, from: Int = 0, count: Int, start: Int? = nil, raw: Bool = false
) -> (rows: [[Double]], poison: Double) {
  let workspace = inputs.workspace
  let block = inputs.block(from: from, count: count, start: start, workspace: workspace)
  var result = [[Double]](repeating: [], count: vectors.models)
  func collect<Element: KernelElement>(_: Element.Type) -> Double {
    vectors.chunks(Element.self, block, raw: raw) { chunk in
      let (rows, length, vectors) = (chunk.rows, chunk.length, chunk.vectors)
      #expect(vectors == 2 * ((length + 15) / 16) && chunk.offset % KernelGeometry.chunk == 0)
      for k in result.indices {
        for i in 0..<8 * vectors {
          let value = Double(rows[k][i & ~15 | Element.position(of: i & 15)])
          if i < length { result[k].append(value) } else { #expect(value == 0, "padding") }
        }
      }
    }
  }
  let poison =
    switch inputs.dtype {
    case .bf16: collect(BF16Element.self)
    case .f16: collect(F16Element.self)
    case .f32: collect(F32Element.self)
    default: collect(F64Element.self)
    }
  #expect(workspace.isIntact)
  return (result, poison)
}

/// Multiples of a quarter between -2 and 2, zeros among them: exact in every type, with many ties.
func quarters(_ count: Int, _ random: inout SplitMix64) -> [Double] {
  (0..<count).map { _ in Double(random.below(17) - 8) * 0.25 }
}

/// A value as an element type holds it.
func stored(_ value: Double, _ dtype: DType) -> Double {
  switch dtype {
  case .f64: return value
  case .f32: return Double(Float(value))
  default:
    let format = FloatFormat.of(dtype)
    return format.value(format.nearest(value))
  }
}

/// Equal, a NaN to a NaN, and the signs of zeros too.
func sameBits(_ a: [Double], _ b: [Double]) -> Int? {
  difference(
    a.map { $0.isNaN ? Double.nan.bitPattern : $0.bitPattern }, b.map { $0.isNaN ? Double.nan.bitPattern : $0.bitPattern })
}

/// A disjoint merge, element by element.
struct PlainDisjointMerge {
  let inputs: Inputs
  let merge: DisjointMerge
  let base: [Double]
  /// Task vectors, of which no filter takes anything away.
  let vectors: [[Double]]

  init(_ inputs: Inputs, _ merge: DisjointMerge) {
    (self.inputs, self.merge) = (inputs, merge)
    (base, vectors) = (inputs.values[0], inputs.differences)
  }

  private func r(_ value: Double) -> Double { inputs.rounded(value) }
  private func sign(_ value: Double) -> Double { value > 0 ? 1 : value < 0 ? -1 : 0 }

  func scaled(_ i: Int) -> [Double] {
    zip(vectors, merge.election.factors).map { $1 == 1 ? $0[i] : r($0[i] * r($1)) }
  }

  func elected(_ e: [Double]) -> Double {
    let inverse = merge.election.inverseSquares.map(r)
    var vote = 0.0
    switch merge.election.rule {
    case .none: return 0
    case .mass: for value in e { vote = r(vote + value) }
    case .count: for value in e { vote += sign(value) }
    case .normfrac:
      var best = -1.0
      for (value, share) in zip(e, inverse) where r(r(value * value) * share) > best {
        (vote, best) = (value, r(r(value * value) * share))
      }
    case .normmass: for (value, share) in zip(e, inverse) { vote = r(vote + sign(value) * r(r(value * value) * share)) }
    }
    return sign(vote) == 0 ? merge.election.zeroSign : sign(vote)
  }

  func tau(_ i: Int) -> Double {
    let e = scaled(i)
    let gamma = elected(e)
    var agreeing: [(value: Double, weight: Double)] = []
    for (value, weight) in zip(e, merge.weights) {
      let agrees = if case .none = merge.election.rule { value != 0 } else { value != 0 && sign(value) == gamma }
      if agrees { agreeing.append((value, r(weight))) }
    }
    var sum = 0.0
    for (value, _) in agreeing { sum = r(sum + value) }
    switch merge.rule {
    case .sum: return sum
    case .mean:
      var divisor = 0.0
      for (_, weight) in agreeing { divisor = r(divisor + weight) }
      return r(sum / (divisor == 0 ? 1 : divisor))
    case .max:
      var best = 0.0
      for (value, _) in agreeing where value.magnitude >= best.magnitude { best = value }
      return best
    }
  }

  func result(_ i: Int, lambda: Double, addsBase: Bool, _ type: DType) -> Double {
    let step = r(tau(i) * r(lambda))
    guard addsBase else { return stored(step == 0 ? 0 : step, type) }
    return stored(step == 0 ? base[i] : r(base[i] + step), type)
  }
}
