import CPhilox

// Philox4x32-10: random words addressed by position, so that a mask is never stored and never depends on who makes it.
//
//   counter (x0, x1, x2, x3), key (k0, k1); ten rounds of
//     (x0, x1, x2, x3) <- (hi(M1 x2) ^ x1 ^ k0, lo(M1 x2), hi(M0 x0) ^ x3 ^ k1, lo(M0 x0)),   (k0, k1) += (W0, W1)
//     M0 = D2511F53, M1 = CD9E8D57, W0 = 9E3779B9, W1 = BB67AE85 (hexadecimal)
//
// The stream of a model's tensor: key = FNV-1a-64 of the tensor's name (UTF-8) xor the seed, low word first; counter = (low and
// high word of e / 4, index of the model from 0, stream), and element e takes output word e mod 4. An element is kept with
// probability p when its word is below floor(p * 2^32 + 1/2); p = 1 keeps all.
// Cost: about 7 instructions per word, 3 where the CPU has AVX-512 (Sources/CPhilox, the same words). Source:
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// The random words of one tensor of one model.
public struct RandomStream: Sendable {
  public let key: UInt64
  public let model: UInt32
  public let stream: UInt32

  /// - Parameters:
  ///   - seed: of the merge.
  ///   - name: of the tensor.
  ///   - model: its index among the models, from 0.
  ///   - stream: tells apart several masks of one tensor; 0 is the drop of DARE and its kin.
  public init(seed: UInt64, name: String, model: Int, stream: UInt32 = 0) {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    key = hash ^ seed
    self.model = UInt32(truncatingIfNeeded: model)
    self.stream = stream
  }

  /// The word below which an element is kept with probability `p`; nil: every element is kept.
  public static func limit(keeping p: Double) -> UInt32? {
    UInt32(exactly: max(0, (p * 0x1p32 + 0.5).rounded(.down)))
  }

  /// The words of elements `start` to `start + count`, rounded up to a multiple of 32, into `words`. `start` is a multiple of 4.
  /// - Parameter isWide: by the function for AVX-512 as far as it goes.
  func fill(_ words: UnsafeMutablePointer<UInt32>, start: Int, count: Int, isWide: Bool = Self.isWide) {
    withKeys { keys in
      let done = isWide ? count / PHILOX_GROUP * PHILOX_GROUP : 0
      if done > 0 { philox_fill(words, UInt64(start) / 4, done / PHILOX_GROUP, wide(keys)) }
      fillBlocks(words + done, start: start &+ done, count: count - done, keys)
    }
  }

  /// Does this CPU have AVX-512 at full speed?
  static let isWide = philox_is_wide() != 0

  /// Mark the words below a limit as DropMask has them, without writing the words, where `isWide`. `start` is a multiple of 4.
  /// - Parameter vectors: of the row; the bits of what follows to a multiple of 32 are set too.
  func mark(_ bits: UnsafeMutablePointer<SIMD8<Int32>>, start: Int, vectors: Int, below limit: UInt32, paired: Bool) {
    withKeys { keys in
      let words = UnsafeMutableRawPointer(bits).assumingMemoryBound(to: UInt32.self)
      philox_mark(words, UInt64(start) / 4, (vectors + 31) / 32, wide(keys), limit, paired ? 1 : 0)
    }
  }

  private func wide(_ keys: UnsafePointer<UInt64>) -> philox_stream { philox_stream(keys: keys, model: model, stream: stream) }

  @inline(never)
  private func fillBlocks(_ words: UnsafeMutablePointer<UInt32>, start: Int, count: Int, _ keys: UnsafePointer<UInt64>) {
    let place = UnsafeMutableRawPointer(words)
    let blocks = (count + 31) / 32
    for block in 0..<blocks {
      let words = words8(UInt64(start) / 4 &+ 8 &* UInt64(block), keys)
      let (first, second) = (Self.joined(words.0, words.1), Self.joined(words.2, words.3))
      place.storeBytes(of: first, toByteOffset: 128 * block, as: SIMD8<UInt64>.self)
      place.storeBytes(of: second, toByteOffset: 128 * block + 64, as: SIMD8<UInt64>.self)
    }
    // Put in order in a loop of its own: in the first one the compiler would carry the permutation through all ten rounds.
    for block in 0..<blocks {
      let first = place.loadUnaligned(fromByteOffset: 128 * block, as: SIMD8<UInt64>.self)
      let second = place.loadUnaligned(fromByteOffset: 128 * block + 64, as: SIMD8<UInt64>.self)
      var ordered = SIMD8<UInt64>()
      (ordered.evenHalf, ordered.oddHalf) = (first.lowHalf, second.lowHalf)
      place.storeBytes(of: ordered, toByteOffset: 128 * block, as: SIMD8<UInt64>.self)
      (ordered.evenHalf, ordered.oddHalf) = (first.highHalf, second.highHalf)
      place.storeBytes(of: ordered, toByteOffset: 128 * block + 64, as: SIMD8<UInt64>.self)
    }
  }

