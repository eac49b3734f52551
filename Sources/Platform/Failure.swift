/// The one error type of the library: a pinned code and one sentence for people.
///
/// The code is the contract (it crosses the C border unchanged); the sentence names the file, the tensor and the remedy,
/// and is never parsed by anyone.
public struct Failure: Error, Equatable, CustomStringConvertible {
  public let status: Status
  public let message: String

  public init(_ status: Status, _ message: String) {
    self.status = status
    self.message = message
  }

  public var description: String { "\(status): \(message)" }
}

/// Status codes. The raw values are those of include/stockpot.h and never change.
public enum Status: Int32, Sendable {
  case argument = -10
  case null = -11
  case alignment = -12
  case overlap = -13
  case shape = -20
  case dtype = -21
  case missingTensor = -22
  case file = -30
  case notFound = -31
  case exists = -32
  case format = -40
  case quantized = -41
  case recipe = -42
  case method = -50
  case parameter = -51
  case nonFinite = -52
  case memory = -60
  case cancelled = -70
  case `internal` = -99
}
