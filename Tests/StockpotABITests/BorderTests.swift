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

  // MARK: - Task vectors

  /// Two models and a base of four F32 elements, with places for signs and masks.
  private func withTaskVectors<Result>(
    _ body: (_ models: UnsafeMutablePointer<sp_view>, _ base: inout sp_view, _ bytes: UnsafeMutableRawPointer) -> Result
  ) -> Result {
    withUnsafeTemporaryAllocation(byteCount: 128, alignment: 64) { memory in
      memory.initializeMemory(as: UInt8.self, repeating: 0)
      let start = memory.baseAddress!
      for (i, value) in ([1, 2, -3, 4, -1, 2, -1, 0, 0, 0, 0, 0] as [Float]).enumerated() {
        start.storeBytes(of: value, toByteOffset: 4 * i, as: Float.self)
      }
      var models = [Self.view(start, 4, SP_DTYPE_F32), Self.view(start + 16, 4, SP_DTYPE_F32)]
      var base = Self.view(start + 32, 4, SP_DTYPE_F32)
      return models.withUnsafeMutableBufferPointer { body($0.baseAddress!, &base, start + 64) }
    }
  }

  private func signs(
    _ rule: String? = "mass", _ zeroSign: String? = "plus", count: Int = 2,
    _ change: (UnsafeMutablePointer<sp_view>, inout sp_view, inout sp_view) -> Void = { _, _, _ in }
  ) -> (status: sp_status, signs: [Int8]) {
    withTaskVectors { models, base, bytes in
      var out = Self.view(bytes, 4, SP_DTYPE_I8)
      change(models, &base, &out)
      func call(_ rule: UnsafePointer<CChar>?, _ zeroSign: UnsafePointer<CChar>?) -> sp_status {
        sp_elect_signs(models, count, &base, rule, zeroSign, 1, &out, nil)
      }
      let status: sp_status
      if let rule, let zeroSign {
        status = rule.withCString { rule in zeroSign.withCString { call(rule, $0) } }
      } else {
        status = rule == nil ? call(nil, "plus") : rule!.withCString { call($0, nil) }
      }
      return (status, (0..<4).map { bytes.load(fromByteOffset: $0, as: Int8.self) })
    }
  }

  @Test func signsAreElectedOrRefused() {
    #expect(signs() == (SP_OK, [1, 1, -1, 1]) && signs("count", "drop") == (SP_OK, [0, 1, -1, 1]))
    for rule in ["", "none", "MASS", "normfrac "] { #expect(signs(rule).status == SP_E_PARAMETER) }
    #expect(signs("mass", "zero").status == SP_E_PARAMETER)
    #expect(signs(nil).status == SP_E_NULL && signs("mass", nil).status == SP_E_NULL)
    for count in [0, -1, 65537, .max, .min] { #expect(signs(count: count).status == SP_E_ARGUMENT) }
    #expect(signs { models, _, _ in models[1].shape.0 = 3 }.status == SP_E_SHAPE)
    #expect(signs { models, _, _ in (models[1].shape.0, models[1].count) = (3, 3) }.status == SP_E_SHAPE)
    #expect(signs { _, base, _ in (base.rank, base.shape.0, base.shape.1) = (2, 2, 2) }.status == SP_E_SHAPE)
    #expect(signs { _, base, _ in base.dtype = SP_DTYPE_I32 }.status == SP_E_DTYPE)
    #expect(signs { models, _, _ in models[0].dtype = SP_DTYPE_BOOL }.status == SP_E_DTYPE)
    #expect(signs { _, _, out in out.dtype = SP_DTYPE_U8 }.status == SP_E_DTYPE)
    #expect(signs { _, _, out in (out.rank, out.shape.0, out.shape.1) = (2, 2, 2) }.status == SP_E_SHAPE)
    #expect(signs { models, _, out in out.data = models[1].data }.status == SP_E_OVERLAP)
    #expect(signs { _, base, out in out.data = base.data + 12 }.status == SP_E_OVERLAP)
    #expect(signs { models, _, _ in models[0].data.storeBytes(of: Float.nan, as: Float.self) }.status == SP_E_NON_FINITE)
    // Nothing at all is no mistake.
    let empty = signs { models, base, out in
      for view in [models, models + 1] { (view.pointee.count, view.pointee.shape.0) = (0, 0) }
      ((base.count, base.shape.0), (out.count, out.shape.0)) = ((0, 0), (0, 0))
    }
    #expect(empty == (SP_OK, [0, 0, 0, 0]))
  }

  private func masks(
    _ json: String? = nil, name: [CChar]? = nil, count: Int = 2,
    _ change: (UnsafeMutablePointer<sp_view>, UnsafeMutablePointer<sp_view>) -> Void = { _, _ in }
  ) -> (status: sp_status, masks: [UInt8]) {
    withTaskVectors { models, base, bytes in
      var outs = [Self.view(bytes, 4, SP_DTYPE_BOOL), Self.view(bytes + 8, 4, SP_DTYPE_BOOL)]
      let status = outs.withUnsafeMutableBufferPointer { outs in
        change(models, outs.baseAddress!)
        func call(_ json: UnsafePointer<CChar>?) -> sp_status {
          guard let name else { return sp_tall_masks(models, count, &base, json, nil, 1, outs.baseAddress!, nil) }
          return name.withUnsafeBufferPointer {
            sp_tall_masks(models, count, &base, json, $0.baseAddress!, 1, outs.baseAddress!, nil)
          }
        }
        return json.map { $0.withCString { call($0) } } ?? call(nil)
      }
      return (status, [0, 1, 2, 3, 8, 9, 10, 11].map { bytes.load(fromByteOffset: $0, as: UInt8.self) })
    }
  }

  @Test func masksAreMadeOrRefused() {
    // tau = 0 4 -4 4.
    let plain: [UInt8] = [1, 1, 1, 1, 1, 1, 0, 0]
    #expect(
      masks() == (SP_OK, plain) && masks("{}") == (SP_OK, plain)
        && masks("{\"tall_mask_lambda\": [0.4, 0.4]}") == (SP_OK, plain))
    #expect(masks("{\"tall_mask_lambda\": 2}") == (SP_OK, [0, 0, 1, 1, 0, 0, 0, 0]))
    #expect(masks("{\"use_ties\": true, \"density\": 0.5}").status == SP_OK)
    for json in ["{\"k\": 1}", "{\"tall_mask_lambda\": -1}", "{\"tall_mask_lambda\": [1]}", "{\"density\": 2}"] {
      #expect(masks(json).status == SP_E_PARAMETER, "\(json)")
    }
    for json in ["", "{", "[]", "3"] { #expect(masks(json).status == SP_E_FORMAT, "\(json)") }
    for count in [0, -1, 65537, .max] { #expect(masks(count: count).status == SP_E_ARGUMENT) }
    #expect(masks { _, outs in (outs[1].count, outs[1].shape.0) = (3, 3) }.status == SP_E_SHAPE)
    #expect(masks { _, outs in outs[1].dtype = SP_DTYPE_U8 }.status == SP_E_DTYPE)
    #expect(masks { _, outs in outs[1].data = outs[0].data + 3 }.status == SP_E_OVERLAP)
    #expect(masks { models, outs in outs[0].data = models[0].data + 5 }.status == SP_E_OVERLAP)
    #expect(masks { _, outs in outs[0].data = nil }.status == SP_E_NULL)
    #expect(masks { models, _ in models[1].data.storeBytes(of: Float.infinity, as: Float.self) }.status == SP_E_NON_FINITE)
  }

  @Test func thresholdsAreFoundOrRefused() {
    func threshold(
      rank: UInt64 = 1, reference: Bool = true, _ change: (UnsafeMutablePointer<sp_view>, inout sp_view) -> Void = { _, _ in }
    ) -> (sp_status, Double, UInt64, UInt64) {
      withTaskVectors { models, base, bytes in
        change(models, &base)
        let (value, above) = (bytes.assumingMemoryBound(to: Double.self), (bytes + 8).assumingMemoryBound(to: UInt64.self))
        let status = withUnsafePointer(to: base) {
          sp_magnitude_threshold(models, reference ? $0 : nil, rank, 1, value, above, above + 1, nil)
        }
        return (status, value.pointee, above[0], above[1])
      }
    }
    #expect(threshold() == (SP_OK, 4, 0, 1) && threshold(rank: 4, reference: false) == (SP_OK, 1, 3, 1))
    #expect(threshold(rank: 2) { models, base in base.data = models[1].data } == (SP_OK, 2, 1, 2))
    for rank in [0, 5, UInt64.max] { #expect(threshold(rank: rank).0 == SP_E_ARGUMENT) }
    #expect(threshold { models, _ in (models[0].count, models[0].shape.0) = (0, 0) }.0 == SP_E_ARGUMENT)
    #expect(threshold { _, base in (base.count, base.shape.0) = (3, 3) }.0 == SP_E_SHAPE)
    #expect(threshold { _, base in base.dtype = SP_DTYPE_I32 }.0 == SP_E_DTYPE)
    #expect(threshold { models, _ in models[0].data.storeBytes(of: Float.nan, as: Float.self) }.0 == SP_E_NON_FINITE)
    #expect(threshold { _, base in base.data.storeBytes(of: -Float.infinity, as: Float.self) }.0 == SP_E_NON_FINITE)
    // A place for the result that is not aligned.
    let misplaced = withTaskVectors { models, base, bytes in
      sp_magnitude_threshold(models, &base, 1, 1, (bytes + 4).assumingMemoryBound(to: Double.self), nil, nil, nil)
    }
    #expect(misplaced == SP_E_ALIGNMENT)
  }

  @Test func randomMasksAreMadeOrRefused() {
    func mask(_ keep: Double, start: UInt64 = 0, count: Int = 4, model: UInt32 = 0) -> (sp_status, [UInt8]) {
      var out = [UInt8](repeating: 7, count: 4)
      return (sp_random_mask(0, nil, model, keep, start, count, &out, nil), out)
    }
    #expect(
      mask(1) == (SP_OK, [1, 1, 1, 1]) && mask(0) == (SP_OK, [0, 0, 0, 0]) && mask(0.5, count: 0) == (SP_OK, [7, 7, 7, 7]))
    for keep in [-0.1, 1.1, .nan, .infinity] { #expect(mask(keep).0 == SP_E_ARGUMENT, "\(keep)") }
    #expect(mask(0.5, count: -1).0 == SP_E_ARGUMENT && mask(0.5, start: .max).0 == SP_E_ARGUMENT)
    #expect(mask(0.5, start: UInt64(Int.max - 3)).0 == SP_E_ARGUMENT)
    let last = mask(0.5, start: UInt64(Int.max - 4), model: .max)
    #expect(last.0 == SP_OK && last.1.allSatisfy { $0 <= 1 })
  }
}
