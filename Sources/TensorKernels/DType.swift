/// Element types of safetensors files. The raw values are those of include/stockpot.h and never change.
///
/// Float types are merged; all others are storage: their tensors are copied, never averaged.
public enum DType: Int32, Sendable, CaseIterable {
  case f32 = 1
  case f64 = 2
  case f16 = 3
  case bf16 = 4
  case f8e4m3fn = 5
  case f8e5m2 = 6
  case bool = 20
  case u8 = 21
  case i8 = 22
  case u16 = 23
  case i16 = 24
  case u32 = 25
  case i32 = 26
  case u64 = 27
  case i64 = 28
  case f8e8m0 = 29
  case c64 = 30

  /// Bytes per element.
  public var size: Int {
    switch self {
    case .bool, .u8, .i8, .f8e4m3fn, .f8e5m2, .f8e8m0: 1
    case .f16, .bf16, .u16, .i16: 2
    case .f32, .u32, .i32: 4
    case .f64, .u64, .i64, .c64: 8
    }
  }

  /// Can it be merged?
  public var isFloat: Bool { rawValue <= DType.f8e5m2.rawValue }

  /// Is its arithmetic binary64 (F32 and F64), rather than binary32 (8 and 16 bits)?
  public var isWide: Bool { self == .f32 || self == .f64 }

  /// The name in a safetensors header.
  public var name: String { String(describing: staticName) }

  /// The same, as a constant that can be handed to C.
  public var staticName: StaticString {
    switch self {
    case .f32: "F32"
    case .f64: "F64"
    case .f16: "F16"
    case .bf16: "BF16"
    case .f8e4m3fn: "F8_E4M3"
    case .f8e5m2: "F8_E5M2"
    case .bool: "BOOL"
    case .u8: "U8"
    case .i8: "I8"
    case .u16: "U16"
    case .i16: "I16"
    case .u32: "U32"
    case .i32: "I32"
    case .u64: "U64"
    case .i64: "I64"
    case .f8e8m0: "F8_E8M0"
    case .c64: "C64"
    }
  }

  /// The type of a name in a safetensors header.
  public init?(safetensorsName name: String) {
    guard let match = DType.allCases.first(where: { $0.name == name }) else { return nil }
    self = match
  }

  /// PyTorch's name, as configs and recipes spell it ("bfloat16"); nil for types that recipes do not name.
  public var torchName: String? {
    switch self {
    case .f32: "float32"
    case .f64: "float64"
    case .f16: "float16"
    case .bf16: "bfloat16"
    case .f8e4m3fn: "float8_e4m3fn"
    case .f8e5m2: "float8_e5m2"
    default: nil
    }
  }

  /// The type that a recipe or config names: "bfloat16", "torch.bfloat16", "bf16", "float16", "half"...
  public init?(recipeName: String) {
    let name = recipeName.hasPrefix("torch.") ? String(recipeName.dropFirst(6)) : recipeName
    switch name {
    case "float32", "float", "f32", "fp32": self = .f32
    case "float64", "double", "f64", "fp64": self = .f64
    case "float16", "half", "f16", "fp16": self = .f16
    case "bfloat16", "bf16": self = .bf16
    case "float8_e4m3fn": self = .f8e4m3fn
    case "float8_e5m2": self = .f8e5m2
    default: return nil
    }
  }
}
