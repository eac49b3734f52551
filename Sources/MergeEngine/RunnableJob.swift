import Platform

/// Work on whole checkpoints that is planned when it is made, and run once: a merge, or a reconstruction.
public protocol RunnableJob: AnyObject {
  var planText: String { get }
  /// nil until the run has succeeded. It may have tens of megabytes: who has taken it lets go of it.
  var reportText: String? { get set }
  var control: ExecutionControl { get }
  var bytesTotal: Int { get }
  var tensorsTotal: Int { get }

  /// - Parameter heartbeat: called by workers after each stretch of work, at any rate.
  func run(heartbeat: @escaping () -> Void) throws(Failure)
}
