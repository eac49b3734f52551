import Platform
import TensorKernels

// How fast this machine merges, next to the one on which the rates of Plan+Estimate.swift were measured.
//
// Timed are a Gram matrix and a linear combination of three arrays of 4 MB, in memory and on one thread; the fastest of five turns
// counts, as other work may come in between. That takes 16 MB for a few milliseconds, once per process.

enum MachineSpeed {
  private static let (models, elements, turns) = (3, 2 << 20, 5)

  /// Seconds of a turn on the machine of the rates.
  private static let reference = 0.89e-3

  /// 2 where a turn takes half of that.
  static let factor: Double = {
    let size = elements * DType.bf16.size
    let memory = PageMemory(byteCount: (models + 1) * size)
    // Ones: written, as pages that have not been are all the same page.
    memory.start.initializeMemory(as: UInt16.self, repeating: 0x3F80, count: (models + 1) * elements)
    let workspace = PageMemory(byteCount: KernelGeometry.workspaceBytes(rows: models))
    let table = (0..<models).map { UnsafeRawPointer(memory.start + $0 * size) }
    let pairs = RowPairs(rows: models)
    var sums = [Double](repeating: 0, count: pairs.count)
    var fastest = Double.infinity
    for _ in 0..<turns {
      let begun = Machine.seconds()
      table.withUnsafeBufferPointer { table in
        let inputs = KernelInputs(table: table.baseAddress!, count: models, dtype: .bf16)
        Gram.accumulate(
          inputs, count: elements, reference: nil, crossTerms: false, pairs: pairs, sums: &sums, workspace: workspace.start)
        Combine.run(
          inputs, count: elements, reference: 0, total: 1, coefficients: [0.4, 0.3, 0.3], output: memory.start + models * size,
          .bf16)
      }
      fastest = min(fastest, Machine.seconds() - begun)
    }
    return reference / max(fastest, 1e-6)
  }()
}
