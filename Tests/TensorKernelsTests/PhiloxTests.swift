import Testing

@testable import TensorKernels

// Exact: whole numbers.
@Suite struct PhiloxTests {
  @Test func theReferenceGivesThePublishedAnswers() {
    // Random123, kat_vectors, philox4x32 with 10 rounds.
    let answers: [(counter: [UInt32], key: [UInt32], words: [UInt32])] = [
      ([0, 0, 0, 0], [0, 0], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
      (
        [UInt32](repeating: .max, count: 4), [.max, .max], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]
      ),
      (
        [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0],
        [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
      ),
    ]
    for (counter, key, words) in answers { #expect(ScalarPhilox.block(counter: counter, key: key) == words) }
  }

  /// Made in both ways, where the CPU knows both.
  private func words(_ stream: RandomStream, start: Int, count: Int) -> [UInt32] {
    let all = (RandomStream.isWide ? [false, true] : [false]).map { isWide in
      // A row of words is written in full blocks of 32.
      let room = GuardedBytes(count: (count + 31) / 32 * 32 * 4)
      stream.fill(room.start.assumingMemoryBound(to: UInt32.self), start: start, count: count, isWide: isWide)
      #expect(room.isIntact)
      return Array(room.load(as: UInt32.self))
    }
    #expect(all.first == all.last)
    return Array(all[0][..<count])
  }

  /// Of each 16 those of the even elements first.
  private func paired(_ words: [UInt32]) -> [UInt32] { words.indices.map { words[$0 & ~15 | 2 * $0 & 15 | $0 >> 3 & 1] } }

  @Test func pairedWordsAreTheSameInAnotherOrder() {
    let random = RandomStream(seed: 3, name: "w", model: 1)
    for start in [0, 4, 1020] {
      let room = GuardedBytes(count: 160 * 4)
      random.fillPaired(room.start.assumingMemoryBound(to: UInt32.self), start: start, count: 130)
      #expect(room.isIntact && room.load(as: UInt32.self) == paired(words(random, start: start, count: 160)))
    }
  }

  @Test func marksAreThoseOfTheWords() {
    let random = RandomStream(seed: 3, name: "w", model: 1, stream: 2)
    for (start, vectors) in [(0, 128), (4, 2), (4 << 32 - 8, 66), (1 << 55, 32)] {
      let inOrder = words(random, start: start, count: (vectors + 31) / 32 * 256)
      for limit in [0, 1 << 31, 3 << 30, UInt32.max] {
        for isPaired in [false, true] {
          let words = isPaired ? paired(inOrder) : inOrder
          // Bit 31 - b of word l of 8 stands for lane l of vector b.
          func check(_ way: String, _ mark: (UnsafeMutablePointer<SIMD8<Int32>>) -> Void) {
            let room = GuardedBytes(count: words.count / 8)
            mark(room.start.assumingMemoryBound(to: SIMD8<Int32>.self))
            let marks = room.load(as: UInt32.self)
            let found = (0..<8 * vectors).map { (i: Int) -> Bool in
              let word = marks[i / 256 * 8 + i % 8]
              return (word >> UInt32(31 - i % 256 / 8)) & 1 == 1
            }
            let expected = words.prefix(8 * vectors).map { $0 < limit }
            #expect(
              found == expected && room.isIntact,
              "\(way): \(vectors) vectors from \(start), limit \(limit), paired: \(isPaired)")
          }
          check("from words") { bits in
            let row = GuardedBytes(count: 4 * words.count)
            for (i, word) in words.enumerated() { row.start.storeBytes(of: word, toByteOffset: 4 * i, as: UInt32.self) }
            DropMask.mark(bits, words: row.start, vectors: vectors, below: limit)
          }
          guard RandomStream.isWide else { continue }
          check("where they are made") {
            random.mark($0, start: start, vectors: vectors, below: limit, paired: isPaired)
          }
        }
      }
    }
  }

  @Test func theFirstBlockOfAKeyOfZerosIsThePublishedOne() {
    // The key is the name's hash xor the seed.
    let stream = RandomStream(seed: ScalarPhilox.hash("w"), name: "w", model: 0)
    #expect(stream.key == 0)
    #expect(words(stream, start: 0, count: 4) == [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8])
  }

  @Test func theKeyIsTheNamesHashXorTheSeed() {
    // Published values of FNV-1a, 64 bits.
    for (name, hash) in [("", 0xCBF2_9CE4_8422_2325), ("a", 0xAF63_DC4C_8601_EC8C), ("foobar", 0x8594_4171_F739_67E8)]
      as [(
        String, UInt64
      )]
    {
      #expect(ScalarPhilox.hash(name) == hash)
      for seed in [0, 1, 0x0123_4567_89AB_CDEF, UInt64.max] {
        let stream = RandomStream(seed: seed, name: name, model: 3, stream: 5)
        #expect(stream.key == hash ^ seed && stream.model == 3 && stream.stream == 5)
      }
    }
    #expect(RandomStream(seed: 0, name: "größe", model: 0).key == ScalarPhilox.hash("größe"))
  }

  // Starts on both sides of where the counter's second word, and the end of the elements, begin.
  private static let starts = [0, 4, 32, 1020, 65536, 4 << 32 - 8, 4 << 32, 4 << 32 + 1024, 1 << 55, (Int.max - 4095) & ~3]

  @Test(arguments: starts) func wordsAreThoseOfTheReference(start: Int) {
    for (model, stream) in [(0, 0), (1, 0), (7, 2), (Int(UInt32.max), .max)] as [(Int, UInt32)] {
      let random = RandomStream(seed: 99, name: "layers.0.w", model: model, stream: stream)
      // Three groups of 128, and 36 more.
      let expected = (0..<420).map {
        ScalarPhilox.word(seed: 99, "layers.0.w", model: UInt32(model), stream: stream, start + $0)
      }
      #expect(words(random, start: start, count: 420) == expected, "model \(model), stream \(stream)")
    }
  }

  @Test(arguments: [0.0, 0.1, 0.5, 0.9, 1]) func aMaskIsTheStreamBelowTheLimit(keep: Double) {
    let random = RandomStream(seed: 7, name: "w", model: 2)
    let limit = UInt64((keep * 0x1p32 + 0.5).rounded(.down))
    for start in [0, 1, 2, 3, 5, 1021, 1 << 34 - 2] {
      for count in [0, 1, 3, 4, 31, 32, 33, 1023, 1024, 1025, 2500] {
        let out = GuardedBytes(count: count)
        random.mask(start: start, count: count, keeping: keep, into: out.start.assumingMemoryBound(to: UInt8.self))
        let expected = (0..<count).map { i -> UInt8 in
          UInt64(ScalarPhilox.word(seed: 7, "w", model: 2, start + i)) < limit ? 1 : 0
        }
        #expect(difference(out.bytes, expected) == nil, "\(count) from \(start)")
        #expect(out.isIntact)
      }
    }
  }

  @Test func limitsRoundToTheNearestWordAndOneKeepsAll() {
    #expect(RandomStream.limit(keeping: 0) == 0)
    #expect(RandomStream.limit(keeping: 0.5) == 1 << 31)
    #expect(RandomStream.limit(keeping: 0x1p-32) == 1 && RandomStream.limit(keeping: 0x1p-33) == 1)
    #expect(RandomStream.limit(keeping: 0x1p-34) == 0)
    #expect(RandomStream.limit(keeping: 1) == nil && RandomStream.limit(keeping: 1.5) == nil)
    #expect(RandomStream.limit(keeping: 1 - 0x1p-32) == .max)
  }

  @Test func aProbabilityThatRoundsToOneKeepsAll() {
    // floor(p * 2^32 + 1/2) is 2^32, which every word is below.
    #expect(RandomStream.limit(keeping: 1 - 0x1p-34) == nil)
  }

  @Test func asManyAreKeptAsTheProbabilitySays() {
    let count = isOptimised ? 1 << 20 : 4096
    let random = RandomStream(seed: 1, name: "w", model: 0)
    for keep in [0.1, 0.5, 0.9] {
      let out = GuardedBytes(count: count)
      random.mask(start: 0, count: count, keeping: keep, into: out.start.assumingMemoryBound(to: UInt8.self))
      let kept = out.bytes.reduce(0) { $0 + Int($1) }
      // Five standard deviations; the stream is fixed, so this cannot flicker.
      let deviation = (Double(count) * keep * (1 - keep)).squareRoot()
      #expect((Double(kept) - keep * Double(count)).magnitude <= 5 * deviation)
    }
  }
}
