import Synchronization

// What a random drop has kept, one bit per element, so that only the first sweep over a tensor computes random words.
//
// Layout: a chunk of 1024 elements has four vectors of eight 32-bit words; bit 31 - b of word l of vector g stands for lane l of the
// row's vector 32 g + b. So a vector of masks is one shift away, and one more vector is added with one `or`. Rows hold elements in an
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

// MARK: - Masks of a chunk

extension DropMask {
  /// Mark the elements whose random words are below a limit.
  /// - Parameters:
  ///   - bits: of the chunk.
  ///   - words: in the order of the row's lanes.
  ///   - vectors: of the row.
  @inline(never)
  static func mark(
    _ bits: UnsafeMutablePointer<SIMD8<Int32>>, words: UnsafeRawPointer, vectors: Int, below limit: UInt32
  ) {
    for group in 0..<(vectors + 31) / 32 {
      var all = SIMD8<Int32>.zero
      var bit = Int32.min
      for v in 32 * group..<min(32 * group + 32, vectors) {
        all |= masks(of: words.load(fromByteOffset: 32 * v, as: SIMD8<UInt32>.self), below: limit) & bit
        bit = Int32(bitPattern: UInt32(bitPattern: bit) &>> 1)
      }
      bits[group] = all
    }
  }

  /// Mark the elements whose bytes are 1, not those whose bytes are 0.
  @inline(never)
  static func mark<Element: KernelElement>(
    _: Element.Type, _ bits: UnsafeMutablePointer<SIMD8<Int32>>, bytes: UnsafeRawPointer, count: Int
  ) {
    let tiles = (count + 15) / 16
    for group in 0..<(tiles + 15) / 16 {
      var all = SIMD8<Int32>.zero
      for tile in 16 * group..<min(16 * group + 16, tiles) {
        var sixteen = SIMD16<UInt8>.zero
        if count - 16 * tile >= 16 {
          sixteen = bytes.loadUnaligned(fromByteOffset: 16 * tile, as: SIMD16<UInt8>.self)
        } else {
          for i in 0..<count - 16 * tile { sixteen[i] = bytes.load(fromByteOffset: 16 * tile + i, as: UInt8.self) }
        }
        let wide = SIMD16<Int32>(truncatingIfNeeded: sixteen)
        let (low, high) = Element.isPaired ? (wide.evenHalf, wide.oddHalf) : (wide.lowHalf, wide.highHalf)
        let shift = Int32(truncatingIfNeeded: 31 - 2 * (tile - 16 * group))
        all |= (low &<< shift) | (high &<< (shift &- 1))
      }
      bits[group] = all
    }
  }
}
