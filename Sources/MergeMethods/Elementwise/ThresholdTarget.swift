/// What is asked of one model.
struct ThresholdTarget: Sendable {
  /// 1 for the largest.
  var rank: Int
  /// How many of the elements equal to the threshold stay: all, none, or as many as make `rank` elements.
  var ties: Ties

  enum Ties: Sendable { case all, none, fill }
}

/// What was found for one model.
struct FoundThreshold: Sendable {
  var value: Double
  var above: Int
  var equal: Int
  var target: ThresholdTarget

  /// How many of the equal ones stay.
  var keptTies: Int {
    switch target.ties {
    case .all: equal
    case .none: 0
    case .fill: target.rank - above
    }
  }
}
