import CStockpot
import StockpotABI
import Testing

/// Layer statistics through C, with the debug build's checks. The Python tests have the wrong arguments by the dozen.
@Suite struct StatisticsTests {
  private static func view(_ data: UnsafeMutableRawPointer?, _ rows: Int, _ channels: Int) -> sp_view {
    var view = sp_view()
    view.data = data
    view.count = rows * channels
    (view.shape.0, view.shape.1) = (Int64(rows), Int64(channels))
    view.rank = 2
    view.dtype = SP_DTYPE_F32
    return view
  }

  @Test func aCollectionThroughC() {
    var handle: OpaquePointer?
    var other: OpaquePointer?
    #expect(sp_statistics_create(nil, &handle, nil) == SP_OK && sp_statistics_create("variance", &other, nil) == SP_OK)
    defer {
      sp_statistics_free(handle)
      sp_statistics_free(other)
    }
    var values: [Float] = [1, 10, 3, 10]
    values.withUnsafeMutableBytes { memory in
      var view = Self.view(memory.baseAddress, 2, 2)
      #expect(sp_statistics_update(handle, "b", &view, -1, nil) == SP_OK)
      #expect(sp_statistics_update(handle, "a", &view, 0, nil) == SP_OK)
      #expect(sp_statistics_update(handle, "a", &view, 2, nil) == SP_E_ARGUMENT)
      #expect(sp_statistics_update(handle, "", &view, 1, nil) == SP_E_ARGUMENT)
    }
    #expect(sp_statistics_count(handle) == 2)
    #expect(String(cString: sp_statistics_name(handle, 0)) == "a" && sp_statistics_name(handle, 2) == nil)
    #expect(sp_statistics_name(handle, 1) == sp_statistics_name(handle, 1))
    var (channels, rows) = (0, UInt64(0))
    #expect(sp_statistics_layer(handle, 1, &channels, &rows, nil) == SP_OK && channels == 2 && rows == 2)
    #expect(sp_statistics_layer(handle, 1, nil, nil, nil) == SP_OK)
    #expect(sp_statistics_layer(handle, -1, nil, nil, nil) == SP_E_ARGUMENT)
    var (means, deviations) = ([0.0, 0], [0.0, 0])
    #expect(sp_statistics_state(handle, 1, &means, &deviations, 2, nil) == SP_OK && means == [2, 10] && deviations == [2, 0])
    #expect(sp_statistics_state(handle, 1, &means, &deviations, 3, nil) == SP_E_SHAPE)
    means.withUnsafeMutableBufferPointer { both in
      #expect(sp_statistics_state(handle, 1, both.baseAddress, both.baseAddress! + 1, 2, nil) == SP_E_OVERLAP)
    }
    means = [2, 10]
    #expect(sp_statistics_add_state(other, "b", 2, means, deviations, 2, nil) == SP_OK)
    #expect(sp_statistics_add_state(other, "b", .max, means, deviations, 2, nil) == SP_E_ARGUMENT)
    #expect(sp_statistics_add_state(other, "b", 2, means, deviations, 0, nil) == SP_E_ARGUMENT)
    #expect(sp_statistics_merge(handle, other, nil) == SP_OK && sp_statistics_merge(handle, handle, nil) == SP_E_ARGUMENT)
    values.withUnsafeMutableBytes { memory in
      var out = Self.view(memory.baseAddress, 1, 2)
      #expect(sp_statistics_read(handle, 1, &out, nil) == SP_E_SHAPE)
      (out.rank, out.shape.0) = (1, 2)
      #expect(sp_statistics_read(handle, 1, &out, nil) == SP_OK)
    }
    #expect(values[..<2] == [5, 100])
  }

  @Test func nothingIsNoCollection() {
    #expect(sp_statistics_count(nil) == 0 && sp_statistics_name(nil, 0) == nil)
    #expect(sp_statistics_create(nil, nil, nil) == SP_E_NULL && sp_statistics_update(nil, nil, nil, 0, nil) == SP_E_NULL)
    #expect(sp_statistics_save(nil, nil, 0, nil) == SP_E_NULL && sp_statistics_merge(nil, nil, nil) == SP_E_NULL)
    sp_statistics_free(nil)
    var handle: OpaquePointer?
    #expect(sp_statistics_create("mean", &handle, nil) == SP_E_PARAMETER && handle == nil)
  }
}
