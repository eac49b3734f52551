import Testing

@testable import TensorKernels

// Lengths at which kernels change their way: around a tile of 16, around a chunk of 1024, and several chunks. Unoptimised
// kernels are about 1000 times slower, so the long ones are for release.
#if DEBUG
  let lengths = [0, 1, 15, 16, 17, 1023, 1024, 1025, 4096]
  let isOptimised = false
#else
  let lengths = [0, 1, 15, 16, 17, 1023, 1024, 1025, 4096, 65536 + 3]
  let isOptimised = true
#endif

let floatTypes: [DType] = [.f32, .f64, .f16, .bf16, .f8e4m3fn, .f8e5m2]
let kernelTypes: [DType] = [.f32, .f64, .f16, .bf16]

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// In [-1, 1), 53 bits.
  mutating func signed() -> Double { Double(Int64(bitPattern: next()) >> 10) * 0x1p-53 }
  mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
  mutating func values(_ count: Int) -> [Double] { (0..<count).map { _ in signed() } }
}

/// Bytes between two margins that nobody may write; `misalignment` bytes past a multiple of 64. Margins and content start as
/// `fill`: 0xA5 for outputs, which an addition changes too, and 0xFF for inputs, a NaN in every float type: a kernel that reads
/// outside shows it in its results.
final class GuardedBytes {
  let start: UnsafeMutableRawPointer
  let count: Int
  private let fill: UInt8
  private let block: UnsafeMutableRawPointer
  private static let margin = 256

  init(count: Int, misalignment: Int = 0, fill: UInt8 = 0xA5) {
    self.count = count
    self.fill = fill
    block = .allocate(byteCount: count + 2 * Self.margin + misalignment, alignment: 64)
    start = block + Self.margin + misalignment
    (start - Self.margin).initializeMemory(as: UInt8.self, repeating: fill, count: count + 2 * Self.margin)
  }

  deinit { block.deallocate() }

  var isIntact: Bool {
    let before = UnsafeRawBufferPointer(start: start - Self.margin, count: Self.margin)
    let after = UnsafeRawBufferPointer(start: start + count, count: Self.margin)
    return before.allSatisfy { $0 == fill } && after.allSatisfy { $0 == fill }
  }

  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: start, count: count)) }

  func store<Value: BitwiseCopyable>(_ values: [Value]) {
    for (i, value) in values.enumerated() {
      start.storeBytes(of: value, toByteOffset: i * MemoryLayout<Value>.size, as: Value.self)
    }
  }

  func load<Value: BitwiseCopyable>(as type: Value.Type) -> [Value] {
    (0..<count / MemoryLayout<Value>.size).map {
      start.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Value>.size, as: Value.self)
    }
  }

  func store(_ values: [Double], as dtype: DType) {
    switch dtype {
    case .f64: store(values)
    case .f32: store(values.map { Float($0) })
    default:
      let format = FloatFormat.of(dtype)
      if dtype.size == 2 { store(values.map { format.nearest($0) }) } else { store(values.map { UInt8(format.nearest($0)) }) }
    }
  }

  func values(as dtype: DType) -> [Double] {
    switch dtype {
    case .f64: load(as: Double.self)
    case .f32: load(as: Float.self).map { Double($0) }
    default:
      dtype.size == 2
        ? load(as: UInt16.self).map { FloatFormat.of(dtype).value($0) }
        : load(as: UInt8.self).map { FloatFormat.of(dtype).value(UInt16($0)) }
    }
  }
}

/// Inputs of a kernel: rows rounded into an element type, each in guarded memory.
final class Inputs {
  let rows: [GuardedBytes]
  let dtype: DType
  private let table: UnsafeMutablePointer<UnsafeRawPointer>

  init(_ values: [[Double]], _ dtype: DType, misalignment: Int = 0) {
    self.dtype = dtype
    rows = values.map { row in
      let bytes = GuardedBytes(count: row.count * dtype.size, misalignment: misalignment, fill: 0xFF)
      bytes.store(row, as: dtype)
      return bytes
    }
    table = .allocate(capacity: max(1, values.count))
    for (k, row) in rows.enumerated() { (table + k).initialize(to: UnsafeRawPointer(row.start)) }
  }

  deinit { table.deallocate() }

  var kernel: KernelInputs { KernelInputs(table: table, count: rows.count, dtype: dtype) }

  /// What the rows hold after rounding.
  var values: [[Double]] { rows.map { $0.values(as: dtype) } }

  var workspace: GuardedBytes { GuardedBytes(count: KernelGeometry.workspaceBytes(rows: rows.count)) }
}

/// Where two lists differ first; nil: nowhere. A failed comparison of long arrays takes minutes to print.
func difference<Value: Equatable>(_ a: [Value], _ b: [Value]) -> Int? {
  a.count != b.count ? min(a.count, b.count) : a.indices.first { a[$0] != b[$0] }
}

