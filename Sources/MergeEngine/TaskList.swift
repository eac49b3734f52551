import Platform

/// The tasks of a run, each made when its turn comes: thousands of them at once would take megabytes.
public struct TaskList {
  let count: Int
  /// For each group, how many of its tensors take part.
  let groups: [Int: Int]
  /// The most that one of them holds beside its blocks.
  let largestScratch: Int
  private let make: (Int) throws(Failure) -> TensorTask
  /// Made already, though nobody has taken it yet.
  private var made: (index: Int, task: TensorTask)?

  public init(_ tasks: [TensorTask]) {
    self.init(
      count: tasks.count, groups: Dictionary(grouping: tasks.compactMap(\.group)) { $0 }.mapValues(\.count),
      largestScratch: tasks.map(\.scratchBytes).max() ?? 0
    ) { tasks[$0] }
  }

  init(
    count: Int, groups: [Int: Int], largestScratch: Int, _ make: @escaping (Int) throws(Failure) -> TensorTask
  ) {
    (self.count, self.groups, self.largestScratch, self.make) = (count, groups, largestScratch, make)
  }

  mutating func task(_ index: Int) throws(Failure) -> TensorTask {
    if let made, made.index == index { return made.task }
    let task = try make(index)
    made = (index, task)
    return task
  }
}
