// Expected time: bytes read and written, over a rate per worker.
//
// The rates are bytes per second of processor time that one worker moved, both measured warm (docs/performance.md, "What the plan
// expects"), times the speed of this machine next to that one. They leave out waiting for a disk, so a merge from a slow one takes as
// long as the disk does. Spectral methods are not estimated: what they cost depends on the matrices' sizes far more than on their bytes.

extension Plan {
  /// In GB.
  private static let copyRate = 4.3
  private static let rates = [
    "linear": 9.6, "task_arithmetic": 10.3, "slerp": 6.1, "nuslerp": 6.2, "multislerp": 6.8, "karcher": 6.5,
    "passthrough": 6.4, "model_stock": 6.8, "yoyo_scale": 6.7, "geometric_median": 6.6, "yoyo_fusion": 4.2, "ties": 4.0,
    "breadcrumbs": 3.1, "breadcrumbs_ties": 2.9, "ties_soup": 4.5, "dare_linear": 3.7, "dare_ties": 3.5, "della_linear": 1.1,
    "della": 1.2, "sce": 4.3, "nearswap": 6.6, "arcee_fusion": 0.51, "ram": 4.5, "ramplus_tl": 3.0, "tsd": 3.2, "tsd_v2": 2.2,
    "tgmd": 3.3, "magnitude_prune": 2.6, "magmax": 5.4, "tall_mask": 4.1, "consensus_ta": 4.7, "consensus_ties": 2.3,
  ]

  /// Bytes per second and worker at which tensors are merged here; nil where that is not known.
  var rate: Double? {
    Self.rates[recipe.schema.name].map { $0 * 1e9 * MachineSpeed.factor }
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
    return (merged / rate + copied / (Self.copyRate * 1e9 * MachineSpeed.factor)) / Double(max(1, threads))
  }
}
