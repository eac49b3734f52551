import CStockpot
import Glibc
import JSON
import MergeEngine
import MergeMethods
import Platform
import TensorKernels

/// Zeros in the shape of a tensor, for a reference that is not there.
private final class Zeros {
  let data: UnsafeMutableRawPointer

  init(byteCount: Int) throws(Failure) {
    guard let zeros = calloc(max(1, byteCount), 1) else {
      throw Failure(.memory, "there is no memory for \(byteCount) bytes")
    }
    data = zeros
  }

  deinit { free(data) }
}

@_cdecl("sp_magnitude_threshold") @implementation
public func sp_magnitude_threshold(
  _ input: UnsafePointer<sp_view>!, _ reference: UnsafePointer<sp_view>!, _ rank: UInt64, _ threads: Int32,
  _ out_threshold: UnsafeMutablePointer<Double>!, _ out_above: UnsafeMutablePointer<UInt64>!,
  _ out_equal: UnsafeMutablePointer<UInt64>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let source = try ProvedView(input, "input")
    try source.requireFloat("input")
    let place = try aligned(out_threshold, "out_threshold")
    guard rank >= 1, rank <= UInt64(source.count) else {
      throw Failure(.argument, "rank is \(rank), which is not between 1 and the \(source.count) elements of input")
    }
    let zeros: Zeros?
    let center: MemoryTensor
    if reference == nil {
      zeros = try Zeros(byteCount: source.byteCount)
      center = MemoryTensor(data: zeros!.data, dtype: source.dtype)
    } else {
      zeros = nil
      let view = try ProvedView(reference, "reference")
      try view.requireFloat("reference")
      guard view.count == source.count else {
        throw Failure(.shape, "reference has \(view.count) elements, but input has \(source.count)")
      }
      center = view.tensor
    }
    let program = ThresholdProgram(rank: Int(rank))
    let inputs = [center, source.tensor]
    defer { withExtendedLifetime(zeros) {} }
    try MemoryMerge.run(
      program, inputs, into: nil, .f64, count: source.count, threads: try workers(threads), policy: .error,
      names: ["reference", "input"])
    guard let result = program.result else { return }
    place.pointee = result.threshold
    if let out_above { out_above.pointee = UInt64(result.above) }
    if let out_equal { out_equal.pointee = UInt64(result.equal) }
  }
}

/// The task vectors' arguments: models and base, all float, of one shape.
private func taskVectors(
  _ models: UnsafePointer<sp_view>!, _ model_count: Int, _ base: UnsafePointer<sp_view>!
) throws(Failure) -> (models: [ProvedView], base: ProvedView) {
  let inputs = try views(models, try count(model_count, 1...65536, "model_count"), "models")
  for (i, view) in inputs.enumerated() { try view.requireFloat("models[\(i)]") }
  let center = try ProvedView(base, "base")
  try center.requireFloat("base")
  guard center.shape == inputs[0].shape else {
    throw Failure(.shape, "base has shape \(center.shape), but models[0] has \(inputs[0].shape): all must be equal")
  }
  return (inputs, center)
}

@_cdecl("sp_elect_signs") @implementation
public func sp_elect_signs(
  _ models: UnsafePointer<sp_view>!, _ model_count: Int, _ base: UnsafePointer<sp_view>!, _ rule: UnsafePointer<CChar>!,
  _ zero_sign: UnsafePointer<CChar>!, _ threads: Int32, _ out: UnsafePointer<sp_view>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let (inputs, center) = try taskVectors(models, model_count, base)
    let name = try text(rule, "rule")
    guard let election = SignProgram.rules[name] else {
      throw Failure(.parameter, "rule is '\(name)': give one of \(SignProgram.rules.keys.sorted().joined(separator: ", "))")
    }
    let zero = try text(zero_sign, "zero_sign")
    guard SignProgram.zeroSigns.contains(zero) else {
      throw Failure(.parameter, "zero_sign is '\(zero)': give one of \(SignProgram.zeroSigns.joined(separator: ", "))")
    }
    let target = try ProvedView(out, "out")
    guard target.dtype == .i8 else { throw Failure(.dtype, "out is \(target.dtype.name), but signs are I8") }
    guard target.shape == center.shape else {
      throw Failure(.shape, "out has shape \(target.shape), but the models have \(center.shape)")
    }
    try requireDisjoint(target, inputs + [center], "models")
    let program = SignProgram(
      models: inputs.count, rule: election, zeroSign: zero, into: target.data.assumingMemoryBound(to: Int8.self))
    try MemoryMerge.run(
      program, [center.tensor] + inputs.map(\.tensor), into: nil, .f64, count: center.count, threads: try workers(threads),
      policy: .error, names: ["the base"] + inputs.indices.map { "models[\($0)]" })
  }
}

