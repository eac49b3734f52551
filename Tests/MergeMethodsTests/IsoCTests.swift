import JSON
import TensorKernels
import Testing

@testable import MergeMethods

@Suite struct IsoCTests {
  private func merge(
    _ parameters: JSON = [:], _ models: [[Double]] = Example.models, base: [Double] = Example.base,
    shape: [Int] = Example.shape,
    name: String = "w", _ runner: Runner = Runner()
  ) throws -> Merged {
    try runner.merge(make("iso_c", parameters), models, base: base, shape: shape, name: name)
  }

  static let delta = [
    0.210943374, -0.100105261, 0.033091173, 0.211340108, 0.162458595, -0.055815621, -0.040183579, 0.217391577, 0.166382316,
    0.046549416, -0.096282709, 0.247082642,
  ]

  @Test func theExampleIsMet() throws {
    let merged = try merge(["output": "task_vector"])
    #expect(distance(merged.values, Self.delta) <= Example.tolerance && merged.sweeps == 2)
    #expect(merged.decision["rank"] == 3)
    let sum = 0.463855476 + 0.274633923 + 0.176108788
    #expect((merged.decision["singular_value_sum"]!.double! - sum).magnitude <= 3 * Example.tolerance)
    #expect((merged.decision["condition"]!.double! - 0.463855476 / 0.176108788).magnitude <= 1e-7)
    let weights = try merge(["lambda": 0.3])
    #expect(distance(weights.values, zip(Example.base, Self.delta).map { $0 + 0.3 * $1 }) <= Example.tolerance)
    for transposedShape in [[3, 4]] {
      let turned = try merge(
        ["output": "task_vector"], Example.models.map { transposed($0, rows: 4, columns: 3) },
        base: transposed(Example.base, rows: 4, columns: 3), shape: transposedShape)
      #expect(distance(turned.values, transposed(Self.delta, rows: 4, columns: 3)) <= Example.tolerance)
    }
  }

  @Test func allSingularValuesAreTheMean() throws {
    var random = SplitMix64(state: 40)
    let shape = isOptimised ? [90, 130] : [9, 13]
    let count = shape[0] * shape[1]
    let base = random.values(count)
    let models = (0..<3).map { _ in zip(base, random.values(count)).map { $0 + 0.1 * $1 } }
    let merged = try merge(["output": "task_vector"], models, base: base, shape: shape)
    let mean = merged.decision["singular_value_sum"]!.double! / Double(shape[0])
    let gram = product(
      merged.values, transposed(merged.values, rows: shape[0], columns: shape[1]), rows: shape[0], inner: shape[1],
      columns: shape[0])
    #expect(distance(gram, identity(shape[0], mean * mean)) <= 1e-8 * mean * mean)
    // <Q, M> is the sum of the singular values.
    var along = 0.0
    for i in 0..<count { along += merged.values[i] / mean * (models[0][i] + models[1][i] + models[2][i] - 3 * base[i]) }
    #expect((along / (mean * Double(shape[0])) - 1).magnitude <= 1e-9)
  }

  @Test func nullSpacesAreDroppedOrCompleted() throws {
    // The sum has rank 1, sigma 5: mean 5/3.
    let base = [Double](repeating: 0, count: 12)
    var model = base
    (model[0], model[4]) = (3, 4)
    model[1] = 0
    let rank1 = try merge(["output": "task_vector"], [model.map { $0 * 1 }], base: base)
    // (3, 0, 0), (0, 4, 0): two directions of 3 and 4.
    #expect(rank1.decision["rank"] == 2)
    #expect(distance(rank1.values, [7.0 / 3, 0, 0, 0, 7.0 / 3, 0, 0, 0, 0, 0, 0, 0]) <= 1e-12)
    let complete = try merge(["output": "task_vector", "null_space": "complete"], [model], base: base)
    #expect(complete.decision["rank"] == 3)
    let gram = product(transposed(complete.values, rows: 4, columns: 3), complete.values, rows: 3, inner: 4, columns: 3)
    #expect(distance(gram, identity(3, 49.0 / 9)) <= 1e-12)
    #expect(try merge(["tolerance": 0.8], [model], base: base).decision["rank"] == 1)
  }

