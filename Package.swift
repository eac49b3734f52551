// swift-tools-version: 6.2
import PackageDescription

// The CPU floor (x86-64-v3) and the static Swift runtime are given on the command line of the product's build, see the
// Makefile: a manifest with unsafe flags could not be a dependency, and `swift test` does not link with a static runtime.
let package = Package(
  name: "stockpot",
  products: [
    .library(name: "stockpot", type: .dynamic, targets: ["StockpotABI"])
  ],
  targets: [
    .systemLibrary(name: "CStockpot", path: "include"),
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(name: "CJansson", pkgConfig: "jansson", providers: [.apt(["libjansson-dev"])]),

    .target(name: "COpenBLASLock"),
    .target(name: "CPageGuard"),
    .target(name: "CPhilox"),
    .target(name: "Platform", dependencies: ["CPageGuard"]),
    .target(name: "JSON", dependencies: ["CJansson", "Platform"]),
    .target(name: "TensorKernels", dependencies: ["CPhilox"]),
    .target(name: "LinearAlgebra", dependencies: ["COpenBLAS", "COpenBLASLock", "Platform"]),
    .target(name: "Checkpoints", dependencies: ["JSON", "Platform", "TensorKernels"]),
    .target(name: "MergeMethods", dependencies: ["JSON", "LinearAlgebra", "Platform", "TensorKernels"]),
    .target(
      name: "MergeEngine",
      dependencies: ["Checkpoints", "JSON", "LinearAlgebra", "MergeMethods", "Platform", "TensorKernels"]),
    .target(
      name: "StockpotABI",
      dependencies: [
        "CStockpot", "Checkpoints", "JSON", "LinearAlgebra", "MergeEngine", "MergeMethods", "Platform", "TensorKernels",
      ]),

    .testTarget(name: "JSONTests", dependencies: ["JSON", "Platform"]),
    .testTarget(name: "PlatformTests", dependencies: ["Platform"]),
    .testTarget(name: "TensorKernelsTests", dependencies: ["TensorKernels"]),
    .testTarget(name: "LinearAlgebraTests", dependencies: ["LinearAlgebra", "Platform"]),
    .testTarget(name: "CheckpointsTests", dependencies: ["Checkpoints", "JSON", "Platform", "TensorKernels"]),
    .testTarget(name: "MergeMethodsTests", dependencies: ["JSON", "LinearAlgebra", "MergeMethods", "TensorKernels"]),
    .testTarget(name: "MergeEngineTests", dependencies: ["Checkpoints", "JSON", "MergeEngine", "MergeMethods", "Platform"]),
    .testTarget(name: "StockpotABITests", dependencies: ["CStockpot", "StockpotABI"]),
  ]
)
