/// The inputs of a kernel: a table of pointers to blocks of one element type, 16-bit or wider.
///
/// Inputs of other types, or of several types, are converted block by block before they get here (`KernelInputs.commonType`).
public struct KernelInputs {
  public let table: UnsafePointer<UnsafeRawPointer>
  public let count: Int
  public let dtype: DType

  /// - Parameters:
  ///   - table: `count` pointers, each to as many elements as the call that takes this reads.
  ///   - dtype: F32, F64, F16 or BF16.
  public init(table: UnsafePointer<UnsafeRawPointer>, count: Int, dtype: DType) {
    self.table = table
    self.count = count
    self.dtype = dtype
  }

  /// The type in which a set of inputs is computed. BF16 and F16 stay as they are when every input has that type, and so has
  /// the output (nil: none); otherwise everything is F32, or F64 when any is.
  public static func commonType(_ inputs: some Sequence<DType>, output: DType?) -> DType {
    var common: DType?
    var mixed = false
    var anyDouble = false
    for dtype in inputs {
      if dtype == .f64 { anyDouble = true }
      if let known = common { mixed = mixed || known != dtype } else { common = dtype }
    }
    if anyDouble { return .f64 }
    guard let common, !mixed else { return .f32 }
    switch common {
    case .f16, .bf16: return output == nil || output == common ? common : .f32
    default: return .f32
    }
  }
}

/// Sizes that fix the order of every sum. They may not depend on threads, memory or the reader's blocks.
public enum KernelGeometry {
  /// Elements summed in lanes before the sums are added to binary64: 16 lanes, so 64 additions a lane.
  public static let chunk = 1024

  /// Elements of a part of a chunk, where a kernel goes through a chunk in parts: a multiple of 32.
  static let part = 256

  /// Bytes of scratch that a kernel over `rows` inputs (reference, centre and such included) may use.
  public static func workspaceBytes(rows: Int) -> Int { (rows + 4) * (chunk * 8 + 64) }
}
