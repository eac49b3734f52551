// ActivationStatistics: per channel, the mean of the rows of an array and the sum of their squared deviations from it.
//
//   mean = (1/n) sum_r x_r        deviations = sum_r (x_r - mean)^2
//   second moment = deviations / n + mean^2        unbiased variance = deviations / (n - 1)
//
// Shapes: [outer, channels, inner], where a row is a pair of outer and inner index: tokens [batch, token, channel] have inner 1,
// inputs of a convolution [batch, channel, height, width] have inner = height * width. Types: any float.
// Arithmetic: binary64. A block of 64 rows is measured in two passes: the mean from differences to the block's first row, then
// squares of differences to the mean, less what the mean's own rounding adds. Blocks are merged in the order of the rows:
//   delta = mean_b - mean_a;  mean = mean_a + delta n_b / n;  deviations = deviations_a + deviations_b + delta^2 n_a n_b / n
// A channel that is constant has its value as mean and exactly 0 deviations, and a channel's bits depend on the sequence of its
// values only, not on the other channels or on the axis they lie along.
// Rounding: with m merges, u = 2^-53 and k = |mean| / standard deviation, the relative error is below about 3 (66 + m) u for the
// second moment, which adds no terms of different sign, and (66 + m) u (1 + k) for the variance.
// NaN: spreads to its channel; callers refuse it before. Traffic: size bytes per element; scratch stays in the cache.
// Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician 37(3), 1983.

public enum ActivationStatistics {
  /// Rows measured at once: fixed, since it decides where sums are cut.
  public static let blockRows = 64
  /// Channels measured at once: a block of them in binary64 fills 64 KiB. No sum depends on it.
  private static let tileChannels = 128

  /// Bytes of scratch that `measure` uses.
  public static let workspaceBytes = (blockRows * tileChannels + 4 * tileChannels + blockRows) * 8

  /// An array as [outer, channels, inner].
  public struct Layout: Sendable, Equatable {
    public let outer: Int
    public let channels: Int
    public let inner: Int

    /// - Parameters:
    ///   - shape: row-major, at least one axis; the product of its sizes fits.
    ///   - channelAxis: an index of `shape`.
    public init(shape: [Int], channelAxis: Int) {
      outer = shape[..<channelAxis].reduce(1, *)
      channels = shape[channelAxis]
      inner = shape[(channelAxis + 1)...].reduce(1, *)
    }

    public var rows: Int { outer * inner }
  }

  /// Measure a whole array.
  /// - Parameters:
  ///   - source: `outer * channels * inner` elements of a float type, aligned.
  ///   - means: `channels` numbers, overwritten; so are `deviations`. Both are 0 for an array without rows.
  ///   - workspace: `workspaceBytes` bytes, aligned to 8.
  @inline(never)
  public static func measure(
    _ source: UnsafeRawPointer, _ dtype: DType, _ layout: Layout, means: UnsafeMutablePointer<Double>,
    deviations: UnsafeMutablePointer<Double>, workspace: UnsafeMutableRawPointer
  ) {
    means.update(repeating: 0, count: layout.channels)
    deviations.update(repeating: 0, count: layout.channels)
    let block = workspace.assumingMemoryBound(to: Double.self)
    let scratch = block + blockRows * tileChannels
    let blockMeans = scratch + tileChannels
    let blockDeviations = blockMeans + tileChannels
    for first in stride(from: 0, to: layout.rows, by: blockRows) {
      let rows = first..<min(first + blockRows, layout.rows)
      for start in stride(from: 0, to: layout.channels, by: tileChannels) {
        let channels = start..<min(start + tileChannels, layout.channels)
        gather(source, dtype, layout, rows, channels, into: block, line: blockDeviations + tileChannels)
        measure(block, rows: rows.count, channels: channels.count, blockMeans, blockDeviations, scratch)
        merge(
          means + start, deviations + start, rows: first, with: blockMeans, blockDeviations, rows: rows.count,
          channels: channels.count)
      }
    }
  }

  /// Add to the statistics of some rows those of others.
  /// - Parameters:
  ///   - means: of `channels` channels over `rows` rows, changed; so are `deviations`.
  ///   - otherMeans: over `otherRows` rows.
  public static func merge(
    _ means: UnsafeMutablePointer<Double>, _ deviations: UnsafeMutablePointer<Double>, rows: Int,
    with otherMeans: UnsafePointer<Double>, _ otherDeviations: UnsafePointer<Double>, rows otherRows: Int, channels: Int
  ) {
    guard otherRows > 0 else { return }
    guard rows > 0 else {
      means.update(from: otherMeans, count: channels)
      deviations.update(from: otherDeviations, count: channels)
      return
    }
    let share = Double(otherRows) / (Double(rows) + Double(otherRows))
    let weight = Double(rows) * share
    for c in 0..<channels {
      let delta = otherMeans[c] - means[c]
      means[c] += delta * share
      deviations[c] += otherDeviations[c] + delta * delta * weight
    }
  }

  /// Mean and squared deviations of each column of a block.
  private static func measure(
    _ block: UnsafePointer<Double>, rows: Int, channels: Int, _ means: UnsafeMutablePointer<Double>,
    _ deviations: UnsafeMutablePointer<Double>, _ sums: UnsafeMutablePointer<Double>
  ) {
    let count = Double(rows)
    sums.update(repeating: 0, count: channels)
    for r in 1..<max(rows, 1) {
      let row = block + r * tileChannels
      for c in 0..<channels { sums[c] += row[c] - block[c] }
    }
    for c in 0..<channels { means[c] = block[c] + sums[c] / count }
    sums.update(repeating: 0, count: channels)
    deviations.update(repeating: 0, count: channels)
    for r in 0..<rows {
      let row = block + r * tileChannels
      for c in 0..<channels {
        let difference = row[c] - means[c]
        sums[c] += difference
        deviations[c] += difference * difference
      }
    }
    // The differences would add up to 0 if the mean were exact.
    for c in 0..<channels {
      let corrected = deviations[c] - sums[c] * sums[c] / count
      deviations[c] = corrected < 0 ? 0 : corrected
    }
  }

  /// Some rows of some channels in binary64, a row of the block after another.
  private static func gather(
    _ source: UnsafeRawPointer, _ dtype: DType, _ layout: Layout, _ rows: Range<Int>, _ channels: Range<Int>,
    into block: UnsafeMutablePointer<Double>, line: UnsafeMutablePointer<Double>
  ) {
    if layout.inner == 1 {
      for (r, row) in rows.enumerated() {
        let start = source + (row * layout.channels + channels.lowerBound) * dtype.size
        Cast.convert(start, dtype, count: channels.count, into: block + r * tileChannels, .f64)
      }
      return
    }
    for (c, channel) in channels.enumerated() {
      var row = rows.lowerBound
      while row < rows.upperBound {
        let (outer, inner) = row.quotientAndRemainder(dividingBy: layout.inner)
        let run = min(layout.inner - inner, rows.upperBound - row)
        let start = source + ((outer * layout.channels + channel) * layout.inner + inner) * dtype.size
        Cast.convert(start, dtype, count: run, into: line, .f64)
        for k in 0..<run { block[(row - rows.lowerBound + k) * tileChannels + c] = line[k] }
        row += run
      }
    }
  }
}
