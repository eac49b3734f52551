import Synchronization

// What a random drop has kept, one bit per element, so that only the first sweep over a tensor computes random words.
//
// Layout: a chunk of 1024 elements has four vectors of eight 32-bit words; bit b of word l of vector g stands for lane l of the row's
// vector 32 g + b. So a vector of masks is one shift away, and one more vector is added with one `or`. Rows hold elements in an
// order of their type's own (Lanes.swift): a mask that was written from one kind is only read from the same kind.

/// The kept elements of one model's tensor. Written by the first sweep over all of it, each chunk by one worker, and read by the later ones.
public final class DropMask: @unchecked Sendable {
  // @unchecked: each chunk is written by the worker that has it, and read when all are done.
  private let bits: UnsafeMutablePointer<SIMD8<Int32>>
  /// Vectors of a chunk.
  static let vectors = 4
  private let isPaired = Atomic<Bool>(false)
  /// Has a sweep written all of it?
  private(set) var isComplete = false

  public init(elements: Int) { bits = .allocate(capacity: max(1, Self.chunks(elements)) * Self.vectors) }

  deinit { bits.deallocate() }

  public static func bytes(elements: Int) -> Int {
    chunks(elements) * vectors * MemoryLayout<SIMD8<Int32>>.size
  }

  private static func chunks(_ elements: Int) -> Int { (elements + KernelGeometry.chunk - 1) / KernelGeometry.chunk }

  /// A sweep has written all of it.
  public func complete() { isComplete = true }

  /// The vectors of the chunk that begins at element `start`, to read from; nil: they are not known.
  func known(_ start: Int, paired: Bool) -> UnsafePointer<SIMD8<Int32>>? {
    guard isComplete, isPaired.load(ordering: .relaxed) == paired, start % KernelGeometry.chunk == 0 else { return nil }
    return UnsafePointer(bits + start / KernelGeometry.chunk * Self.vectors)
  }

  /// The same, to write to; nil: they are not wanted.
  func wanted(_ start: Int, paired: Bool) -> UnsafeMutablePointer<SIMD8<Int32>>? {
    guard !isComplete, start % KernelGeometry.chunk == 0 else { return nil }
    isPaired.store(paired, ordering: .relaxed)
    return bits + start / KernelGeometry.chunk * Self.vectors
  }
}
