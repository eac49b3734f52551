// Column pair: products of two vectors column by column, and their combination with coefficients of each column.
//
//   sums[3 j + (0, 1, 2)] += a_j², a_j b_j, b_j²;      out = x_0 + c_j a + d_j b = x_0 + (c_j + d_j) a + d_j (b - a)
//
// Shapes: inputs [rows, columns] in row order; a and b are the two models, or their differences from the base, input 0.
// Types: inputs F32 or F64, all the same; out the same type, or F64. Arithmetic: binary64, a column's products in the order of its
// rows; one rounding.
// Written about a, equal inputs come out bit for bit where c_j + d_j = 1. NaN: spreads to its column.
// Traffic: K * size bytes per element and sweep, 24 bytes of sums or 16 of coefficients per element from cache.

public struct ColumnPair: Sendable {
  let hasBase: Bool
  let columns: Int

  public init(hasBase: Bool, columns: Int) {
    self.hasBase = hasBase
    self.columns = columns
  }

  /// - Parameters:
  ///   - start: first element of the inputs, counted from the tensor's start.
  ///   - sums: three per column.
  public func addProducts(_ inputs: KernelInputs, count: Int, start: Int, to sums: UnsafeMutablePointer<Double>) {
    switch inputs.dtype {
    case .f32: products(Float.self, inputs, count, start, sums)
    case .f64: products(Double.self, inputs, count, start, sums)
    default: preconditionFailure("column products have no kernel for \(inputs.dtype)")
    }
  }

  @inline(__always)
  private func products<Element: BinaryFloatingPoint>(
    _: Element.Type, _ inputs: KernelInputs, _ count: Int, _ start: Int, _ sums: UnsafeMutablePointer<Double>
  ) {
    let rows = tables(Element.self, inputs)
    var column = start % columns
    for i in 0..<count {
      let base = hasBase ? Double(rows.base[i]) : 0
      let (a, b) = (Double(rows.a[i]) - base, Double(rows.b[i]) - base)
      let sum = sums + 3 * column
      sum[0] += a * a
      sum[1] += a * b
      sum[2] += b * b
      column += 1
      if column == columns { column = 0 }
    }
  }

  /// - Parameters:
  ///   - c: coefficient of the first vector, per column.
  ///   - d: coefficient of the second.
  ///   - output: `count` elements of `outputType`: the inputs' type, or F64.
  public func combine(
    _ inputs: KernelInputs, count: Int, start: Int, _ c: [Double], _ d: [Double], output: UnsafeMutableRawPointer,
    _ outputType: DType
  ) {
    switch (inputs.dtype, outputType) {
    case (.f32, .f32): combine(Float.self, Float.self, inputs, count, start, c, d, output)
    case (.f32, .f64): combine(Float.self, Double.self, inputs, count, start, c, d, output)
    case (.f64, .f64): combine(Double.self, Double.self, inputs, count, start, c, d, output)
    default: preconditionFailure("column combinations have no kernel from \(inputs.dtype) to \(outputType)")
    }
  }

  @inline(__always)
  private func combine<Element: BinaryFloatingPoint, Out: BinaryFloatingPoint>(
    _: Element.Type, _: Out.Type, _ inputs: KernelInputs, _ count: Int, _ start: Int, _ c: [Double], _ d: [Double],
    _ target: UnsafeMutableRawPointer
  ) {
    let rows = tables(Element.self, inputs)
    let output = target.assumingMemoryBound(to: Out.self)
    var column = start % columns
    for i in 0..<count {
      let (first, second) = (Double(rows.a[i]), Double(rows.b[i]))
      let total = c[column] + d[column]
      if hasBase {
        let base = Double(rows.base[i])
        // Subtracting what is left of the first difference keeps the sign of a zero.
        output[i] = Out(first - ((1 - total) * (first - base) - d[column] * (second - first)))
      } else {
        output[i] = Out(total * first - d[column] * (first - second))
      }
      column += 1
      if column == columns { column = 0 }
    }
  }

  @inline(__always)
  private func tables<Element>(
    _: Element.Type, _ inputs: KernelInputs
  ) -> (base: UnsafePointer<Element>, a: UnsafePointer<Element>, b: UnsafePointer<Element>) {
    let first = hasBase ? 1 : 0
    return (
      inputs.table[0].assumingMemoryBound(to: Element.self), inputs.table[first].assumingMemoryBound(to: Element.self),
      inputs.table[first + 1].assumingMemoryBound(to: Element.self)
    )
  }
}
