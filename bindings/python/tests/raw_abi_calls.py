"""Calls every function of the library with arguments that cannot be. Run as a program: it must end, and say so.

What the header says cannot be checked is left out: pointers that are not readable for the size stated, and strings
without an end.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_size_t
from pathlib import Path
from typing import Any

from stockpot import _abi, _lib
from stockpot.errors import STATUS

LIB = _lib.lib()
HUGE = (2**63, 2**64 - 1)
calls = 0


def view(count: int = 8, dtype: int = 1, **changes: Any) -> _abi.View:
    memory = (ctypes.c_double * 64)()
    made = _abi.View(ctypes.addressof(memory), count, (count,), 1, dtype)
    for name, value in changes.items():
        setattr(made, name, value)
    made.memory = memory
    return made


failures: list[str] = []


def refused(function: str, *arguments: Any, error: Any = "own") -> None:
    """Call a function that must refuse: a negative status that is known, the same in the error, and a sentence."""
    global calls
    calls += 1
    own = _abi.Error(struct_size=ctypes.sizeof(_abi.Error))
    given = byref(own) if error == "own" else error
    status = getattr(LIB, function)(*arguments, given)
    wrong = status not in STATUS.values() or status in (0, STATUS["SP_E_INTERNAL"])
    if error == "own" and not wrong:
        wrong = own.status != status or not own.message
    if wrong:
        line = sys._getframe(1).f_lineno
        failures.append(f"line {line}: {function} gave {status}: {own.message.decode()}")


def shape(*lengths: int) -> Any:
    return (ctypes.c_int64 * 8)(*lengths)


def odd_views() -> list[_abi.View]:
    """Views that no function may take."""
    base = view()
    return [
        view(data=None),
        view(data=base.data + 1),
        view(rank=-1),
        view(rank=9),
        view(rank=2**31 - 1),
        view(rank=-(2**31)),
        view(count=2**63),
        view(count=2**64 - 1),
        view(count=7, shape=shape(8)),
        view(shape=shape(-8)),
        view(shape=shape(-(2**63))),
        view(count=2**62, shape=shape(2**62)),  # the bytes overflow
        view(count=0, rank=2, shape=shape(2**62, 4)),  # the product overflows to 0
        view(count=0, rank=4, shape=shape(2**32, 2**32, 2**32, 2**32)),
        view(dtype=0),
        view(dtype=-1),
        view(dtype=7),
        view(dtype=99),
        view(dtype=2**31 - 1),
        view(row_stride_bytes=4),
        view(reserved=(ctypes.c_uint64 * 2)(0, 1)),
    ]


def misaligned(array: Any) -> Any:
    """A pointer one byte past the start of an array of doubles."""
    return ctypes.cast(ctypes.addressof(array) + 1, POINTER(c_double))


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


def matrix(rows: int = 2, columns: int = 4, **changes: Any) -> _abi.View:
    return view(rows * columns, rank=2, shape=shape(rows, columns), **changes)


def nan_matrix(value: float) -> _abi.View:
    made = matrix(dtype=2)
    made.memory[3] = value
    return made


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


def check_checkpoints(root: Path, file: Path) -> None:
    handle, index = _abi.Checkpoint(), c_size_t()
    info = _abi.TensorInfo(struct_size=ctypes.sizeof(_abi.TensorInfo))
    refused("sp_checkpoint_open", None, byref(handle))
    refused("sp_checkpoint_open", bytes(file), None)
    for path in (b"", b"/", b"/nowhere", b"\xff\xfe", b"a" * 100_000):
        refused("sp_checkpoint_open", path, byref(handle))
        assert not handle
    assert LIB.sp_checkpoint_tensor_count(None) == 0
    assert LIB.sp_checkpoint_metadata_json(None) is None
    assert LIB.sp_checkpoint_open(bytes(file), byref(handle), None) == 0
    count = LIB.sp_checkpoint_tensor_count(handle)
    refused("sp_checkpoint_tensor_info", None, 0, byref(info))
    refused("sp_checkpoint_tensor_info", handle, 0, None)
    refused("sp_checkpoint_tensor_info", handle, 0, byref(_abi.TensorInfo()))
    for position in (count, *HUGE):
        refused("sp_checkpoint_tensor_info", handle, position, byref(info))
        refused("sp_checkpoint_read", handle, position, ctypes.create_string_buffer(8), 8)
    refused("sp_checkpoint_find", None, b"w", byref(index))
    refused("sp_checkpoint_find", handle, None, byref(index))
    refused("sp_checkpoint_find", handle, b"w", None)
    refused("sp_checkpoint_find", handle, b"\xff", byref(index))
    refused("sp_checkpoint_read", None, 0, ctypes.create_string_buffer(8), 8)
    refused("sp_checkpoint_read", handle, 0, None, 8)
    refused("sp_checkpoint_read", handle, 0, ctypes.create_string_buffer(8), 1)
    LIB.sp_checkpoint_free(handle)
    LIB.sp_checkpoint_free(None)

    names, views = (c_char_p * 2)(b"a", b"b"), (_abi.View * 2)(view(), view())
    path = bytes(root / "out.safetensors")
    save = "sp_checkpoint_save"
    refused(save, None, names, views, 2, None, 0, 0)
    refused(save, b"", names, views, 2, None, 0, 0)
    refused(save, path, None, views, 2, None, 0, 0)
    refused(save, path, names, None, 2, None, 0, 0)
    refused(save, path, (c_char_p * 2)(b"a", None), views, 2, None, 0, 0)
    refused(save, path, (c_char_p * 2)(b"a", b"a"), views, 2, None, 0, 0)
    refused(save, path, (c_char_p * 2)(b"a", b"\xff"), views, 2, None, 0, 0)
    refused(save, path, names, views, 2, None, 0, 7)
    for size in HUGE:
        refused(save, path, names, views, size, None, 0, 0)
    for text in (b"", b"[]", b'{"a": 1}', b"{"):
        refused(save, path, names, views, 2, text, 0, 0)
    for odd in odd_views():
        refused(save, path, names, (_abi.View * 2)(view(), odd), 2, None, 0, 0)


def check_statistics(root: Path) -> None:
    handle, other = _abi.Statistics(), _abi.Statistics()
    size, rows = c_size_t(), ctypes.c_uint64()
    doubles = (c_double * 8)(*[1.0] * 8)
    refused("sp_statistics_create", None, None)
    for name in (b"", b"mean", b"second_momen", b"\xff"):
        refused("sp_statistics_create", name, byref(handle))
        assert not handle
    assert LIB.sp_statistics_count(None) == 0
    assert LIB.sp_statistics_name(None, 0) is None
    assert LIB.sp_statistics_create(None, byref(handle), None) == 0
    assert LIB.sp_statistics_create(b"variance", byref(other), None) == 0
    refused("sp_statistics_save", handle, bytes(root / "out.safetensors"), 0)  # no layer

    update = "sp_statistics_update"
    refused(update, None, b"w", byref(view()), -1)
    refused(update, handle, None, byref(view()), -1)
    refused(update, handle, b"w", None, -1)
    for name in (b"", b"\xff\xfe", b"__metadata__"):
        refused(update, handle, name, byref(view()), -1)
    for axis in (1, -2, 8, 2**31 - 1, -(2**31)):
        refused(update, handle, b"w", byref(view()), axis)
    for odd in odd_views():
        refused(update, handle, b"w", byref(odd), -1)
    refused(update, handle, b"w", byref(view(dtype=26)), -1)
    refused(update, handle, b"w", byref(view(1, rank=0)), -1)  # a scalar
    refused(update, handle, b"w", byref(view(0)), -1)  # no channels
    refused(update, handle, b"w", byref(view(0, rank=2, shape=shape(2**62, 0))), 1)
    bad = view(dtype=2)
    bad.memory[3] = float("nan")
    refused(update, handle, b"w", byref(bad), -1)
    bad.memory[3] = 1e200  # its square is not a number of binary64
    refused(update, handle, b"w", byref(bad), -1)
    assert LIB.sp_statistics_count(handle) == 0
    assert LIB.sp_statistics_update(handle, b"w", byref(view(0, rank=2, shape=shape(0, 2**62))), 1, None) == 0
    assert LIB.sp_statistics_count(handle) == 0
    assert LIB.sp_statistics_update(handle, b"w", byref(view()), -1, None) == 0
    refused(update, handle, b"w", byref(view(7)), -1)  # another number of channels

    for index in (1, *HUGE):
        assert LIB.sp_statistics_name(handle, index) is None
        refused("sp_statistics_layer", handle, index, byref(size), byref(rows))
        refused("sp_statistics_read", handle, index, byref(view()))
        refused("sp_statistics_state", handle, index, doubles, (c_double * 8)(), 8)
    refused("sp_statistics_layer", None, 0, byref(size), byref(rows))
    refused("sp_statistics_read", None, 0, byref(view()))
    refused("sp_statistics_read", handle, 0, None)
    refused("sp_statistics_read", handle, 0, byref(view(7)))
    refused("sp_statistics_read", handle, 0, byref(view(dtype=26)))
    for odd in odd_views():
        refused("sp_statistics_read", handle, 0, byref(odd))
    state = "sp_statistics_state"
    refused(state, None, 0, doubles, (c_double * 8)(), 8)
    refused(state, handle, 0, None, doubles, 8)
    refused(state, handle, 0, doubles, None, 8)
    refused(state, handle, 0, doubles, doubles, 8)
    refused(state, handle, 0, misaligned(doubles), (c_double * 8)(), 8)
    refused(state, handle, 0, (c_double * 8)(), misaligned(doubles), 8)
    for count in (0, 7, *HUGE):
        refused(state, handle, 0, doubles, (c_double * 8)(), count)

    add = "sp_statistics_add_state"
    refused(add, None, b"w", 1, doubles, doubles, 8)
    refused(add, handle, None, 1, doubles, doubles, 8)
    refused(add, handle, b"__metadata__", 1, doubles, doubles, 8)
    refused(add, handle, b"w", 1, None, doubles, 8)
    refused(add, handle, b"w", 1, doubles, None, 8)
    refused(add, handle, b"w", 1, misaligned(doubles), doubles, 7)
    refused(add, handle, b"w", 1, doubles, misaligned(doubles), 7)
    for count in (0, 7, 2**31, *HUGE):
        refused(add, handle, b"w", 1, doubles, doubles, count)
    for count in (0, 2**53 + 1, *HUGE):
        refused(add, handle, b"w", count, doubles, doubles, 8)
    refused(add, handle, b"w", 2**53, doubles, doubles, 8)  # one row more than can be counted
    for value in (float("nan"), float("inf"), 1e300):
        refused(add, handle, b"w", 1, (c_double * 8)(*[value] * 8), doubles, 8)
    for value in (float("nan"), float("inf"), -1.0):
        refused(add, handle, b"w", 1, doubles, (c_double * 8)(*[value] * 8), 8)

    refused("sp_statistics_merge", None, handle)
    refused("sp_statistics_merge", handle, None)
    refused("sp_statistics_merge", handle, handle)
    assert LIB.sp_statistics_add_state(other, b"w", 1, doubles, doubles, 7, None) == 0
    refused("sp_statistics_merge", handle, other)

    save, path = "sp_statistics_save", bytes(root / "out.safetensors")
    refused(save, None, path, 0)
    refused(save, handle, None, 0)
    refused(save, handle, path, 2)
    for name in (b"", b"stats", b".safetensors/", b"\xff.safetensors", b"/dev/null/x.safetensors"):
        refused(save, handle, name, 0)
    assert LIB.sp_statistics_layer(handle, 0, byref(size), byref(rows), None) == 0
    assert (size.value, rows.value) == (8, 1)
    LIB.sp_statistics_free(handle)
    LIB.sp_statistics_free(other)
    LIB.sp_statistics_free(None)


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


def check_reconstruction(root: Path, file: Path) -> None:
    job, name = _abi.Job(), "sp_job_create_reconstruction"
    path, output = str(file).encode(), bytes(root / "rebuilt")
    refused(name, None, path, None, output, None, byref(job))
    refused(name, path, None, None, output, None, byref(job))
    refused(name, path, path, None, None, None, byref(job))
    refused(name, path, path, None, b"", None, byref(job))
    refused(name, path, path, None, output, None, None)
    refused(name, path, path, None, output, None, byref(job))  # not a correction
    refused(name, b"/nowhere", path, b"\xff", output, None, byref(job))
    options = _abi.JobOptions(struct_size=ctypes.sizeof(_abi.JobOptions), threads=-1)
    refused(name, path, path, None, output, byref(options), byref(job))
    assert not job


def check_extraction(root: Path, file: Path) -> None:
    job, name = _abi.Job(), "sp_job_create_lora_extraction"
    path, output, rank = str(file).encode(), bytes(root / "adapter"), b'{"rank": 2}'
    refused(name, None, path, output, rank, None, byref(job))
    refused(name, path, None, output, rank, None, byref(job))
    refused(name, path, path, None, rank, None, byref(job))
    refused(name, path, path, b"", rank, None, byref(job))
    refused(name, path, path, output, rank, None, None)
    refused(name, path, path, b"a.safetensors", rank, None, byref(job))
    for text in (
        None,
        b"",
        b"[]",
        b"{",
        b'{"rank": 0}',
        b'{"rank": 1e9}',
        b'{"rank": 2, "include": "x"}',
        b'{"rank": 2, "x": 1}',
    ):
        refused(name, path, path, output, text, None, byref(job))
    options = _abi.JobOptions(struct_size=ctypes.sizeof(_abi.JobOptions), threads=-1)
    refused(name, path, path, output, rank, byref(options), byref(job))
    assert not job


def check_jobs(root: Path, file: Path) -> None:
    job, progress = _abi.Job(), _abi.Progress(struct_size=ctypes.sizeof(_abi.Progress))
    recipe = json.dumps({"merge_method": "linear", "models": [str(file)]}).encode()
    output = bytes(root / "merged")
    refused("sp_job_create", None, output, None, byref(job))
    refused("sp_job_create", recipe, output, None, None)
    for text in (b"", b"[]", b"{}", b"{", b'{"merge_method": 5}', b"\xff", b"[" * 5000, b'{"a": 1, "a": 2}'):
        refused("sp_job_create", text, output, None, byref(job))
        assert not job
    size = ctypes.sizeof(_abi.JobOptions)
    for options in (
        _abi.JobOptions(struct_size=size, threads=-1),
        _abi.JobOptions(struct_size=size, overwrite=2),
        _abi.JobOptions(struct_size=size, resume=9),
        _abi.JobOptions(struct_size=size, strict=2**31),
        _abi.JobOptions(struct_size=size, reserved=1),
        _abi.JobOptions(struct_size=size, max_memory=1),
        _abi.JobOptions(struct_size=size, recipe_text=b"\xff\xfe"),
    ):
        refused("sp_job_create", recipe, output, byref(options), byref(job))

    class Longer(ctypes.Structure):
        _fields_ = (("options", _abi.JobOptions), ("tail", c_int32 * 2))

    longer = Longer(_abi.JobOptions(struct_size=ctypes.sizeof(Longer)), (c_int32 * 2)(0, 5))
    refused("sp_job_create", recipe, output, ctypes.cast(byref(longer), POINTER(_abi.JobOptions)), byref(job))
    longer.tail[1] = 0
    pointer = ctypes.cast(byref(longer), POINTER(_abi.JobOptions))
    assert LIB.sp_job_create(recipe, None, pointer, byref(job), None) == 0
    refused("sp_job_run", job, _abi.ProgressFunction(), None)  # no output path
    assert LIB.sp_job_report_json(job) is None
    LIB.sp_job_free(job)

    assert LIB.sp_job_create(recipe, output, None, byref(job), None) == 0
    assert LIB.sp_job_progress(None, byref(progress)) < 0
    assert LIB.sp_job_progress(job, None) < 0
    assert LIB.sp_job_progress(job, byref(_abi.Progress())) < 0
    assert LIB.sp_job_progress(job, byref(progress)) == 0
    assert LIB.sp_job_report_json(job) is None
    LIB.sp_job_cancel(None)
    LIB.sp_job_cancel(job)
    refused("sp_job_run", None, _abi.ProgressFunction(), None)
    refused("sp_job_run", job, _abi.ProgressFunction(), None)  # cancelled before it began
    refused("sp_job_run", job, _abi.ProgressFunction(), None)  # and a job runs once
    LIB.sp_job_free(job)
    LIB.sp_job_free(None)
    assert LIB.sp_job_plan_json(None) is None
    assert LIB.sp_job_report_json(None) is None

    stop = _abi.ProgressFunction(lambda progress, user: 1)
    assert LIB.sp_job_create(recipe, output, None, byref(job), None) == 0
    LIB.sp_job_run(job, stop, None, None)  # may finish before the first call
    LIB.sp_job_free(job)


if __name__ == "__main__":
    folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
    check_errors()
    check_cast()
    check_combine()
    check_gram()
    check_geometric_median()
    check_polar_factor()
    check_truncated_svd()
    check_low_rank_plus_sparse()
    check_methods()
    check_checkpoints(folder, checkpoint)
    check_statistics(folder)
    check_task_vectors()
    check_jobs(folder, checkpoint)
    check_reconstruction(folder, checkpoint)
    check_extraction(folder, checkpoint)
    print(*failures, sep="\n")
    sys.exit(f"{len(failures)} of {calls} calls were not refused" if failures else None)
