import MergeMethods
import Platform
import TensorKernels

/// A tensor in progress: its current step, who has claimed which stretch, and the partial sums.
///
/// Fields are guarded by the executor's monitor, except the partial sums, of which each stretch belongs to its claimer.
final class ActiveTensor {
  let index: Int
  let task: TensorTask
  let started = Machine.seconds()
  private(set) var step: Step
  private(set) var partition: Partition
  private(set) var kernelType: DType
  private var partials: UnsafeMutablePointer<Double>?
  private var sums = 0
  private var claimed = 0
  var done = 0
  /// A sweep is over and its successor not yet known.
  var isAdvancing = false
  /// Start again in binary64, or refuse: the reason, with the lowest element that gives it.
  var trouble: Trouble?
  var isWide = false
  var warnings: [String] = []
  /// Is it merged whatever its inputs hold?
  var keepsNonFinite = false
  var overflowed = 0
  var nonFinite = 0

  /// The inputs' windows of whole claims, by their first element, kept from one sweep to the next.
  private var held: [Int: (range: Range<Int>, windows: [MappedWindow?])] = [:]
  private var heldBytes = 0

  /// Of one input, what a worker takes at a time: mapping costs less in large pieces; in memory smaller ones share better.
  private let claimBytes: Int
  /// Of all inputs: what a tensor may keep mapped between sweeps.
  private static let mostHeldBytes = 64 << 20

  enum Trouble {
    case underflowOrOverflow
    case nonFinite(input: Int, element: Int)
  }

  init(index: Int, task: TensorTask) throws(Failure) {
    self.index = index
    self.task = task
    claimBytes = task.places.allSatisfy(\.isMemory) ? 1 << 19 : 4 << 20
    step = .copy(input: 0, Decision())
    partition = Partition(count: task.context.count, granule: 1)
    kernelType = task.outputType
    try begin()
  }

  deinit { partials?.deallocate() }

  /// (Re)start with the method's first step.
  func begin() throws(Failure) {
    if let method = task.method { take(try method.begin(task.context)) }
  }

  func take(_ next: Step) {
    step = next
    partials?.deallocate()
    partials = nil
    (claimed, done, sums) = (0, 0, 0)
    isAdvancing = false
    partition = Partition(count: task.context.count, granule: 1)
    if case .sweep(let sweep) = next {
      partition = Partition(count: task.context.count, granule: sweep.granule, ranges: sweep.ranges)
      kernelType = KernelInputs.commonType(task.inputTypes, output: task.outputType)
      if sweep.wide || isWide, kernelType.size == 2 { kernelType = .f32 }
    }
    guard case .sweep(let sweep) = next, sweep.sums > 0 else { return }
    sums = sweep.sums
    let cells = partition.stretches * sums
    let fresh = UnsafeMutablePointer<Double>.allocate(capacity: cells)
    for cell in 0..<cells { fresh[cell] = cell % sums >= sums - sweep.maxima ? -.infinity : 0 }
    partials = fresh
  }

  /// The next stretches for one worker: one after another in the files, as many as are worth a mapping of their own.
  func claim() -> Range<Int>? {
    guard !isAdvancing, claimed < partition.stretches else { return nil }
    let first = claimed
    let start = partition.range(first).lowerBound
    claimed += 1
    while claimed < partition.stretches, partition.range(claimed - 1).upperBound == partition.range(claimed).lowerBound,
      (partition.range(claimed).upperBound - start) * kernelType.size <= claimBytes
    {
      claimed += 1
    }
    return first..<claimed
  }

  // MARK: - Windows

  /// The windows that an earlier sweep has left for these elements; nil: none.
  func heldWindows(_ range: Range<Int>) -> [MappedWindow?]? {
    guard let entry = held[range.lowerBound], entry.range == range else { return nil }
    return entry.windows
  }

  /// Keep windows for the next sweep over the tensor, if there is one and they are not too many: mapping the pages again costs about as
  /// much as reading them.
  func hold(_ windows: [MappedWindow?], _ range: Range<Int>) {
    guard case .sweep(let sweep) = step, !sweep.writes, sweep.ranges == nil, held[range.lowerBound] == nil else { return }
    let bytes = windows.reduce(0) { $0 + ($1?.byteCount ?? 0) }
    guard heldBytes + bytes <= Self.mostHeldBytes else { return }
    held[range.lowerBound] = (range, windows)
    heldBytes += bytes
  }

  /// Let go of them, while the tensor waits for others.
  func releaseWindows() { (held, heldBytes) = ([:], 0) }

  // MARK: - Sums

  /// The sums of one stretch.
  func sums(of stretch: Int) -> UnsafeMutablePointer<Double> {
    partials.map { $0 + stretch * sums } ?? UnsafeMutablePointer(bitPattern: 64)!
  }

  /// All partial sums, combined in the order of the tensor's elements.
  func total(maxima: Int) -> [Double] {
    guard let partials else { return [] }
    var total = [Double](repeating: 0, count: sums)
    for i in 0..<sums {
      if i >= sums - maxima {
        total[i] = -.infinity
        for stretch in 0..<partition.stretches { total[i] = max(total[i], partials[stretch * sums + i]) }
      } else {
        for stretch in 0..<partition.stretches { total[i] += partials[stretch * sums + i] }
      }
    }
    return total
  }

  /// Remember trouble; of two, the one with the lower element and then the lower input.
  func meet(_ new: Trouble) {
    switch (trouble, new) {
    case (.nonFinite(let input, let element)?, .nonFinite(let newInput, let newElement)):
      if (newElement, newInput) < (element, input) { trouble = new }
    case (.nonFinite?, .underflowOrOverflow): break
    default: trouble = new
    }
  }
}
