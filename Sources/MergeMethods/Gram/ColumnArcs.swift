import JSON
import Platform
import TensorKernels

// NuSLERP of the slices along the first axis: column j of the matrix [rows, columns] is a vector of its own.
//
// Sweep 1 adds <a, a>, <a, b> and <b, b> of every column up, sweep 2 writes. The tensor is cut into at most 32 stretches of whole
// rows, since each has three sums per column: 24 bytes per column and stretch, counted in scratchBytes.

final class ColumnArcs: Sendable {
  private let tensor: TensorContext
  private let t: Double
  private let floor: Double
  private let columns: Int

  init(_ tensor: TensorContext, t: Double, floor: Double) {
    self.tensor = tensor
    self.t = t
    self.floor = floor
    columns = Self.columns(tensor)
  }

  private static func columns(_ tensor: TensorContext) -> Int { max(1, tensor.shape.dropFirst().reduce(1, *)) }

  /// Stretches of whole rows: a number that depends on the shape alone, so that sums are always cut in the same places.
  private static func ranges(_ tensor: TensorContext) -> [Range<Int>] {
    let columns = columns(tensor)
    let rows = tensor.count / columns
    let pieces = max(1, min(32, rows, (1 << 20) / columns))
    let height = max(1, (rows + pieces - 1) / pieces)
    return stride(from: 0, to: max(1, rows), by: height).map { $0 * columns..<min(rows, $0 + height) * columns }
  }

  static func scratchBytes(_ tensor: TensorContext) -> Int { (ranges(tensor).count * 3 + 5) * columns(tensor) * 8 }

  static func entries(_ t: Double, linear: Int, slices: Int) -> [JSON.Member] {
    [
      .init(key: "t", value: .double(t)), .init(key: "linear", value: .int(linear)), .init(key: "slices", value: .int(slices)),
    ]
  }

  func begin() -> Step {
    let columns = self.columns
    let pair = ColumnPair(hasBase: tensor.hasBase, columns: columns)
    var sweep = Sweep(sums: 3 * columns, writes: false) { block in
      pair.addProducts(block.inputs, count: block.count, start: block.start, to: block.sums)
    } next: { sums in
      self.write(pair, sums)
    }
    // In binary64 no product of single precision numbers leaves the range.
    sweep.wide = true
    sweep.ranges = Self.ranges(tensor)
    return .sweep(sweep)
  }

  private func write(_ pair: ColumnPair, _ sums: [Double]) -> Step {
    var a: [Double] = []
    var b: [Double] = []
    var linear = 0
    for j in 0..<columns {
      let arc = SphereArc(
        t: t, squareA: sums[3 * j], squareB: sums[3 * j + 2], product: sums[3 * j + 1], elements: tensor.shape[0], floor: floor)
      a.append(arc.isLinear ? 1 - t : arc.a)
      b.append(arc.b)
      linear += arc.isLinear ? 1 : 0
    }
    let entries = Self.entries(t, linear: linear, slices: columns)
    var sweep = Sweep(sums: 0, writes: true) { block in
      pair.combine(
        block.inputs, count: block.count, start: block.start, a, b, output: block.output!, block.outputType)
    } next: { _ in
      .finish(Decision(entries))
    }
    sweep.wide = true
    return .sweep(sweep)
  }
}
