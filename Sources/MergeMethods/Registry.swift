import JSON
import Platform

/// All merge methods, in the order of the documentation. A new method is one file and one line here.
public enum Registry {
  public static let methods: [any MergeMethod.Type] = [
    Linear.self,
    TaskArithmetic.self,
    Slerp.self,
    Nuslerp.self,
    Multislerp.self,
    Karcher.self,
    Passthrough.self,
    ModelStock.self,
    YoyoScale.self,
    GeometricMedian.self,
    YoyoFusion.self,
    Ties.self,
    Breadcrumbs.self,
    BreadcrumbsTies.self,
    TiesSoup.self,
    DareLinear.self,
    DareTies.self,
    DellaLinear.self,
    Della.self,
    Sce.self,
    Nearswap.self,
    ArceeFusion.self,
    Ram.self,
    RamplusTl.self,
    Tsd.self,
    TsdV2.self,
    Tgmd.self,
    MagnitudePrune.self,
    MagMax.self,
    TallMask.self,
    ConsensusTa.self,
    ConsensusTies.self,
    Tsvm.self,
    IsoC.self,
    IsoCTS.self,
    ScaleSVD.self,
  ]

  /// - Throws: `.method`, with the nearest name there is.
  public static func method(named name: String) throws(Failure) -> any MergeMethod.Type {
    if let method = methods.first(where: { $0.schema.name == name }) { return method }
    let known = methods.map { $0.schema.name }
    let hint =
      Suggestion.nearest(to: name, among: known).map { "did you mean '\($0)'?" }
      ?? "there are \(known.joined(separator: ", "))"
    throw Failure(.method, "there is no merge method '\(name)': \(hint)")
  }

  /// A method with its parameters.
  public static func make(_ type: any MergeMethod.Type, _ parameters: [JSON.Member]) throws(Failure) -> any MergeMethod {
    try type.init(Parameters(type.schema, parameters))
  }
}
