"""Functions on arrays with arguments that cannot be. Part of raw_abi_calls.py."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_double, c_size_t

from raw_abi import HUGE, LIB, matrix, misaligned, nan_matrix, odd_views, refused, shape, view
from stockpot import _abi


def check_errors() -> None:
    small = _abi.Error(struct_size=8)
    for error in (None, byref(_abi.Error()), byref(small), byref(_abi.Error(struct_size=2**32 - 1))):
        refused("sp_cast", None, None, error=error)
    assert small.message == b""


def check_cast() -> None:
    refused("sp_cast", None, byref(view()))
    refused("sp_cast", byref(view()), None)
    for odd in odd_views():
        refused("sp_cast", byref(odd), byref(view()))
        refused("sp_cast", byref(view()), byref(odd))
    source = view()
    refused("sp_cast", byref(source), byref(source))
    refused("sp_cast", byref(source), byref(view(data=source.data + 4)))
    refused("sp_cast", byref(source), byref(view(4)))
    refused("sp_cast", byref(view(dtype=26)), byref(view()))
    refused("sp_cast", byref(view()), byref(view(dtype=26)))


def check_combine() -> None:
    inputs, ones, out = (_abi.View * 2)(view(), view()), (c_double * 2)(1, 1), view()
    refused("sp_combine", None, 2, ones, 0, byref(out))
    refused("sp_combine", inputs, 2, None, 0, byref(out))
    refused("sp_combine", inputs, 2, ones, 0, None)
    refused("sp_combine", inputs, 2, ones, 0, byref(inputs[1]))
    for count in (0, *HUGE):
        refused("sp_combine", inputs, count, ones, 0, byref(out))
    for threads in (-1, -(2**31)):
        refused("sp_combine", inputs, 2, ones, threads, byref(out))
    for bad in (float("nan"), float("inf")):
        refused("sp_combine", inputs, 2, (c_double * 2)(1, bad), 0, byref(out))
    refused("sp_combine", inputs, 1, misaligned(ones), 0, byref(out))
    for odd in odd_views():
        refused("sp_combine", (_abi.View * 2)(view(), odd), 2, ones, 0, byref(out))
        refused("sp_combine", inputs, 2, ones, 0, byref(odd))


def check_gram() -> None:
    inputs, out = (_abi.View * 2)(view(), view()), (c_double * 4)()
    refused("sp_gram", None, 2, None, 0, out)
    refused("sp_gram", inputs, 2, None, 0, None)
    for count in (0, 1025, *HUGE):
        refused("sp_gram", inputs, count, None, 0, out)
    refused("sp_gram", inputs, 2, None, -5, out)
    refused("sp_gram", inputs, 1, None, 0, misaligned(out))
    for odd in odd_views():
        refused("sp_gram", (_abi.View * 2)(odd, view()), 2, None, 0, out)
        refused("sp_gram", inputs, 2, byref(odd), 0, out)


def check_geometric_median() -> None:
    function = "sp_geometric_median_weights"
    gram, out = (c_double * 4)(1, 0, 0, 1), (c_double * 2)()
    refused(function, None, 2, None, 0.0, 10, 0.0, out, None, None)
    refused(function, gram, 2, None, 0.0, 10, 0.0, None, None, None)
    for count in (0, 1025, *HUGE):
        refused(function, gram, count, None, 0.0, 10, 0.0, out, None, None)
    refused(function, misaligned(gram), 1, None, 0.0, 10, 0.0, out, None, None)
    refused(function, gram, 1, misaligned((c_double * 2)(1, 1)), 0.0, 10, 0.0, out, None, None)
    refused(function, gram, 1, None, 0.0, 10, 0.0, misaligned(out), None, None)
    for eps, most, ftol in ((-1.0, 1, 0.0), (float("nan"), 1, 0.0), (0.0, -1, 0.0), (0.0, 1, float("nan"))):
        refused(function, gram, 2, None, eps, most, ftol, out, None, None)
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        refused(function, gram, 2, (c_double * 2)(1, weight), 0.0, 1, 0.0, out, None, None)
    for bad in (float("nan"), float("inf")):
        refused(function, (c_double * 4)(1, bad, bad, 1), 2, None, 0.0, 1, 0.0, out, None, None)
    odd = (c_double * 4)(-1, 5, -5, -1)  # neither symmetric nor a Gram matrix: any answer, but an answer
    LIB.sp_geometric_median_weights(odd, 2, None, 0.0, 10, 0.0, out, None, None, None)


def check_polar_factor() -> None:
    function = "sp_polar_factor"
    source, out = matrix(), matrix()
    refused(function, None, 0, 1e-6, byref(out))
    refused(function, byref(source), 0, 1e-6, None)
    refused(function, byref(source), 0, 1e-6, byref(source))
    for complete in (2, 2**32 - 1):
        refused(function, byref(source), complete, 1e-6, byref(out))
    for tolerance in (-1.0, 1.5, float("nan"), float("inf")):
        refused(function, byref(source), 0, tolerance, byref(out))
    for bad in (view(), matrix(4, 2), matrix(2, 4, dtype=26), matrix(1, 4), view(8, rank=3, shape=shape(2, 2, 2))):
        refused(function, byref(source), 0, 1e-6, byref(bad))
        if bad.rank != 2 or bad.dtype == 26:
            refused(function, byref(bad), 0, 1e-6, byref(bad))
    for value in (float("nan"), float("inf")):
        refused(function, byref(nan_matrix(value)), 0, 1e-6, byref(out))
    for odd in odd_views():
        refused(function, byref(odd), 0, 1e-6, byref(out))
        refused(function, byref(source), 0, 1e-6, byref(odd))


def check_truncated_svd() -> None:
    function = "sp_truncated_svd"
    source, u, s, vt = matrix(), matrix(2, 2), view(2), matrix(2, 4)
    outs = [u, s, vt]
    refused(function, None, 2, *map(byref, outs))
    for position in range(3):
        refused(function, byref(source), 2, *(None if i == position else byref(o) for i, o in enumerate(outs)))
        for odd in (*odd_views(), matrix(3, 3), source):
            refused(function, byref(source), 2, *(byref(odd if i == position else o) for i, o in enumerate(outs)))
    for rank in (1, 3, *HUGE):
        refused(function, byref(source), rank, *map(byref, outs))
    refused(function, byref(source), 2, byref(u), byref(s), byref(matrix(2, 4, data=u.data)))
    for odd in (*odd_views(), view(), matrix(dtype=26), nan_matrix(float("nan"))):
        refused(function, byref(odd), 2, *map(byref, outs))


def check_low_rank_plus_sparse() -> None:
    rank = c_size_t()
    function = "sp_low_rank_plus_sparse_rank"
    refused(function, 4, 4, None, None)
    for size in (0, 2**31, *HUGE):
        refused(function, size, 4, None, byref(rank))
        refused(function, 4, size, None, byref(rank))
    texts = (b"", b"[]", b"{", b'{"sparsity": 2}', b'{"then": "sum"}', b"\xff", b"[" * 5000, b'{"prune_n": 2}')
    for text in texts:
        refused(function, 4, 4, text, byref(rank))
    function = "sp_low_rank_plus_sparse"
    source, scale, u, v, sparse = matrix(), view(4), matrix(2, 1), matrix(1, 4), matrix()
    outs = [u, v, sparse]
    refused(function, None, None, None, *map(byref, outs))
    refused(function, byref(matrix(0, 4)), None, None, *map(byref, outs))
    for text in (*texts, b'{"target_rank": 2}'):
        refused(function, byref(source), None, text, *map(byref, outs))
    for position in range(3):
        refused(function, byref(source), None, None, *(None if i == position else byref(o) for i, o in enumerate(outs)))
        for odd in (*odd_views(), matrix(3, 3), source):
            arguments = (byref(odd if i == position else o) for i, o in enumerate(outs))
            refused(function, byref(source), None, None, *arguments)
    for value in (-1.0, float("nan"), float("inf")):
        bad = view(4, dtype=2)
        bad.memory[1] = value
        refused(function, byref(source), byref(bad), None, *map(byref, outs))
    for odd in (*odd_views(), view(3), matrix(2, 2)):
        refused(function, byref(source), byref(odd), None, *map(byref, outs))
    for odd in (*odd_views(), view(), matrix(dtype=26), nan_matrix(float("inf"))):
        refused(function, byref(odd), byref(scale), None, *map(byref, outs))


def check_methods() -> None:
    handle = _abi.Method()
    assert LIB.sp_method_name(2**64 - 1) is None
    assert LIB.sp_method_name(2**63) is None
    assert LIB.sp_method_schema(None) is None
    assert LIB.sp_method_schema(b"\xff\xfe") is None
    refused("sp_method_create", None, None, byref(handle))
    refused("sp_method_create", b"linear", None, None)
    refused("sp_method_create", b"", None, byref(handle))
    refused("sp_method_create", b"\xff", None, byref(handle))
    for text in (b"", b"[]", b"5", b"{", b'{"a":}', b'{"weight": 1e999}', b'{"nothing": 1}', b"\xff", b"[" * 5000):
        refused("sp_method_create", b"linear", text, byref(handle))
        assert not handle
    assert LIB.sp_method_create(b"linear", None, byref(handle), None) == 0
    assert LIB.sp_method_report_json(handle) == b"{}"
    models, out = (_abi.View * 2)(view(), view()), view()
    refused("sp_method_merge", None, models, 2, None, None, 0, byref(out))
    refused("sp_method_merge", handle, None, 2, None, None, 0, byref(out))
    refused("sp_method_merge", handle, models, 2, None, None, 0, None)
    refused("sp_method_merge", handle, models, 2, None, None, -1, byref(out))
    refused("sp_method_merge", handle, models, 2, None, b"\xff\xfe", 0, byref(models[0]))
    for count in (0, *HUGE):
        refused("sp_method_merge", handle, models, count, None, None, 0, byref(out))
    for odd in odd_views():
        refused("sp_method_merge", handle, (_abi.View * 2)(view(), odd), 2, None, None, 0, byref(out))
        refused("sp_method_merge", handle, models, 2, byref(odd), None, 0, byref(out))
        refused("sp_method_merge", handle, models, 2, None, None, 0, byref(odd))
    LIB.sp_method_free(handle)
    LIB.sp_method_free(None)
    assert LIB.sp_method_report_json(None) is None


def check_task_vectors() -> None:
    inputs, base, output = (_abi.View * 2)(view(), view()), view(), view(dtype=22)
    doubles, count = (c_double * 8)(), ctypes.c_uint64()
    name = "sp_magnitude_threshold"
    refused(name, None, byref(base), 1, 1, doubles, byref(count), byref(count))
    refused(name, byref(base), None, 1, 1, None, byref(count), byref(count))
    refused(name, byref(base), None, 1, 1, misaligned(doubles), None, None)
    for rank in (0, 9, *HUGE):
        refused(name, byref(base), None, rank, 1, doubles, None, None)
    refused(name, byref(base), byref(view(7)), 1, 1, doubles, None, None)
    refused(name, byref(base), None, 1, -1, doubles, None, None)
    for odd in odd_views():
        refused(name, byref(odd), byref(base), 1, 1, doubles, None, None)
        refused(name, byref(base), byref(odd), 1, 1, doubles, None, None)

    name = "sp_elect_signs"
    refused(name, None, 2, byref(base), b"mass", b"plus", 1, byref(output))
    refused(name, inputs, 2, None, b"mass", b"plus", 1, byref(output))
    for number in (0, *HUGE):
        refused(name, inputs, number, byref(base), b"mass", b"plus", 1, byref(output))
    for rule, zero in ((b"none", b"plus"), (None, b"plus"), (b"mass", b"minus"), (b"mass", None), (b"\xff", b"plus")):
        refused(name, inputs, 2, byref(base), rule, zero, 1, byref(output))
    refused(name, inputs, 2, byref(base), b"mass", b"plus", 1, None)
    refused(name, inputs, 2, byref(base), b"mass", b"plus", 1, byref(view()))  # not I8
    for odd in odd_views():
        refused(name, byref(odd), 1, byref(base), b"mass", b"plus", 1, byref(output))
        refused(name, inputs, 2, byref(odd), b"mass", b"plus", 1, byref(output))
        refused(name, inputs, 2, byref(base), b"mass", b"plus", 1, byref(odd))

    name = "sp_tall_masks"
    masks = (_abi.View * 2)(view(dtype=20), view(dtype=20))
    refused(name, None, 2, byref(base), None, None, 1, masks)
    refused(name, inputs, 2, None, None, None, 1, masks)
    refused(name, inputs, 2, byref(base), None, None, 1, None)
    refused(name, inputs, 2, byref(base), None, None, 1, (_abi.View * 2)(view(), view()))  # not BOOL
    same = view(dtype=20)
    refused(name, inputs, 2, byref(base), None, None, 1, (_abi.View * 2)(same, same))
    for text in (b"[]", b"{", b'{"k": 2}', b'{"tall_mask_lambda": -1}', b'{"tall_mask_lambda": [1]}', b"\xff"):
        refused(name, inputs, 2, byref(base), text, None, 1, masks)
    for number in (0, *HUGE):
        refused(name, inputs, number, byref(base), None, None, 1, masks)

    name = "sp_random_mask"
    place = (ctypes.c_uint8 * 8)()
    refused(name, 0, b"w", 0, 0.5, 0, 8, None)
    refused(name, 0, b"\xff", 0, 0.5, 0, 8, place)
    for keep in (-0.1, 1.1, float("nan"), float("inf")):
        refused(name, 0, b"w", 0, keep, 0, 8, place)
    refused(name, 0, b"w", 0, 0.5, 2**63, 8, place)
    refused(name, 0, b"w", 0, 0.5, 2**63 - 1, 8, place)
    refused(name, 0, b"w", 0, 0.5, 0, HUGE[0], place)
    assert LIB.sp_random_mask(0, None, 0, 0.5, 0, 0, None, None) == 0


def check_arrays() -> None:
    """All of them."""
    check_errors()
    check_cast()
    check_combine()
    check_gram()
    check_geometric_median()
    check_polar_factor()
    check_truncated_svd()
    check_low_rank_plus_sparse()
    check_methods()
    check_task_vectors()
