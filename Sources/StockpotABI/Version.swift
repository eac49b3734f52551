import CJansson
import CStockpot
import JSON
import LinearAlgebra
import MergeEngine
import MergeMethods
import Platform
import TensorKernels

private let version = StaticText(LibraryVersion.string)

private let build = StaticText(
  JSON.object([
    .init(key: "version", value: .string(LibraryVersion.string)), .init(key: "abi", value: .int(Int(SP_ABI_VERSION))),
    .init(key: "target", value: .string(targetName)), .init(key: "openblas", value: .string(OpenBLAS.version)),
    .init(key: "openblas_core", value: .string(OpenBLAS.core)), .init(key: "jansson", value: .string(JANSSON_VERSION)),
  ]).serialized(indent: 0))

private var targetName: String {
  #if arch(x86_64)
    "x86_64-v3-linux"
  #elseif arch(arm64)
    "aarch64-linux"
  #else
    "linux"
  #endif
}

private let statusNames: [sp_status: StaticText] = [
  SP_OK: StaticText("SP_OK"), SP_E_ARGUMENT: StaticText("SP_E_ARGUMENT"), SP_E_NULL: StaticText("SP_E_NULL"),
  SP_E_ALIGNMENT: StaticText("SP_E_ALIGNMENT"), SP_E_OVERLAP: StaticText("SP_E_OVERLAP"), SP_E_SHAPE: StaticText("SP_E_SHAPE"),
  SP_E_DTYPE: StaticText("SP_E_DTYPE"), SP_E_MISSING_TENSOR: StaticText("SP_E_MISSING_TENSOR"),
  SP_E_FILE: StaticText("SP_E_FILE"), SP_E_NOT_FOUND: StaticText("SP_E_NOT_FOUND"), SP_E_EXISTS: StaticText("SP_E_EXISTS"),
  SP_E_FORMAT: StaticText("SP_E_FORMAT"), SP_E_QUANTIZED: StaticText("SP_E_QUANTIZED"), SP_E_RECIPE: StaticText("SP_E_RECIPE"),
  SP_E_METHOD: StaticText("SP_E_METHOD"), SP_E_PARAMETER: StaticText("SP_E_PARAMETER"),
  SP_E_NON_FINITE: StaticText("SP_E_NON_FINITE"), SP_E_MEMORY: StaticText("SP_E_MEMORY"),
  SP_E_CANCELLED: StaticText("SP_E_CANCELLED"), SP_E_INTERNAL: StaticText("SP_E_INTERNAL"),
]
private let unknownStatus = StaticText("SP_UNKNOWN")

private let dtypeNames = [DType: StaticText](uniqueKeysWithValues: DType.allCases.map { ($0, StaticText($0.name)) })

@_cdecl("sp_version_string") @implementation
public func sp_version_string() -> UnsafePointer<CChar>! { version.pointer }

@_cdecl("sp_abi_version") @implementation
public func sp_abi_version() -> Int32 { Int32(SP_ABI_VERSION) }

@_cdecl("sp_struct_size") @implementation
public func sp_struct_size(_ name: UnsafePointer<CChar>!) -> Int {
  switch name.map({ String(cString: $0) }) {
  case "sp_error": MemoryLayout<sp_error>.stride
  case "sp_view": MemoryLayout<sp_view>.stride
  case "sp_tensor_info": MemoryLayout<sp_tensor_info>.stride
  case "sp_job_options": MemoryLayout<sp_job_options>.stride
  case "sp_progress": MemoryLayout<sp_progress>.stride
  default: 0
  }
}

@_cdecl("sp_build_json") @implementation
public func sp_build_json() -> UnsafePointer<CChar>! { build.pointer }

@_cdecl("sp_status_name") @implementation
public func sp_status_name(_ status: sp_status) -> UnsafePointer<CChar>! { (statusNames[status] ?? unknownStatus).pointer }

@_cdecl("sp_dtype_name") @implementation
public func sp_dtype_name(_ dtype: sp_dtype) -> UnsafePointer<CChar>! {
  DType(rawValue: dtype).flatMap { dtypeNames[$0]?.pointer }
}

@_cdecl("sp_dtype_size") @implementation
public func sp_dtype_size(_ dtype: sp_dtype) -> Int { DType(rawValue: dtype)?.size ?? 0 }
