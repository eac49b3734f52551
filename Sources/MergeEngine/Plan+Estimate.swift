// Expected time: bytes read and written, over a rate per worker.
//
// The rates are bytes per second of processor time that one worker moved, both measured warm (docs/performance.md, "What the plan
// expects"). They leave out waiting for a disk, so a merge from a slow one takes as long as the disk does. Spectral methods are not
// estimated: what they cost depends on the matrices' sizes far more than on their bytes.

extension Plan {
  private static let copyRate = 2.0e9
  private static let ratesByFamily = ["gram": 1.2e9, "elementwise": 0.45e9]
  private static let ratesByMethod = [
    "linear": 1.6e9, "passthrough": 1.5e9, "yoyo_fusion": 0.75e9, "sce": 0.9e9, "della": 0.35e9, "della_linear": 0.35e9,
  ]

  /// Bytes per second and worker at which tensors are merged; nil where that is not known.
  var rate: Double? {
    Self.ratesByMethod[recipe.schema.name] ?? Self.ratesByFamily[recipe.schema.family]
  }

  /// Seconds that the merge is expected to take; nil where that is not known.
  var expectedSeconds: Double? {
    guard let rate else { return nil }
    var (merged, copied) = (0.0, 0.0)
    for tensor in tensors {
      let bytes = zip(tensor.inputs, tensor.indices).reduce(tensor.shape.reduce(tensor.dtype.size, *)) {
        $0 + inputs[$1.0].checkpoint.tensors[$1.1].byteCount
      }
      if case .merge = tensor.action { merged += Double(bytes) } else { copied += Double(bytes) }
    }
    return (merged / rate + copied / Self.copyRate) / Double(max(1, threads))
  }
}