  @Test func whatIsNoMatrixTakesTheMean() throws {
    let mean = Example.base.indices.map { i in Example.base[i] + Example.deltas.reduce(0) { $0 + $1[i] } / 3 }
    for shape in [[12], [2, 2, 3]] {
      #expect(distance(try merge(shape: shape).values, mean) <= 1e-15)
    }
    let excluded = try merge(["exclude_keys": ["*proj*", "x"]], name: "text_projection")
    #expect(distance(excluded.values, mean) <= 1e-15 && excluded.decision["excluded"] == true)
    #expect(try merge(["exclude_keys": ["x"]]).decision["excluded"] == nil)
    let conv = try merge(["reshape_conv": true, "output": "task_vector"], shape: [4, 3, 1])
    #expect(distance(conv.values, Self.delta) <= Example.tolerance)
    #expect(try merge(base: Example.base, shape: [12, 1]).sweeps == 2)
  }

  @Test func weightsScaleTheTaskVectorsFirst() throws {
    let two = try merge(["weight": [1, 0, 1], "output": "task_vector"])
    let same = try merge(["output": "task_vector"], [Example.models[0], Example.models[2]])
    #expect(distance(two.values, same.values) <= 1e-12)
    let sign = try merge(["weight": -2, "output": "task_vector"])
    #expect(distance(sign.values, Self.delta.map { -2 * $0 }) <= 1e-8)
  }

  @Test(arguments: [DType.f64, .f32, .bf16, .f16]) func aSumOfZeroIsTheBaseBitForBit(dtype: DType) throws {
    let base = Memory([0.1, -0.0, 2.5, -7, 0, 3], dtype).values
    let delta = [0.5, -0.25, 1, 0.5, 0.125, -2]
    let models = [zip(base, delta).map { $0 + $1 }, base]
    let merged = try merge(["weight": [0, 1]], models, base: base, shape: [2, 3], Runner(dtype: dtype))
    #expect(merged.values.map(\.bitPattern) == base.map(\.bitPattern) && merged.copied == 0 && merged.decision["rank"] == 0)
    let vector = try merge(
      ["weight": [0, 1], "output": "task_vector"], models, base: base, shape: [2, 3], Runner(dtype: dtype))
    #expect(vector.values.allSatisfy { $0 == 0 })
  }

  @Test func theBaseKeepsItsZeroWhereNothingIsAdded() throws {
    // The task vector has one row: the others stay, -0.0 included.
    let base = [-0.0, -0.0, 1, -0.0]
    let merged = try merge([:], [[-0.0, -0.0, 1.5, 0.5]], base: base, shape: [2, 2])
    #expect(merged.values[0].bitPattern == (-0.0).bitPattern && merged.values[1].bitPattern == (-0.0).bitPattern)
    #expect(merged.values[2] > 1)
  }

  @Test func theMemoryIsKnownBeforehand() throws {
    let tensor = TensorContext(name: "w", shape: [100, 300], modelCount: 5, hasBase: true)
    #expect(try make("iso_c").scratchBytes(tensor) >= 100 * 300 * 8 + 4 * 100 * 100 * 8)
    #expect(try make("iso_c", ["exclude_keys": "w"]).scratchBytes(tensor) == 0)
    let vector = TensorContext(name: "w", shape: [30000], modelCount: 5, hasBase: true)
    #expect(try make("iso_c").scratchBytes(vector) == 0)
  }

  @Test func valuesThatAreNotFiniteShowInTheSweep() throws {
    for value in [Double.nan, .infinity] {
      var models = Example.models
      models[1][5] = value
      let tensor = TensorContext(name: "w", shape: [4, 3], modelCount: 3, hasBase: true)
      guard case .sweep(let sweep) = try make("iso_c").begin(tensor) else { return }
      let inputs = ([Example.base] + models).map { Memory($0, .f64) }
      let sums = Memory([0, -.infinity], .f64)
      let workspace = Memory([], .f64, room: KernelGeometry.workspaceBytes(rows: 4) / 8)
      inputs.map { UnsafeRawPointer($0.start) }.withUnsafeBufferPointer { table in
        sweep.run(
          Block(
            inputs: KernelInputs(table: table.baseAddress!, count: 4, dtype: .f64), start: 0, count: 12, output: nil,
            outputType: .f64, sums: sums.doubles, workspace: workspace.start))
      }
      #expect(sums.values[0].isNaN && sweep.sums == 2 && sweep.maxima == 1)
    }
  }
}
