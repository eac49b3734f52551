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

import raw_abi
from raw_abi import HUGE, LIB, misaligned, odd_views, refused, shape, view
from raw_abi_arrays import check_arrays
from stockpot import _abi


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


if __name__ == "__main__":
    folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
    check_arrays()
    check_checkpoints(folder, checkpoint)
    check_statistics(folder)
    check_jobs(folder, checkpoint)
    check_reconstruction(folder, checkpoint)
    check_extraction(folder, checkpoint)
    print(*raw_abi.failures, sep="\n")
    sys.exit(f"{len(raw_abi.failures)} of {raw_abi.calls} calls were not refused" if raw_abi.failures else None)
