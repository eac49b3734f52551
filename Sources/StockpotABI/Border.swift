import CStockpot
import Glibc
import JSON
import MergeEngine
import Platform
import TensorKernels

// The border: everything that comes from C is proved here before Swift relies on it, since a Swift trap ends the host's process.

/// Run `body`, and hand a failure to the caller: its code as the result, its sentence in `error`.
func attempt(_ error: UnsafeMutablePointer<sp_error>?, _ body: () throws(Failure) -> Void) -> sp_status {
  do throws(Failure) {
    try body()
    write(SP_OK, "", to: error)
    return SP_OK
  } catch let failure {
    write(failure.status.rawValue, failure.message, to: error)
    return failure.status.rawValue
  }
}

/// Fill a caller's error struct, as far as its struct_size reaches.
private func write(_ status: sp_status, _ message: String, to error: UnsafeMutablePointer<sp_error>?) {
  guard let error, error.pointee.struct_size >= 8 else { return }
  error.pointee.status = status
  let room = min(Int(error.pointee.struct_size), MemoryLayout<sp_error>.size) - 8
  guard room > 0 else { return }
  var bytes = Array(message.utf8.prefix(room - 1))
  if bytes.count < message.utf8.count {
    // Do not cut a character in half.
    while let last = bytes.last, last & 0xC0 == 0x80 { bytes.removeLast() }
    if let last = bytes.last, last >= 0xC0 { bytes.removeLast() }
  }
  bytes.append(0)
  bytes.withUnsafeBytes { (UnsafeMutableRawPointer(error) + 8).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
}

func need<Value>(_ value: Value?, _ name: String) throws(Failure) -> Value {
  guard let value else { throw Failure(.null, "\(name) is NULL") }
  return value
}

/// A C string that has to be there and to be UTF-8.
func text(_ pointer: UnsafePointer<CChar>?, _ name: String) throws(Failure) -> String {
  guard let string = String(validatingCString: try need(pointer, name)) else {
    throw Failure(.argument, "\(name) is not UTF-8")
  }
  return string
}

/// The members of a JSON object; none for NULL.
func jsonMembers(_ pointer: UnsafePointer<CChar>?, _ name: String) throws(Failure) -> [JSON.Member] {
  guard pointer != nil else { return [] }
  guard let members = try JSON.parse(Array(try text(pointer, name).utf8), source: name).members else {
    throw Failure(.format, "\(name) is not a JSON object")
  }
  return members
}

/// A count that fits in memory. size_t arrives as Int: values above PTRDIFF_MAX are negative.
func count(_ value: Int, _ range: ClosedRange<Int>, _ name: String) throws(Failure) -> Int {
  guard range.contains(value) else {
    throw Failure(
      .argument, "\(name) is \(UInt(bitPattern: value)), which is not between \(range.lowerBound) and \(range.upperBound)")
  }
  return value
}

/// The number of workers a caller asks for.
func workers(_ threads: Int32) throws(Failure) -> Int {
  guard (0...4096).contains(threads) else {
    throw Failure(.argument, "threads is \(threads), which is not between 0 and 4096")
  }
  return threads == 0 ? Machine.usableCPUs() : Int(threads)
}

/// A flag: 0 or 1.
func flag(_ value: UInt32, _ name: String) throws(Failure) -> Bool {
  guard value <= 1 else { throw Failure(.argument, "\(name) is \(value): give 0 or 1") }
  return value == 1
}

/// A pointer to numbers that has to be there and aligned.
func aligned<Pointer: _Pointer>(_ pointer: Pointer?, _ name: String) throws(Failure) -> Pointer {
  let proved = try need(pointer, name)
  guard Int(bitPattern: proved) % MemoryLayout<Pointer.Pointee>.alignment == 0 else {
    throw Failure(.alignment, "\(name) is not aligned to its element size: copy it into aligned memory")
  }
  return proved
}

/// The size that a struct may be read to, given the caller's struct_size; a longer one must end in zeros.
func readable(_ pointer: UnsafeRawPointer, _ size: UInt32, known: Int, _ name: String) throws(Failure) -> Int {
  guard size >= 4, size <= 65536 else {
    throw Failure(.argument, "struct_size of \(name) is \(size): set it to sizeof(\(name))")
  }
  let tail = Int(size) > known ? UnsafeRawBufferPointer(start: pointer + known, count: Int(size) - known) : nil
  guard tail?.allSatisfy({ $0 == 0 }) ?? true else {
    throw Failure(.argument, "\(name) has fields that this library does not know: use the header it came with")
  }
  return min(Int(size), known)
}

/// A view that has been proved: shape, count, type and alignment agree, and its bytes can be counted.
struct ProvedView {
  let data: UnsafeMutableRawPointer
  let dtype: DType
  let shape: [Int]
  let count: Int

  var byteCount: Int { count * dtype.size }
  var tensor: MemoryTensor { MemoryTensor(data: UnsafeRawPointer(data), dtype: dtype) }

  init(_ pointer: UnsafePointer<sp_view>?, _ name: String) throws(Failure) {
    let view = try need(pointer, name).pointee
    guard let dtype = DType(rawValue: view.dtype) else {
      throw Failure(.dtype, "\(name) has the unknown dtype code \(view.dtype)")
    }
    guard (0...8).contains(view.rank) else {
      throw Failure(.shape, "\(name) has rank \(view.rank), which is not between 0 and 8")
    }
    let sizes = withUnsafeBytes(of: view.shape) { Array($0.bindMemory(to: Int64.self)[..<Int(view.rank)]) }
    var product = 1
    for size in sizes {
      let (next, overflow) = product.multipliedReportingOverflow(by: Int(size))
      guard size >= 0, !overflow else { throw Failure(.shape, "\(name) has the impossible shape \(sizes)") }
      product = next
    }
    guard view.count >= 0, view.count == product else {
      throw Failure(.shape, "\(name) has count \(UInt(bitPattern: view.count)), but its shape \(sizes) has \(product) elements")
    }
    guard !view.count.multipliedReportingOverflow(by: 16).overflow else {
      throw Failure(.shape, "\(name) is larger than memory")
    }
    guard view.row_stride_bytes == 0, view.reserved == (0, 0) else {
      throw Failure(
        .argument, "\(name) has a row stride or reserved fields that are not 0: copy the data into contiguous memory")
    }
    guard view.data != nil || view.count == 0 else { throw Failure(.null, "\(name) has elements, but its data is NULL") }
    // An empty tensor may point anywhere; nothing is read there.
    data = view.count == 0 ? UnsafeMutableRawPointer(bitPattern: 64)! : view.data!
    guard Int(bitPattern: data) % dtype.size == 0 else {
      throw Failure(
        .alignment, "\(name) is not aligned to its element size of \(dtype.size) bytes: copy it into aligned memory")
    }
    guard !UInt(bitPattern: data).addingReportingOverflow(UInt(view.count * dtype.size)).overflow else {
      throw Failure(.argument, "\(name) reaches past the end of memory")
    }
    self.dtype = dtype
    shape = sizes.map(Int.init)
    count = view.count
  }

  func overlaps(_ other: ProvedView) -> Bool {
    guard count > 0, other.count > 0 else { return false }
    return data < other.data + other.byteCount && other.data < data + byteCount
  }

  func requireFloat(_ name: String) throws(Failure) {
    guard dtype.isFloat else { throw Failure(.dtype, "\(name) is \(dtype.name), which is not a float type") }
  }
}

/// `count` views in a row, all of one shape.
func views(_ pointer: UnsafePointer<sp_view>?, _ number: Int, _ name: String) throws(Failure) -> [ProvedView] {
  guard number > 0 else { return [] }
  let start = try need(pointer, name)
  guard Int(bitPattern: start) % MemoryLayout<sp_view>.alignment == 0 else {
    throw Failure(.alignment, "\(name) is not aligned for sp_view")
  }
  var proved: [ProvedView] = []
  for i in 0..<number {
    let view = try ProvedView(start + i, "\(name)[\(i)]")
    if let first = proved.first, first.shape != view.shape {
      throw Failure(.shape, "\(name)[\(i)] has shape \(view.shape), but \(name)[0] has \(first.shape): all must be equal")
    }
    proved.append(view)
  }
  return proved
}

func requireDisjoint(_ out: ProvedView, _ inputs: [ProvedView], _ name: String) throws(Failure) {
  if let i = inputs.firstIndex(where: { $0.overlaps(out) }) {
    throw Failure(.overlap, "out overlaps \(name)[\(i)]: give it memory of its own")
  }
}

/// A C string that lives as long as the process, one for each text.
struct StaticText: @unchecked Sendable {
  // @unchecked: the memory is written once, here, and never freed.
  let pointer: UnsafePointer<CChar>

  init(_ text: String) { pointer = UnsafePointer(strdup(text)!) }
}

/// A C string owned by a handle.
final class OwnedText {
  let pointer: UnsafePointer<CChar>
  /// By withCString: an argument that is a String would be copied on its way, and the text may have tens of megabytes.
  init(_ text: String) { pointer = text.withCString { UnsafePointer(strdup($0)!) } }
  deinit { free(UnsafeMutablePointer(mutating: pointer)) }
}

/// An object as a C handle, and back.
func handle(_ object: AnyObject) -> OpaquePointer { OpaquePointer(Unmanaged.passRetained(object).toOpaque()) }

func object<Object: AnyObject>(_ handle: OpaquePointer?, as type: Object.Type, _ name: String) throws(Failure) -> Object {
  Unmanaged<Object>.fromOpaque(UnsafeRawPointer(try need(handle, name))).takeUnretainedValue()
}

func release<Object: AnyObject>(_ handle: OpaquePointer?, as type: Object.Type) {
  if let handle { Unmanaged<Object>.fromOpaque(UnsafeRawPointer(handle)).release() }
}
