import Glibc
import Platform
import Testing

@Suite struct MachineTests {
  @Test func thereIsAtLeastOneCPUAndNoMoreThanAreOnline() {
    let count = Machine.usableCPUs()
    #expect(count >= 1)
    #expect(count <= sysconf(Int32(_SC_NPROCESSORS_ONLN)))
  }

  @Test func theClockNeverGoesBack() {
    var last = Machine.seconds()
    var steps = 0
    for _ in 0..<10_000 {
      let now = Machine.seconds()
      if now < last { steps += 1 }
      last = now
    }
    #expect(steps == 0)
  }

  @Test func theClockIsTheMonotonicOneOfTheSystem() {
    func system() -> Double {
      var time = timespec()
      clock_gettime(CLOCK_MONOTONIC, &time)
      return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
    let before = system()
    let now = Machine.seconds()
    #expect(before <= now && now <= system())
  }

  @Test func theClockCountsSeconds() {
    let start = Machine.seconds()
    usleep(20_000)
    let passed = Machine.seconds() - start
    // A sleep is never shorter than asked for; a loaded machine may make it much longer.
    #expect(passed >= 0.02 && passed < 60)
  }

  @Test func timestampIsTheTimeInUTC() throws {
    let before = time(nil)
    let text = Machine.timestamp()
    let after = time(nil)
    // 2026-01-31T12:00:00Z
    #expect(text.utf8.count == 20)
    let marks = text.utf8.enumerated().filter { !(48...57).contains($0.element) }.map {
      "\($0.offset)\(Character(UnicodeScalar($0.element)))"
    }
    #expect(marks == ["4-", "7-", "10T", "13:", "16:", "19Z"])
    let numbers = text.split { !$0.isNumber }.compactMap { Int32($0) }
    try #require(numbers.count == 6)
    var parts = tm()
    (parts.tm_year, parts.tm_mon, parts.tm_mday) = (numbers[0] - 1900, numbers[1] - 1, numbers[2])
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (numbers[3], numbers[4], numbers[5])
    let seconds = timegm(&parts)
    #expect(before <= seconds && seconds <= after)
  }
}
