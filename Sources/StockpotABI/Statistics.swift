import CStockpot
import MergeEngine
import Platform
import TensorKernels

/// What an sp_statistics points to: the collection, and the names that C has asked for.
private final class StatisticsHandle {
  let statistics: LayerStatistics
  var names: [String: OwnedText] = [:]

  init(_ statistic: LayerStatistics.Statistic) { statistics = LayerStatistics(statistic) }

  func layer(_ index: Int) throws(Failure) -> LayerStatistics.Layer {
    guard statistics.names.indices.contains(index), let layer = statistics.layer(statistics.names[index]) else {
      throw Failure(
        .argument, "there are \(statistics.names.count) layers and none with index \(UInt(bitPattern: index))")
    }
    return layer
  }
}

private func collection(_ handle: OpaquePointer?, _ name: String = "statistics") throws(Failure) -> StatisticsHandle {
  try object(handle, as: StatisticsHandle.self, name)
}

@_cdecl("sp_statistics_create") @implementation
public func sp_statistics_create(
  _ statistic: UnsafePointer<CChar>!, _ out: UnsafeMutablePointer<OpaquePointer?>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  out?.pointee = nil
  return attempt(error) { () throws(Failure) in
    let place = try need(out, "out")
    let name = statistic == nil ? LayerStatistics.Statistic.secondMoment.rawValue : try text(statistic, "statistic")
    guard let kind = LayerStatistics.Statistic(rawValue: name) else {
      let known = LayerStatistics.Statistic.allCases.map(\.rawValue).joined(separator: " or ")
      throw Failure(.parameter, "there is no statistic '\(name)': give \(known)")
    }
    place.pointee = handle(StatisticsHandle(kind))
  }
}

@_cdecl("sp_statistics_update") @implementation
public func sp_statistics_update(
  _ statistics: OpaquePointer!, _ name: UnsafePointer<CChar>!, _ view: UnsafePointer<sp_view>!, _ channel_axis: Int32,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let collected = try collection(statistics).statistics
    let layer = try text(name, "name")
    let array = try ProvedView(view, "'\(layer)'")
    try collected.update(layer, array.data, array.dtype, shape: array.shape, channelAxis: Int(channel_axis))
  }
}

@_cdecl("sp_statistics_merge") @implementation
public func sp_statistics_merge(
  _ statistics: OpaquePointer!, _ from: OpaquePointer!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    try collection(statistics).statistics.merge(try collection(from, "from").statistics)
  }
}

@_cdecl("sp_statistics_count") @implementation
public func sp_statistics_count(_ statistics: OpaquePointer!) -> Int {
  (try? collection(statistics))?.statistics.names.count ?? 0
}

@_cdecl("sp_statistics_name") @implementation
public func sp_statistics_name(_ statistics: OpaquePointer!, _ index: Int) -> UnsafePointer<CChar>! {
  guard let held = try? collection(statistics), held.statistics.names.indices.contains(index) else { return nil }
  let name = held.statistics.names[index]
  if let known = held.names[name] { return known.pointer }
  let made = OwnedText(name)
  held.names[name] = made
  return made.pointer
}

@_cdecl("sp_statistics_layer") @implementation
public func sp_statistics_layer(
  _ statistics: OpaquePointer!, _ index: Int, _ out_channels: UnsafeMutablePointer<Int>!,
  _ out_rows: UnsafeMutablePointer<UInt64>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let layer = try collection(statistics).layer(index)
    if out_channels != nil { try aligned(out_channels, "out_channels").pointee = layer.channels }
    if out_rows != nil { try aligned(out_rows, "out_rows").pointee = UInt64(layer.rows) }
  }
}

@_cdecl("sp_statistics_read") @implementation
public func sp_statistics_read(
  _ statistics: OpaquePointer!, _ index: Int, _ out: UnsafePointer<sp_view>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let held = try collection(statistics)
    let layer = try held.layer(index)
    let target = try ProvedView(out, "out")
    try target.requireFloat("out")
    guard target.shape == [layer.channels] else {
      throw Failure(.shape, "out has shape \(target.shape), but '\(held.statistics.names[index])' is [\(layer.channels)]")
    }
    Cast.narrow(held.statistics.values(layer), count: layer.channels, into: target.data, target.dtype)
  }
}

@_cdecl("sp_statistics_state") @implementation
public func sp_statistics_state(
  _ statistics: OpaquePointer!, _ index: Int, _ out_means: UnsafeMutablePointer<Double>!,
  _ out_deviations: UnsafeMutablePointer<Double>!, _ channels: Int, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let layer = try collection(statistics).layer(index)
    let means = try aligned(out_means, "out_means")
    let deviations = try aligned(out_deviations, "out_deviations")
    guard channels == layer.channels else {
      throw Failure(.shape, "channels is \(UInt(bitPattern: channels)), but the layer has \(layer.channels)")
    }
    guard (Int(bitPattern: means) - Int(bitPattern: deviations)).magnitude >= UInt(channels * 8) else {
      throw Failure(.overlap, "out_means overlaps out_deviations: give each memory of its own")
    }
    means.update(from: layer.means, count: channels)
    deviations.update(from: layer.deviations, count: channels)
  }
}

@_cdecl("sp_statistics_add_state") @implementation
public func sp_statistics_add_state(
  _ statistics: OpaquePointer!, _ name: UnsafePointer<CChar>!, _ rows: UInt64, _ means: UnsafePointer<Double>!,
  _ deviations: UnsafePointer<Double>!, _ channels: Int, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let collected = try collection(statistics).statistics
    let layer = try text(name, "name")
    let size = try count(channels, 1...Int(Int32.max), "channels")
    let firsts = UnsafeBufferPointer(start: try aligned(means, "means"), count: size)
    let seconds = UnsafeBufferPointer(start: try aligned(deviations, "deviations"), count: size)
    guard let number = Int(exactly: rows) else { throw Failure(.argument, "rows is \(rows), which is too large") }
    try collected.add(layer, rows: number, means: Array(firsts), deviations: Array(seconds))
  }
}

@_cdecl("sp_statistics_save") @implementation
public func sp_statistics_save(
  _ statistics: OpaquePointer!, _ path: UnsafePointer<CChar>!, _ overwrite: UInt32, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let collected = try collection(statistics).statistics
    try collected.save(try text(path, "path"), overwrite: try flag(overwrite, "overwrite"))
  }
}

@_cdecl("sp_statistics_free") @implementation
public func sp_statistics_free(_ statistics: OpaquePointer!) { release(statistics, as: StatisticsHandle.self) }
