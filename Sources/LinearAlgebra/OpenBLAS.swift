import COpenBLAS
import COpenBLASLock

/// OpenBLAS as this library uses it.
public enum OpenBLAS {
  private static let oneThread: Void = openblas_set_num_threads(1)

  /// Run `body`, a call of it: always on one thread, because its bits depend on the number, and the parallelism is ours.
  static func call<Value>(_ body: () -> Value) -> Value {
    _ = oneThread
    return body()
  }

  /// May several threads call it at once? Only as the Makefile links it (COpenBLASLock).
  public static var isLocked: Bool { stockpot_openblas_is_locked() != 0 }

  /// "OpenBLAS 0.3.21 ...".
  public static var version: String { String(cString: openblas_get_config()) }

  /// The CPU kernels it chose, "Haswell".
  public static var core: String { String(cString: openblas_get_corename()) }
}