/// Spreads the bits of masks out into bytes of 0 and 1.
private final class MaskSink: ArtifactSink, @unchecked Sendable {
  // @unchecked: the caller's memory, of which every block writes its own part.
  private let masks: [UnsafeMutablePointer<UInt8>]
  private let elements: Int
  let dtype = DType.u8
  let failure: Failure? = nil

  init(_ masks: [UnsafeMutablePointer<UInt8>], elements: Int) {
    self.masks = masks
    self.elements = elements
  }

  func write(_ bytes: UnsafeRawPointer, count: Int, artifact index: Int, at offset: Int) {
    let bits = bytes.assumingMemoryBound(to: UInt8.self)
    let mask = masks[index] + 8 * offset
    let elements = min(8 * count, self.elements - 8 * offset)
    for byte in 0..<elements / 8 {
      // Bit j of the byte, left alone in byte j; adding 127 carries it to the top of that byte.
      let spread = UInt64(bits[byte]) &* 0x0101_0101_0101_0101 & 0x8040_2010_0804_0201
      let ones = (spread &+ 0x7F7F_7F7F_7F7F_7F7F) &>> 7 & 0x0101_0101_0101_0101
      UnsafeMutableRawPointer(mask + 8 * byte).storeBytes(of: ones.littleEndian, as: UInt64.self)
    }
    for element in elements & ~7..<elements { mask[element] = bits[element / 8] >> UInt8(element % 8) & 1 }
  }
}

@_cdecl("sp_tall_masks") @implementation
public func sp_tall_masks(
  _ models: UnsafePointer<sp_view>!, _ model_count: Int, _ base: UnsafePointer<sp_view>!,
  _ parameters_json: UnsafePointer<CChar>!, _ tensor_name: UnsafePointer<CChar>!, _ threads: Int32,
  _ out_masks: UnsafePointer<sp_view>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let (inputs, center) = try taskVectors(models, model_count, base)
    let masks = try views(out_masks, inputs.count, "out_masks")
    for (i, mask) in masks.enumerated() {
      guard mask.dtype == .bool else { throw Failure(.dtype, "out_masks[\(i)] is \(mask.dtype.name), but masks are BOOL") }
      guard mask.shape == center.shape else {
        throw Failure(.shape, "out_masks[\(i)] has shape \(mask.shape), but the models have \(center.shape)")
      }
      try requireDisjoint(mask, inputs + [center] + masks[..<i], "models")
    }
    let parameters = try jsonMembers(parameters_json, "parameters_json")
    let values = try Parameters(try Registry.method(named: "tall_mask").schema, parameters)
    let method = try Registry.make(try Registry.method(named: "tall_mask"), parameters)
    let sink = MaskSink(masks.map { $0.data.assumingMemoryBound(to: UInt8.self) }, elements: center.count)
    _ = try MemoryMerge(
      method, policy: values.choice("on_non_finite", as: NonFinitePolicy.self), threads: try workers(threads)
    ).run(
      models: inputs.map(\.tensor), base: center.tensor, into: nil, center.dtype, shape: center.shape,
      name: tensor_name == nil ? "" : try text(tensor_name, "tensor_name"), artifacts: sink)
  }
}

@_cdecl("sp_random_mask") @implementation
public func sp_random_mask(
  _ seed: UInt64, _ tensor_name: UnsafePointer<CChar>!, _ model: UInt32, _ keep: Double, _ start: UInt64, _ number: Int,
  _ out: UnsafeMutablePointer<UInt8>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let elements = try count(number, 0...Int.max, "count")
    guard keep >= 0, keep <= 1 else { throw Failure(.argument, "keep is \(keep), which is not between 0 and 1") }
    guard let first = Int(exactly: start), !first.addingReportingOverflow(elements).overflow else {
      throw Failure(.argument, "start is \(start), which is too large")
    }
    guard elements > 0 else { return }
    let place = try need(out, "out")
    let name = tensor_name == nil ? "" : try text(tensor_name, "tensor_name")
    RandomStream(seed: seed, name: name, model: Int(model)).mask(start: first, count: elements, keeping: keep, into: place)
  }
}
