/// The vectors of K models as combinations of the rows whose Gram matrix a sweep has found.
///
/// With cross terms the rows are [x_0, x_1 - x_0, ...], so differences between nearly equal models keep their digits.
struct VectorSpan {
  let gram: GramMatrix
  private let isAboutFirst: Bool

  /// From the Gram matrix of the vectors themselves.
  init(differences gram: GramMatrix) {
    self.gram = gram
    isAboutFirst = false
  }

  /// From the Gram matrix of the first vector and the differences of the others from it.
  init(crossTerms gram: GramMatrix) {
    self.gram = gram
    isAboutFirst = true
  }

  var count: Int { gram.size }

  /// Are all vectors the same one?
  var isOnePoint: Bool { isAboutFirst && (1..<max(1, count)).allSatisfy { gram[$0, $0] == 0 } }

  /// Vector `i` in the rows.
  func vector(_ i: Int) -> [Double] {
    var rows = [Double](repeating: 0, count: count)
    rows[i] = 1
    if isAboutFirst { rows[0] = 1 }
    return rows
  }

  /// sum_i c_i x_i in the rows.
  func combination(_ coefficients: [Double]) -> [Double] {
    var rows = coefficients
    if isAboutFirst { rows[0] = total(coefficients) }
    return rows
  }

  func total(_ coefficients: [Double]) -> Double { coefficients.reduce(0, +) }

  func product(_ a: [Double], _ b: [Double]) -> Double { gram.form(a, b) }
  func norm(_ a: [Double]) -> Double { max(0, gram.form(a, a)).squareRoot() }

  /// What each input contributes to a combination of the rows, and the sum of that.
  func inputs(_ rows: [Double]) -> (coefficients: [Double], total: Double) {
    guard isAboutFirst else { return (rows, rows.reduce(0, +)) }
    var coefficients = rows
    coefficients[0] -= rows.dropFirst().reduce(0, +)
    return (coefficients, rows[0])
  }
}
