/// What the tensors of a correction are called: the tensor's name and one of these (docs/masks.md).
public enum CorrectionNames {
  /// Folder of the output.
  static let collection = "corrections"
  /// Factors [m, k] and [k, n], the bits of the mask, and the values where they are set.
  public static let parts = [".low_rank_left", ".low_rank_right", ".sparse_mask", ".sparse_values"]
  /// The whole difference, where a tensor is not decomposed.
  public static let difference = ".difference"
}
