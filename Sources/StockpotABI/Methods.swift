import CStockpot
import JSON
import MergeEngine
import MergeMethods
import Platform
import TensorKernels

private let names = Registry.methods.map { StaticText($0.schema.name) }
private let schemas = Registry.methods.map { StaticText($0.schema.json.serialized(indent: 0)) }

/// What an sp_method points to.
private final class MethodHandle {
  let method: any MergeMethod
  let policy: NonFinitePolicy
  let equalInputs: EqualInputs
  var report = OwnedText("{}")

  init(_ name: String, _ parameters: [JSON.Member]) throws(Failure) {
    let type = try Registry.method(named: name)
    let values = try Parameters(type.schema, parameters)
    method = try type.init(values)
    policy = values.choice("on_non_finite", as: NonFinitePolicy.self)
    equalInputs = type.ofEqualInputs(values)
  }
}

@_cdecl("sp_method_count") @implementation
public func sp_method_count() -> Int { names.count }

@_cdecl("sp_method_name") @implementation
public func sp_method_name(_ index: Int) -> UnsafePointer<CChar>! { names.indices.contains(index) ? names[index].pointer : nil }

@_cdecl("sp_method_schema") @implementation
public func sp_method_schema(_ name: UnsafePointer<CChar>!) -> UnsafePointer<CChar>! {
  guard let name, let index = Registry.methods.firstIndex(where: { $0.schema.name == String(cString: name) }) else {
    return nil
  }
  return schemas[index].pointer
}

@_cdecl("sp_method_create") @implementation
public func sp_method_create(
  _ name: UnsafePointer<CChar>!, _ parameters_json: UnsafePointer<CChar>!, _ out: UnsafeMutablePointer<OpaquePointer?>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  out?.pointee = nil
  return attempt(error) { () throws(Failure) in
    let place = try need(out, "out")
    place.pointee = handle(try MethodHandle(try text(name, "name"), try jsonMembers(parameters_json, "parameters_json")))
  }
}

@_cdecl("sp_method_merge") @implementation
public func sp_method_merge(
  _ method: OpaquePointer!, _ models: UnsafePointer<sp_view>!, _ model_count: Int, _ base: UnsafePointer<sp_view>!,
  _ tensor_name: UnsafePointer<CChar>!, _ threads: Int32, _ out: UnsafePointer<sp_view>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let merger = try object(method, as: MethodHandle.self, "method")
    let inputs = try views(models, try count(model_count, 1...65536, "model_count"), "models")
    let center = base == nil ? nil : try ProvedView(base, "base")
    let target = try ProvedView(out, "out")
    let name = tensor_name == nil ? "" : try text(tensor_name, "tensor_name")
    guard center == nil || center!.shape == inputs[0].shape, target.shape == inputs[0].shape else {
      throw Failure(.shape, "'\(name)': base and out must have the shape of the models, \(inputs[0].shape)")
    }
    try requireDisjoint(target, inputs + (center.map { [$0] } ?? []), "models")
    let decision = try MemoryMerge(
      merger.method, policy: merger.policy, equalInputs: merger.equalInputs, threads: try workers(threads)
    ).run(
      models: inputs.map(\.tensor), base: center?.tensor, into: target.data, target.dtype, shape: target.shape, name: name)
    let warnings = JSON.Member(key: "warnings", value: .array(decision.warnings.map { .string($0) }))
    merger.report = OwnedText(JSON.object(decision.entries + [warnings]).serialized(indent: 0))
  }
}

@_cdecl("sp_method_report_json") @implementation
public func sp_method_report_json(_ method: OpaquePointer!) -> UnsafePointer<CChar>! {
  (try? object(method, as: MethodHandle.self, "method"))?.report.pointer
}

@_cdecl("sp_method_free") @implementation
public func sp_method_free(_ method: OpaquePointer!) { release(method, as: MethodHandle.self) }
