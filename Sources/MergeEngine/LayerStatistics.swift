import Checkpoints
import JSON
import Platform
import TensorKernels

/// Activation statistics of the layers of a model: for each parameter name, the rows seen and, per input channel, their mean and
/// squared deviations, from which both statistics follow.
///
/// Collections of different processes are merged; the result depends on how rows were divided by rounding only
/// (`ActivationStatistics`).
public final class LayerStatistics {
  /// What is read and saved.
  public enum Statistic: String, Sendable, CaseIterable {
    /// The mean of the squares.
    case secondMoment = "second_moment"
    /// Unbiased: divisor rows - 1. 0 where there is one row.
    case variance
  }

  /// All that is known of one layer.
  public struct Layer: Equatable, Sendable {
    /// At least 1.
    public internal(set) var rows: Int
    /// [channels].
    public internal(set) var means: [Double]
    /// [channels], sums of squares about the mean.
    public internal(set) var deviations: [Double]

    public var channels: Int { means.count }

    /// Can both statistics be computed in binary64?
    var isFinite: Bool { means.allSatisfy { ($0 * $0).isFinite } && deviations.allSatisfy(\.isFinite) }
  }

  /// Rows are counted in binary64 when statistics are merged, which is exact so far.
  private static let mostRows = 1 << 53

  public let statistic: Statistic
  /// In order of their bytes.
  public private(set) var names: [String] = []
  private var layers: [String: Layer] = [:]
  private var workspace: UnsafeMutableRawPointer

  public init(_ statistic: Statistic) {
    self.statistic = statistic
    workspace = .allocate(byteCount: ActivationStatistics.workspaceBytes, alignment: 64)
  }

  deinit { workspace.deallocate() }

  /// What is known of a layer; nil: nothing.
  public func layer(_ name: String) -> Layer? { layers[name] }

  /// Add the rows of an array to a layer. On failure nothing is added.
  /// - Parameters:
  ///   - name: of the parameter that the layer multiplies this input with.
  ///   - shape: row-major; all axes but the channels' are rows. An array without rows is checked, and adds nothing.
  ///   - channelAxis: from `-shape.count` up to `shape.count - 1`.
  /// - Throws: `.argument` for the name or the axis, `.dtype`, `.shape` for another number of channels than before, `.nonFinite`
  ///   for a NaN or infinity, or squares that leave the range of binary64.
  public func update(
    _ name: String, _ data: UnsafeRawPointer, _ dtype: DType, shape: [Int], channelAxis: Int
  ) throws(Failure) {
    guard dtype.isFloat else { throw Failure(.dtype, "'\(name)' is \(dtype.name), which is not a float type: convert it") }
    guard !shape.isEmpty else { throw Failure(.shape, "'\(name)' is a scalar: give an array with an axis of channels") }
    guard channelAxis >= -shape.count, channelAxis < shape.count else {
      throw Failure(.argument, "channel_axis is \(channelAxis), but '\(name)' has the \(shape.count) axes of \(shape)")
    }
    let layout = ActivationStatistics.Layout(
      shape: shape, channelAxis: channelAxis < 0 ? channelAxis + shape.count : channelAxis)
    try check(name, channels: layout.channels)
    guard layout.rows > 0 else { return }
    var layer = Layer(
      rows: layout.rows, means: [Double](repeating: 0, count: layout.channels),
      deviations: [Double](repeating: 0, count: layout.channels))
    layer.means.withUnsafeMutableBufferPointer { means in
      layer.deviations.withUnsafeMutableBufferPointer { deviations in
        ActivationStatistics.measure(
          data, dtype, layout, means: means.baseAddress!, deviations: deviations.baseAddress!, workspace: workspace)
      }
    }
    // A NaN or infinity spreads to its channel's mean, so the array is looked through only when something is wrong.
    if !layer.isFinite, let (index, total) = NonFinite.first(data, dtype, count: layout.rows * layout.channels) {
      throw Failure(
        .nonFinite,
        "'\(name)' holds \(total) NaN or infinite values, the first at element \(index) of \(shape): none of its rows was added; "
          + "leave this batch out")
    }
    put(name, try merged(name, layers[name], layer))
  }

