import CStockpot
import LinearAlgebra
import MergeMethods
import Platform
import TensorKernels

/// A matrix of float type, in binary64.
private func matrix(_ view: ProvedView, _ name: String) throws(Failure) -> DenseMatrix {
  try view.requireFloat(name)
  guard view.shape.count == 2 else {
    throw Failure(.shape, "\(name) has shape \(view.shape): give a matrix of two dimensions")
  }
  let result = DenseMatrix(rows: view.shape[0], columns: view.shape[1])
  Cast.convert(view.data, view.dtype, count: view.count, into: result.values, .f64)
  return result
}

/// An output of float type and the given shape, apart from all `others`.
private func output(
  _ pointer: UnsafePointer<sp_view>?, _ name: String, _ shape: [Int], _ others: [(ProvedView, String)]
) throws(Failure) -> ProvedView {
  let view = try ProvedView(pointer, name)
  try view.requireFloat(name)
  guard view.shape == shape else { throw Failure(.shape, "\(name) has shape \(view.shape): it has to be \(shape)") }
  if let (_, other) = others.first(where: { $0.0.overlaps(view) }) {
    throw Failure(.overlap, "\(name) overlaps \(other): give it memory of its own")
  }
  return view
}

private func store(_ values: UnsafePointer<Double>, _ view: ProvedView) {
  Cast.narrow(values, count: view.count, into: view.data, view.dtype)
}

private func requireFinite(_ view: ProvedView, _ name: String) throws(Failure) {
  if let hit = NonFinite.first(
    view.data, view.dtype, count: NonFinite.any(view.data, view.dtype, count: view.count) ? view.count : 0)
  {
    throw Failure(.nonFinite, "\(name) has a NaN or an infinity at element \(hit.index): repair it")
  }
}

private let noConvergence = Failure(
  .nonFinite, "LAPACK does not converge for this matrix: scale its values towards 1, or add a small perturbation")

@_cdecl("sp_polar_factor") @implementation
public func sp_polar_factor(
  _ matrix: UnsafePointer<sp_view>!, _ complete: UInt32, _ tolerance: Double, _ out: UnsafePointer<sp_view>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let source = try ProvedView(matrix, "matrix")
    let nullSpace: PolarFactor.NullSpace = try flag(complete, "complete") ? .complete : .drop
    guard tolerance >= 0, tolerance <= 1 else {
      throw Failure(.argument, "tolerance is \(tolerance), which is not between 0 and 1")
    }
    let a = try StockpotABI.matrix(source, "matrix")
    let target = try output(out, "out", source.shape, [(source, "matrix")])
    try requireFinite(source, "matrix")
    guard source.count > 0 else { return }
    let precision = source.dtype == .f64 ? 1e-10 : 1e-6
    guard PolarFactor.replace(a.view, nullSpace: nullSpace, tolerance: tolerance, precision: precision) != nil else {
      throw noConvergence
    }
    store(a.values, target)
  }
}

@_cdecl("sp_truncated_svd") @implementation
public func sp_truncated_svd(
  _ matrix: UnsafePointer<sp_view>!, _ rank: Int, _ out_u: UnsafePointer<sp_view>!, _ out_s: UnsafePointer<sp_view>!,
  _ out_vt: UnsafePointer<sp_view>!, _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let source = try ProvedView(matrix, "matrix")
    let a = try StockpotABI.matrix(source, "matrix")
    let k = try count(rank, 0...a.view.side, "rank")
    let u = try output(out_u, "out_u", [a.rows, k], [(source, "matrix")])
    let s = try output(out_s, "out_s", [k], [(source, "matrix"), (u, "out_u")])
    let vt = try output(out_vt, "out_vt", [k, a.columns], [(source, "matrix"), (u, "out_u"), (s, "out_s")])
    try requireFinite(source, "matrix")
    guard k > 0 else { return }
    guard let result = TruncatedSVD.largest(k, of: a.view)?.triplets else { throw noConvergence }
    let columns = DenseMatrix(rows: a.rows, columns: k)
    for j in 0..<k { for i in 0..<a.rows { columns.values[i * k + j] = result.left.values[j * a.rows + i] } }
    store(columns.values, u)
    result.sigma.withUnsafeBufferPointer { store($0.baseAddress!, s) }
    store(result.right.values, vt)
  }
}

@_cdecl("sp_low_rank_plus_sparse_rank") @implementation
public func sp_low_rank_plus_sparse_rank(
  _ rows: Int, _ columns: Int, _ parameters_json: UnsafePointer<CChar>!, _ out_rank: UnsafeMutablePointer<Int>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let place = try aligned(out_rank, "out_rank")
    let (m, n) = (try count(rows, 1...Int(Int32.max), "rows"), try count(columns, 1...Int(Int32.max), "columns"))
    let options = try MatrixCompression.options(jsonMembers(parameters_json, "parameters_json"))
    place.pointee = options.rank(rows: m, columns: n)
  }
}

@_cdecl("sp_low_rank_plus_sparse") @implementation
public func sp_low_rank_plus_sparse(
  _ w: UnsafePointer<sp_view>!, _ scale: UnsafePointer<sp_view>!, _ parameters_json: UnsafePointer<CChar>!,
  _ out_u: UnsafePointer<sp_view>!, _ out_v: UnsafePointer<sp_view>!, _ out_sparse: UnsafePointer<sp_view>!,
  _ error: UnsafeMutablePointer<sp_error>!
) -> sp_status {
  attempt(error) { () throws(Failure) in
    let source = try ProvedView(w, "w")
    let a = try matrix(source, "w")
    guard source.count > 0 else { throw Failure(.shape, "w has shape \(source.shape): a matrix without elements has no parts") }
    var taken = [(source, "w")]
    var statistic: [Double]?
    if scale != nil {
      let given = try ProvedView(scale, "scale")
      try given.requireFloat("scale")
      guard given.shape == [a.columns] else {
        throw Failure(.shape, "scale has shape \(given.shape), but w has \(a.columns) columns: give one number for each")
      }
      taken.append((given, "scale"))
      let numbers = DenseMatrix(rows: 1, columns: a.columns)
      Cast.convert(given.data, given.dtype, count: given.count, into: numbers.values, .f64)
      statistic = Array(UnsafeBufferPointer(start: numbers.values, count: a.columns))
    }
    let options = try MatrixCompression.options(jsonMembers(parameters_json, "parameters_json"))
    let k = options.rank(rows: a.rows, columns: a.columns)
    let u = try output(out_u, "out_u", [a.rows, k], taken)
    let v = try output(out_v, "out_v", [k, a.columns], taken + [(u, "out_u")])
    let sparse = try output(out_sparse, "out_sparse", source.shape, taken + [(u, "out_u"), (v, "out_v")])
    try requireFinite(source, "w")
    guard statistic?.allSatisfy({ $0.isFinite && $0 >= 0 }) ?? true else {
      throw Failure(.argument, "scale has a negative number, or one that is not finite: give second moments")
    }
    guard let parts = LowRankPlusSparse.decompose(a, statistic: statistic, options) else { throw noConvergence }
    store(parts.left.values, u)
    store(parts.right.values, v)
    store(parts.sparse.values, sparse)
  }
}
