// Gram: G_ij += <x_i - x_r, x_j - x_r> over a block, the Gram matrix of differences from one input.
//
// Shapes: K inputs [n]; the upper triangle of the rows chosen, as `RowPairs` orders it. With `crossTerms`, row 0 is x_r itself
// and row k the difference of the k-th other input, so that norms and angles of the raw vectors follow without cancellation:
// <x_i, x_j> = <r, r> + <r, d_i> + <r, d_j> + <d_i, d_j>. With no reference the rows are the inputs themselves.
// Types: inputs F32, F64, F16 or BF16, all the same. Arithmetic: differences and products in binary32 for 16-bit types, summed
// in 16 lanes for at most 64 additions each, then in binary64; everything in binary64 for F32 and F64. A difference of two
// BF16 is exact when their exponents differ by at most 16.
// Order: chunks of 1024 elements from the block's start, which must be a multiple of 1024 in its tensor.
// NaN: spreads to the sums of its row. Traffic: K * size bytes per element.

public enum Gram {
  /// Add one block's products to `sums`.
  /// - Parameters:
  ///   - reference: index of x_r, or nil for none. It gets no row, unless `crossTerms`, when it is row 0.
  ///   - pairs: which products, of rows numbered in the order of the inputs.
  ///   - sums: one binary64 per pair.
  ///   - workspace: `KernelGeometry.workspaceBytes(rows: K)` bytes.
  @inline(never)
  public static func accumulate(
    _ inputs: KernelInputs, from: Int = 0, count: Int, reference: Int?, crossTerms: Bool, pairs: RowPairs,
    sums: UnsafeMutablePointer<Double>, workspace: UnsafeMutableRawPointer
  ) {
    switch inputs.dtype {
    case .bf16: gram(BF16Element.self, inputs, from, count, reference, crossTerms, pairs, sums, workspace)
    case .f16: gram(F16Element.self, inputs, from, count, reference, crossTerms, pairs, sums, workspace)
    case .f32: gram(F32Element.self, inputs, from, count, reference, crossTerms, pairs, sums, workspace)
    case .f64: gram(F64Element.self, inputs, from, count, reference, crossTerms, pairs, sums, workspace)
    default: preconditionFailure("gram has no kernel for \(inputs.dtype)")
    }
  }

  @inline(__always)
  private static func gram<Element: KernelElement>(
    _: Element.Type, _ inputs: KernelInputs, _ from: Int, _ count: Int, _ reference: Int?, _ crossTerms: Bool,
    _ pairs: RowPairs, _ sums: UnsafeMutablePointer<Double>, _ workspace: UnsafeMutableRawPointer
  ) {
    let rows = Rows<Element.Arithmetic>(workspace)
    rows.addProducts(pairs, count: count, to: sums) { start, length in
      var row = 0
      if crossTerms, let reference {
        rows.fill(row, Element.self, inputs, reference, from: from + start, count: length)
        row += 1
      }
      for k in 0..<inputs.count where k != reference {
        if let reference {
          rows.fill(row, Element.self, inputs, k, minus: reference, from: from + start, count: length)
        } else {
          rows.fill(row, Element.self, inputs, k, from: from + start, count: length)
        }
        row += 1
      }
    }
  }
}
