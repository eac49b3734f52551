import Platform
import TensorKernels

// RowGather: out[r, :] = a row, the mean of rows, or zeros, as a RowMap says
//
// Shapes: sources [h_k, columns] to [size, columns]. Types: that of the sources where all have one and no row is a mean, else
// binary64, so that nothing is rounded before the method's own arithmetic. Means: sums in binary64 in the order of the sources
// (padding: in the order of rows), one division. NaN: as they come.
// Traffic: each row read once per sweep; padding rows cost one more pass over the matrix, once per task.
// Memory: nothing that grows with the rows; one row of binary64 for the padding.

/// An embedding whose rows are gathered while they are read. Any number of threads may read from it.
public final class RowGather: @unchecked Sendable {
  // @unchecked: the padding row is guarded by the monitor; all else is immutable.
  let map: RowMap
  let columns: Int
  let dtype: DType
  /// By index of the plan's input.
  private let sources: [Int: TensorInput]
  private let monitor = Monitor()
  private var paddingRow: Result<[Double], Failure>?

  /// Elements that are converted at once.
  private static let piece = 4096

  init(_ map: RowMap, sources: [Int: TensorInput], columns: Int) {
    self.map = map
    self.sources = sources
    self.columns = columns
    let types = Set(map.inputs.map { sources[$0]!.dtype })
    dtype = types.count == 1 && !map.hasMeans ? types.first! : .f64
  }

  /// Put the elements `start` to `start + count` into `buffer`.
  func read(_ start: Int, _ count: Int, into buffer: UnsafeMutableRawPointer) throws(Failure) {
    let size = dtype.size
    var done = 0
    var position = map.segment(of: start / columns)
    while done < count {
      let segment = map.segments[position]
      let element = start + done
      let part = min(count - done, segment.end * columns - element)
      try read(segment, element, part, into: buffer + done * size)
      done += part
      position += 1
    }
  }

  /// Some elements of one segment.
  private func read(
    _ segment: RowMap.Segment, _ element: Int, _ count: Int, into target: UnsafeMutableRawPointer
  ) throws(Failure) {
    let offset = element - segment.first * columns
    switch segment.source {
    case .rows(let rows):
      try copy(rows, offset, count, into: target)
    case .zero:
      target.initializeMemory(as: UInt8.self, repeating: 0, count: count * dtype.size)
    case .mean(let list):
      let total = target.assumingMemoryBound(to: Double.self)
      total.update(repeating: 0, count: count)
      try withUnsafeTemporary(Self.piece) { (numbers) throws(Failure) in
        for rows in list {
          for start in stride(from: 0, to: count, by: Self.piece) {
            let part = min(Self.piece, count - start)
            try copy(rows, offset + start, part, into: numbers)
            for i in 0..<part { total[start + i] += numbers[i] }
          }
        }
      }
      for i in 0..<count { total[i] /= Double(list.count) }
    case .padding:
      let row = try padding()
      let out = target.assumingMemoryBound(to: Double.self)
      for i in 0..<count { out[i] = row[(element + i) % columns] }
    }
  }

  /// Elements of consecutive rows of a source, in this gather's type.
  private func copy(_ rows: RowMap.Rows, _ offset: Int, _ count: Int, into target: UnsafeMutableRawPointer) throws(Failure) {
    let source = sources[rows.input]!
    let start = rows.first * columns + offset
    if source.dtype == dtype {
      let found = try source.elements(start, count, buffer: target)
      if found != UnsafeRawPointer(target) { target.copyMemory(from: found, byteCount: count * dtype.size) }
      return
    }
    try withUnsafeTemporary(Self.piece) { (raw) throws(Failure) in
      for done in stride(from: 0, to: count, by: Self.piece) {
        let part = min(Self.piece, count - done)
        let found = try source.elements(start + done, part, buffer: raw)
        Cast.convert(found, source.dtype, count: part, into: target + done * dtype.size, dtype)
      }
    }
  }

  /// The mean of all rows before the padding, computed when it is first asked for, by one thread in the order of the rows.
  private func padding() throws(Failure) -> [Double] {
    let result = monitor.locked { () -> Result<[Double], Failure> in
      if let known = paddingRow { return known }
      let made = Result { () throws(Failure) in try meanOfRows() }
      paddingRow = made
      return made
    }
    return try result.get()
  }

  private func meanOfRows() throws(Failure) -> [Double] {
    var total = [Double](repeating: 0, count: columns)
    var rows = 0
    try withUnsafeTemporary(columns) { (row) throws(Failure) in
      for segment in map.segments where segment.source != .padding {
        for index in segment.first..<segment.end {
          try read(segment, index * columns, columns, into: row)
          for i in 0..<columns { total[i] += row[i] }
        }
        rows += segment.count
      }
    }
    return total.map { $0 / Double(rows) }
  }

  private func withUnsafeTemporary(
    _ count: Int, _ body: (UnsafeMutablePointer<Double>) throws(Failure) -> Void
  ) throws(Failure) {
    let memory = UnsafeMutablePointer<Double>.allocate(capacity: max(1, count))
    defer { memory.deallocate() }
    try body(memory)
  }

  // MARK: - Whole ranges of one source

  /// A range of elements that lie together in a source of the same type.
  private func single(_ range: Range<Int>) -> (source: TensorInput, range: Range<Int>)? {
    guard !range.isEmpty else { return nil }
    let segment = map.segments[map.segment(of: range.lowerBound / columns)]
    guard range.upperBound <= segment.end * columns, case .rows(let rows) = segment.source, let source = sources[rows.input],
      source.dtype == dtype
    else { return nil }
    let shift = (rows.first - segment.first) * columns
    return (source, range.lowerBound + shift..<range.upperBound + shift)
  }

  /// Without a copy, where the range is a stretch of one source.
  func window(_ range: Range<Int>) -> MappedWindow? { single(range).flatMap { $0.source.window($0.range) } }

  func prefetch(_ range: Range<Int>) {
    if let (source, range) = single(range) { source.prefetch(range) }
  }
}