  /// Add the state of a layer, as `layer` gave it in this process or another. A layer not yet known gets that state.
  /// - Throws: as `update`, and `.argument` for a number of rows that cannot be.
  public func add(_ name: String, rows: Int, means: [Double], deviations: [Double]) throws(Failure) {
    try check(name, channels: means.count)
    guard (1...Self.mostRows).contains(rows) else {
      throw Failure(.argument, "'\(name)' cannot have \(rows) rows: give 1 to \(Self.mostRows)")
    }
    guard means.allSatisfy(\.isFinite), deviations.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
      throw Failure(.nonFinite, "the state of '\(name)' holds a value that is not finite, or a sum of squares below 0")
    }
    put(name, try merged(name, layers[name], Layer(rows: rows, means: means, deviations: deviations)))
  }

  /// Add all layers of another collection. On failure nothing is added.
  /// - Throws: `.shape` for another number of channels, `.nonFinite` as `update`.
  public func merge(_ other: LayerStatistics) throws(Failure) {
    guard other !== self else { throw Failure(.argument, "statistics cannot be merged with themselves") }
    var results: [(name: String, layer: Layer)] = []
    for name in other.names {
      let layer = other.layers[name]!
      try check(name, channels: layer.channels)
      results.append((name, try merged(name, layers[name], layer)))
    }
    for (name, layer) in results { put(name, layer) }
  }

  /// The statistic of a layer's channels.
  public func values(_ layer: Layer) -> [Double] {
    let rows = Double(layer.rows)
    switch statistic {
    case .secondMoment: return zip(layer.means, layer.deviations).map { $1 / rows + $0 * $0 }
    case .variance: return layer.deviations.map { layer.rows > 1 ? $0 / (rows - 1) : 0 }
    }
  }

  /// Write the statistic as one safetensors file, name to [channels] F32.
  ///
  /// `__metadata__` has format "stockpot.layer_statistics", version "1", statistic, and counts: a JSON object of the rows per name.
  /// - Throws: `.argument` for a path that does not end in ".safetensors" or an empty collection, `.nonFinite` for a value above
  ///   the range of F32, and what `CheckpointWriter` throws.
  public func save(_ path: String, overwrite: Bool) throws(Failure) {
    guard path.hasSuffix(".safetensors") else {
      throw Failure(.argument, "'\(path)' does not end in .safetensors: statistics are saved as one such file")
    }
    guard !names.isEmpty else { throw Failure(.argument, "there are no statistics to save: no layer has been updated") }
    var rounded: [Float] = []
    var places: [(name: String, values: Range<Int>)] = []
    for name in names {
      let start = rounded.count
      rounded += values(layers[name]!).map { Float($0) }
      if let bad = rounded[start...].firstIndex(where: { !$0.isFinite }) {
        throw Failure(
          .nonFinite, "the statistic of '\(name)' is above the range of F32 in channel \(bad - start): nothing was saved")
      }
      places.append((name, start..<rounded.count))
    }
    let counts = JSON.object(names.map { .init(key: $0, value: .int(layers[$0]!.rows)) }).serialized(indent: 0)
    let metadata = [
      (key: "format", value: "stockpot.layer_statistics"), (key: "version", value: "1"),
      (key: "statistic", value: statistic.rawValue), (key: "counts", value: counts),
    ]
    let result = rounded.withUnsafeBufferPointer { all in
      Result { () throws(Failure) in
        try CheckpointWriter.save(
          places.map { .init(name: $0, dtype: .f32, shape: [$1.count], data: all.baseAddress! + $1.lowerBound) }, to: path,
          metadata: metadata, overwrite: overwrite)
      }
    }
    try result.get()
  }

  /// A name that a file can hold, and the number of channels it had before.
  private func check(_ name: String, channels: Int) throws(Failure) {
    guard !name.isEmpty, name != "__metadata__" else {
      throw Failure(.argument, "a layer cannot be called '\(name)': give the name of its parameter")
    }
    guard channels > 0 else { throw Failure(.shape, "'\(name)' has no channels") }
    guard let place = layers.index(forKey: name) else { return }
    let (known, layer) = layers[place]
    // Swift takes strings for equal that differ in how they spell an accent; files do not.
    guard known.utf8.elementsEqual(name.utf8) else {
      throw Failure(.argument, "two layers are called '\(name)', in different bytes: rename one")
    }
    guard layer.channels == channels else {
      throw Failure(.shape, "'\(name)' has \(channels) channels, but had \(layer.channels) before")
    }
  }

  private func merged(_ name: String, _ first: Layer?, _ second: Layer) throws(Failure) -> Layer {
    var result = first ?? Layer(rows: 0, means: second.means, deviations: second.deviations)
    guard second.rows <= Self.mostRows - result.rows else {
      throw Failure(.argument, "'\(name)' would have more than \(Self.mostRows) rows")
    }
    let rows = result.rows
    result.means.withUnsafeMutableBufferPointer { means in
      result.deviations.withUnsafeMutableBufferPointer { deviations in
        ActivationStatistics.merge(
          means.baseAddress!, deviations.baseAddress!, rows: rows, with: second.means, second.deviations, rows: second.rows,
          channels: second.channels)
      }
    }
    result.rows += second.rows
    // Of F64 only: squares of the other types stay far within binary64.
    guard result.isFinite else {
      throw Failure(.nonFinite, "'\(name)' has values whose squares leave the range of binary64: none of its rows was added")
    }
    return result
  }

  private func put(_ name: String, _ layer: Layer) {
    if layers.updateValue(layer, forKey: name) == nil {
      let place = names.firstIndex { name.utf8.lexicographicallyPrecedes($0.utf8) } ?? names.endIndex
      names.insert(name, at: place)
    }
  }
}
