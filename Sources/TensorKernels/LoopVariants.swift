// Loops that are compiled several times over: for what they do or leave out, and for how many models. What varies is a type argument.

/// What a loop does or leaves out. (A constant argument does not do: functions beyond a size are not inlined, whatever their attributes
/// say, and then it is looked at in each turn.)
protocol Choice { static var isYes: Bool { get } }
enum Yes: Choice { static var isYes: Bool { true } }
enum No: Choice { static var isYes: Bool { false } }

/// How often a loop runs, nil if that is only known later: loops over few models are unrolled.
protocol FixedCount { static var count: Int? { get } }
enum Two: FixedCount { static var count: Int? { 2 } }
enum Three: FixedCount { static var count: Int? { 3 } }
enum Four: FixedCount { static var count: Int? { 4 } }
enum Several: FixedCount { static var count: Int? { nil } }

/// Numbers in a kernel's arithmetic type, for loops that read them as often as data.
@inline(__always)
func withScalars<Scalar: ArithmeticScalar, Result>(_ values: [Double], _ body: (UnsafePointer<Scalar>) -> Result) -> Result {
  withUnsafeTemporaryAllocation(of: Scalar.self, capacity: max(1, values.count)) { scalars in
    for (i, value) in values.enumerated() { scalars.initializeElement(at: i, to: Scalar(value)) }
    return body(UnsafePointer(scalars.baseAddress!))
  }
}