  /// The same words, those of even elements and those of odd ones in turn, eight each; not by the function for AVX-512.
  @inline(never)
  func fillPaired(_ words: UnsafeMutablePointer<UInt32>, start: Int, count: Int) {
    let place = UnsafeMutableRawPointer(words)
    withKeys { keys in
      for block in 0..<(count + 31) / 32 {
        let words = words8(UInt64(start) / 4 &+ 8 &* UInt64(block), keys)
        let (even, odd) = (Self.joined(words.0, words.2), Self.joined(words.1, words.3))
        place.storeBytes(of: even.lowHalf, toByteOffset: 128 * block, as: SIMD4<UInt64>.self)
        place.storeBytes(of: odd.lowHalf, toByteOffset: 128 * block + 32, as: SIMD4<UInt64>.self)
        place.storeBytes(of: even.highHalf, toByteOffset: 128 * block + 64, as: SIMD4<UInt64>.self)
        place.storeBytes(of: odd.highHalf, toByteOffset: 128 * block + 96, as: SIMD4<UInt64>.self)
      }
    }
  }

  /// Two words in 64 bits each.
  @inline(__always)
  private static func joined(_ first: SIMD8<UInt64>, _ second: SIMD8<UInt64>) -> SIMD8<UInt64> {
    (first & 0xFFFF_FFFF) | second &<< 32
  }

  /// Lend the keys of the ten rounds: k0 at 2 r, k1 at 2 r + 1.
  @inline(__always)
  private func withKeys(_ body: (UnsafePointer<UInt64>) -> Void) {
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 20) { keys in
      var (k0, k1) = (UInt32(truncatingIfNeeded: key), UInt32(truncatingIfNeeded: key >> 32))
      for round in 0..<10 {
        (keys[2 * round], keys[2 * round + 1]) = (UInt64(k0), UInt64(k1))
        k0 &+= 0x9E37_79B9
        k1 &+= 0xBB67_AE85
      }
      body(keys.baseAddress!)
    }
  }

  /// The four words of eight successive counters, in the low halves of 64 bits; the high halves hold anything.
  @inline(__always)
  private func words8(
    _ counter: UInt64, _ keys: UnsafePointer<UInt64>
  ) -> (SIMD8<UInt64>, SIMD8<UInt64>, SIMD8<UInt64>, SIMD8<UInt64>) {
    // Every lane holds one 32-bit word in the low half of 64 bits, so that a product needs one instruction. That looks at low halves
    // only, so whatever gathers in the high ones does not matter.
    let low = SIMD8<UInt64>(repeating: 0xFFFF_FFFF)
    let counters = SIMD8<UInt64>(repeating: counter) &+ SIMD8<UInt64>(0, 1, 2, 3, 4, 5, 6, 7)
    var x0 = counters
    var x1 = counters &>> 32
    var x2 = SIMD8<UInt64>(repeating: UInt64(model))
    var x3 = SIMD8<UInt64>(repeating: UInt64(stream))
    for round in 0..<10 {
      let p0 = (x0 & low) &* SIMD8<UInt64>(repeating: 0xD251_1F53)
      let p1 = (x2 & low) &* SIMD8<UInt64>(repeating: 0xCD9E_8D57)
      x0 = (p1 &>> 32) ^ x1 ^ SIMD8<UInt64>(repeating: keys[2 * round])
      x1 = p1
      x2 = (p0 &>> 32) ^ x3 ^ SIMD8<UInt64>(repeating: keys[2 * round + 1])
      x3 = p0
    }
    return (x0, x1, x2, x3)
  }
}

extension RandomStream {
  /// Which of the elements `start` to `start + count` are kept with probability `p`: 1 or 0 each.
  public func mask(start: Int, count: Int, keeping p: Double, into out: UnsafeMutablePointer<UInt8>) {
    guard let limit = Self.limit(keeping: p) else { return out.update(repeating: 1, count: count) }
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: KernelGeometry.chunk + 64) { words in
      let base = words.baseAddress!
      for chunk in stride(from: 0, to: count, by: KernelGeometry.chunk) {
        let first = start + chunk
        let length = min(KernelGeometry.chunk, count - chunk)
        let shift = first % 4
        fill(base, start: first - shift, count: length + shift)
        let (place, source) = (UnsafeMutableRawPointer(out + chunk), UnsafeRawPointer(base + shift))
        let whole = length & ~7
        for i in stride(from: 0, to: whole, by: 8) {
          let kept = masks(of: source.loadUnaligned(fromByteOffset: 4 * i, as: SIMD8<UInt32>.self), below: limit) & 1
          place.storeBytes(of: SIMD8<UInt8>(truncatingIfNeeded: kept), toByteOffset: i, as: SIMD8<UInt8>.self)
        }
        for i in whole..<length { out[chunk + i] = base[shift + i] < limit ? 1 : 0 }
      }
    }
  }
}
