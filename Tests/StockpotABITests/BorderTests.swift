import CStockpot
import StockpotABI
import Testing

/// Arguments that must be refused, never trapped on. The Python tests have many more; these run with the debug build's checks.
@Suite struct BorderTests {
  private static func view(_ data: UnsafeMutableRawPointer?, _ count: Int, _ dtype: sp_dtype) -> sp_view {
    var view = sp_view()
    view.data = data
    view.count = count
    view.shape.0 = Int64(truncatingIfNeeded: count)
    view.rank = 1
    view.dtype = dtype
    return view
  }

  private func cast(_ change: (inout sp_view) -> Void) -> sp_status {
    withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { memory in
      var input = Self.view(memory.baseAddress!, 4, SP_DTYPE_F32)
      var output = Self.view(memory.baseAddress! + 32, 4, SP_DTYPE_F32)
      memory.initializeMemory(as: UInt8.self, repeating: 0)
      change(&input)
      return sp_cast(&input, &output, nil)
    }
  }

  @Test func viewsAreProved() {
    #expect(cast { _ in } == SP_OK)
    #expect(cast { $0.dtype = 0 } == SP_E_DTYPE)
    #expect(cast { $0.rank = 9 } == SP_E_SHAPE)
    #expect(cast { $0.rank = -1 } == SP_E_SHAPE)
    #expect(cast { $0.shape.0 = -4 } == SP_E_SHAPE)
    #expect(cast { $0.count = -1 } == SP_E_SHAPE)
    #expect(cast { $0.count = 5 } == SP_E_SHAPE)
    #expect(cast { ($0.rank, $0.shape.0, $0.shape.1) = (2, .max, .max) } == SP_E_SHAPE)
    #expect(cast { ($0.count, $0.shape.0) = (.max, .max) } == SP_E_SHAPE)
    #expect(cast { $0.data = nil } == SP_E_NULL)
    #expect(cast { $0.data += 1 } == SP_E_ALIGNMENT)
    #expect(cast { $0.data += 24 } == SP_E_OVERLAP)
    #expect(cast { $0.row_stride_bytes = 16 } == SP_E_ARGUMENT)
    #expect(cast { $0.reserved.1 = 1 } == SP_E_ARGUMENT)
  }

  @Test func emptyViewsMayPointNowhere() {
    var input = Self.view(nil, 0, SP_DTYPE_F32)
    var output = Self.view(nil, 0, SP_DTYPE_BF16)
    #expect(sp_cast(&input, &output, nil) == SP_OK)
    let weight = 1.0
    #expect(withUnsafePointer(to: weight) { sp_combine(&input, 1, $0, 1, &output, nil) } == SP_OK)
  }

  @Test func nullHandlesAreRefused() {
    var error = sp_error()
    error.struct_size = UInt32(MemoryLayout<sp_error>.size)
    #expect(sp_method_merge(nil, nil, 1, nil, nil, 1, nil, &error) == SP_E_NULL)
    #expect(error.status == SP_E_NULL)
    #expect(sp_job_run(nil, nil, nil, nil) == SP_E_NULL)
    #expect(sp_job_create(nil, nil, nil, nil, nil) == SP_E_NULL)
    #expect(sp_checkpoint_open(nil, nil, nil) == SP_E_NULL)
    #expect(sp_job_plan_json(nil) == nil && sp_method_report_json(nil) == nil && sp_checkpoint_metadata_json(nil) == nil)
  }

  @Test func countsAndThreadsHaveLimits() {
    var values: [Float] = [1, 2]
    let status = values.withUnsafeMutableBytes { memory -> [sp_status] in
      var input = Self.view(memory.baseAddress!, 1, SP_DTYPE_F32)
      var output = Self.view(memory.baseAddress! + 4, 1, SP_DTYPE_F32)
      var weight = 1.0
      return [
        sp_combine(&input, 0, &weight, 1, &output, nil), sp_combine(&input, -1, &weight, 1, &output, nil),
        sp_combine(&input, 1, &weight, -1, &output, nil), sp_combine(&input, 1, nil, 1, &output, nil),
        sp_combine(&input, 1, &weight, 1, &output, nil),
      ]
    }
    #expect(status == [SP_E_ARGUMENT, SP_E_ARGUMENT, SP_E_ARGUMENT, SP_E_NULL, SP_OK])
  }

  @Test func theErrorIsWrittenAsFarAsItReaches() {
    var error = sp_error()
    error.struct_size = 20
    error.message.19 = 7
    #expect(sp_cast(nil, nil, &error) == SP_E_NULL)
    #expect(error.status == SP_E_NULL)
    #expect(error.message.11 == 0 && error.message.19 == 7)
    error.struct_size = 0
    error.status = SP_OK
    #expect(sp_cast(nil, nil, &error) == SP_E_NULL)
    #expect(error.status == SP_OK)
  }
}
