import Glibc
import Testing

@testable import TensorKernels

@Suite struct DTypeTests {
  /// The lines `#define SP_DTYPE_<NAME> ((sp_dtype)<code>)` of the header.
  private static let header: [String: Int32] = {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    guard let file = fopen("/" + root + "/include/stockpot.h", "r") else { return [:] }
    defer { fclose(file) }
    var found: [String: Int32] = [:]
    var line = [CChar](repeating: 0, count: 4096)
    while fgets(&line, Int32(line.count), file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      let words = text.split(separator: " ")
      guard words.count >= 3, words[0] == "#define", words[1].hasPrefix("SP_DTYPE_"), words[2].hasPrefix("((sp_dtype)") else {
        continue
      }
      found[String(words[1].dropFirst(9))] = Int32(words[2].dropFirst(11).prefix { $0.isNumber || $0 == "-" })
    }
    return found
  }()

  /// safetensors leaves out the FN of F8_E4M3FN, the C name has it.
  private func headerName(_ dtype: DType) -> String { dtype == .f8e4m3fn ? "F8_E4M3FN" : dtype.name }

  @Test func codesAreThoseOfTheHeader() {
    #expect(Self.header.count == DType.allCases.count)
    for dtype in DType.allCases { #expect(Self.header[headerName(dtype)] == dtype.rawValue, "\(dtype)") }
  }

  @Test(arguments: DType.allCases) func sizeIsTheNumberOfBitsInTheName(dtype: DType) throws {
    // F32, BF16, I64, C64, F8_...: the first number is the number of bits. BOOL is a byte.
    let digits = dtype.name.drop { !$0.isNumber }.prefix { $0.isNumber }
    #expect(dtype.size * 8 == Int(digits) ?? 8)
  }

  @Test func onlyTheTypesBelowTwentyAreFloats() {
    #expect(DType.allCases.filter(\.isFloat) == floatTypes)
    #expect(DType.allCases.filter(\.isWide) == [.f32, .f64])
  }

  @Test(arguments: DType.allCases) func safetensorsNameIsReadBack(dtype: DType) {
    #expect(DType(safetensorsName: dtype.name) == dtype)
    #expect(DType(safetensorsName: dtype.name.lowercased()) == nil)
    #expect(dtype.staticName.description == dtype.name)
  }

  @Test(arguments: ["", "F8_E4M3FN", "F128", "BF16 ", "float32"]) func unknownSafetensorsNameIsNoType(name: String) {
    #expect(DType(safetensorsName: name) == nil)
  }

  @Test(arguments: DType.allCases) func torchNameIsReadBackFromRecipes(dtype: DType) {
    if let name = dtype.torchName {
      #expect(DType(recipeName: name) == dtype)
      #expect(DType(recipeName: "torch." + name) == dtype)
    } else {
      #expect(!dtype.isFloat)
    }
  }

  @Test(arguments: [
    ("float", DType.f32), ("fp32", .f32), ("f32", .f32), ("double", .f64), ("fp64", .f64), ("f64", .f64), ("half", .f16),
    ("fp16", .f16), ("f16", .f16), ("bf16", .bf16), ("torch.half", .f16),
  ])
  func shortRecipeNamesAreKnown(name: String, dtype: DType) {
    #expect(DType(recipeName: name) == dtype)
  }

  @Test(arguments: ["", "torch.", "int8", "BF16", "torch.torch.half", "bfloat"]) func otherRecipeNamesAreNoType(name: String) {
    #expect(DType(recipeName: name) == nil)
  }
}
