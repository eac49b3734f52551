// Sums over task vectors: |d_i|_1 before and after the filter, for an L1 rescale, and |d_i|^2.
//
// Shapes, types and NaN rule: TaskVectors.swift. Accumulators: TaskVectorRow.swift. Traffic:
// (K + 1) * size bytes per element.

extension TaskVectors {
  /// Add |d_i|_1 of the raw task vectors to `sums[i]`, and of the filtered ones to `sums[K + i]`.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(never)
  public func addMagnitudes(_ block: TaskVectorBlock, to sums: UnsafeMutablePointer<Double>) -> Double {
    switch block.inputs.dtype {
    case .bf16: magnitudes(BF16Element.self, block, sums)
    case .f16: magnitudes(F16Element.self, block, sums)
    case .f32: magnitudes(F32Element.self, block, sums)
    case .f64: magnitudes(F64Element.self, block, sums)
    default: preconditionFailure("magnitude sums have no kernel for \(block.inputs.dtype)")
    }
  }

  @inline(__always)
  private func magnitudes<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, _ sums: UnsafeMutablePointer<Double>
  ) -> Double {
    let models = models
    return withRowFilters(Element.self, block) { filters in
      var poison = 0.0
      for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
        let chunk = TaskVectorChunk<Element>(block, offset: offset, models: models)
        for k in 0..<models { poison += filters[k].addMagnitudes(chunk, k, to: sums + k, kept: sums + models + k) }
      }
      return poison
    }
  }

  /// Add |d_i|^2 of the raw task vectors to `sums[i]`.
  /// - Returns: 0, or NaN if an input is not finite.
  @inline(__always)
  func addSquares<Element: KernelElement>(
    _: Element.Type, _ block: TaskVectorBlock, to sums: UnsafeMutablePointer<Double>
  ) -> Double {
    var poison = 0.0
    for offset in stride(from: 0, to: block.count, by: KernelGeometry.chunk) {
      let chunk = TaskVectorChunk<Element>(block, offset: offset, models: models)
      for k in 0..<models {
        let found = TaskVectorRow(chunk, k).squares()
        sums[k] += found.sum
        poison += found.poison
      }
    }
    return poison
  }
}