/// One of the narrow formats, from its definition (IEEE 754 and arXiv:2209.05433), with tables and a search: slow, and
/// independent of the code under test.
struct FloatFormat: Sendable {
  let dtype: DType
  let mantissaBits: Int
  /// Value of each code without sign, up to the first that is not finite; that one as if the exponents went on.
  private let magnitudes: [Double]

  static let bf16 = FloatFormat(.bf16, exponentBits: 8, mantissaBits: 7, overflow: 0x7F80)
  static let f16 = FloatFormat(.f16, exponentBits: 5, mantissaBits: 10, overflow: 0x7C00)
  static let e4m3 = FloatFormat(.f8e4m3fn, exponentBits: 4, mantissaBits: 3, overflow: 0x7F)
  static let e5m2 = FloatFormat(.f8e5m2, exponentBits: 5, mantissaBits: 2, overflow: 0x7C)
  static let all = [bf16, f16, e4m3, e5m2]

  static func of(_ dtype: DType) -> FloatFormat { all.first { $0.dtype == dtype }! }

  private init(_ dtype: DType, exponentBits: Int, mantissaBits: Int, overflow: Int) {
    self.dtype = dtype
    self.mantissaBits = mantissaBits
    let bias = 1 << (exponentBits - 1) - 1
    magnitudes = (0...overflow).map { code in
      let (exponent, mantissa) = (code >> mantissaBits, Double(code & (1 << mantissaBits - 1)))
      let unit = Double(sign: .plus, exponent: max(exponent, 1) - bias - mantissaBits, significand: 1)
      return (mantissa + (exponent > 0 ? Double(1 << mantissaBits) : 0)) * unit
    }
  }

  var hasInfinity: Bool { dtype != .f8e4m3fn }
  /// Code of infinity, or of the NaN that stands in for it.
  var overflow: UInt16 { UInt16(magnitudes.count - 1) }
  var signBit: UInt16 { dtype.size == 2 ? 0x8000 : 0x80 }
  var codes: ClosedRange<UInt16> { 0...(signBit | (signBit - 1)) }

  func isNaN(_ code: UInt16) -> Bool {
    hasInfinity ? code & (signBit - 1) > overflow : code & (signBit - 1) == overflow
  }

  /// Is it a NaN with the highest bit of its mantissa set?
  func isQuiet(_ code: UInt16) -> Bool { isNaN(code) && code & (1 << (mantissaBits - 1)) != 0 }

  func value(_ code: UInt16) -> Double {
    let negative = code & signBit != 0
    let magnitude: Double
    if isNaN(code) {
      magnitude = .nan
    } else {
      let plain = code & (signBit - 1)
      magnitude = plain == overflow ? .infinity : magnitudes[Int(plain)]
    }
    return negative ? -magnitude : magnitude
  }

  /// Half way from this code without sign to the next: exact in binary64.
  func middle(_ code: UInt16) -> Double { (magnitudes[Int(code)] + magnitudes[Int(code) + 1]) / 2 }

  /// Code of the nearest value, ties to the even code; `overflow` at and beyond the middle to what would come next.
  ///
  /// The two differences are exact where they matter: a value between two neighbours is within a factor of 2 of the upper one,
  /// or nearer to 0 than to it.
  func nearest(_ value: Double) -> UInt16 {
    let sign: UInt16 = value.sign == .minus ? signBit : 0
    if value.isNaN { return sign | overflow | (hasInfinity ? 1 << (mantissaBits - 1) : 0) }
    let target = value.magnitude
    if target >= magnitudes[magnitudes.count - 1] { return sign | overflow }
    var (low, high) = (0, magnitudes.count - 1)
    while high - low > 1 {
      let middle = (low + high) / 2
      if magnitudes[middle] <= target { low = middle } else { high = middle }
    }
    let (below, above) = (target - magnitudes[low], magnitudes[high] - target)
    let upper = below == above ? low & 1 == 1 : below > above
    return sign | UInt16(upper ? high : low)
  }
}

/// sum_i x_i y_i as if in twice the precision of binary64 (Ogita, Rump and Oishi, "Accurate sum and dot product", 2005).
func accurateDot(_ x: [Double], _ y: [Double]) -> Double {
  var (sum, rest) = (0.0, 0.0)
  for i in x.indices {
    let product = x[i] * y[i]
    let productError = (-product).addingProduct(x[i], y[i])
    let next = sum + product
    let part = next - sum
    rest += (sum - (next - part)) + (product - part) + productError
    sum = next
  }
  return sum + rest
}

func dotOfMagnitudes(_ x: [Double], _ y: [Double]) -> Double {
  var sum = 0.0
  for i in x.indices { sum += (x[i] * y[i]).magnitude }
  return sum
}

extension RowPairs {
  /// The pairs themselves, in order.
  var pairs: [(Int32, Int32)] {
    (0..<Int32(rows)).flatMap { i in (i..<(isDiagonal ? i + 1 : Int32(rows))).map { (i, $0) } }
  }
}
