"""The C interface of include/stockpot.h in ctypes: its structs, its constants, and one declaration per function.

Nothing is loaded here (see `_lib`). tests/test_abi.py parses the header and compares every field, offset, constant and
signature with this file, so that the two cannot drift apart.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, Final

ABI_VERSION: Final = 0
VERSION: Final = (0, 1, 0)
MAX_RANK: Final = 8


class Error(ctypes.Structure):
    """sp_error: what went wrong. Made by the caller with `struct_size` set; see `new`."""

    _fields_ = (("struct_size", c_uint32), ("status", c_int32), ("message", c_char * 504))


class View(ctypes.Structure):
    """sp_view: a dense tensor in the caller's memory, row-major."""

    _fields_ = (
        ("data", c_void_p),
        ("count", c_size_t),
        ("shape", c_int64 * MAX_RANK),
        ("rank", c_int32),
        ("dtype", c_int32),
        ("row_stride_bytes", c_size_t),
        ("reserved", c_uint64 * 2),
    )


class TensorInfo(ctypes.Structure):
    """sp_tensor_info: name, type, shape and place of one tensor of a checkpoint."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("dtype", c_int32),
        ("rank", c_int32),
        ("reserved", c_uint32),
        ("shape", c_int64 * MAX_RANK),
        ("bytes", c_uint64),
        ("name", c_char_p),
        ("file", c_char_p),
    )


class JobOptions(ctypes.Structure):
    """sp_job_options: how a job runs. Zero means the default in every field."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("threads", c_int32),
        ("max_memory", c_uint64),
        ("shard_size", c_uint64),
        ("overwrite", c_uint32),
        ("resume", c_uint32),
        ("strict", c_uint32),
        ("reserved", c_uint32),
        ("recipe_text", c_char_p),
    )


class Progress(ctypes.Structure):
    """sp_progress: how far a job is."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("phase", c_int32),
        ("tensors_done", c_uint64),
        ("tensors_total", c_uint64),
        ("bytes_done", c_uint64),
        ("bytes_total", c_uint64),
        ("tensor", c_char * 256),
    )


class Method(c_void_p):
    """sp_method *."""


class Checkpoint(c_void_p):
    """sp_checkpoint *."""


class Statistics(c_void_p):
    """sp_statistics *."""


class Job(c_void_p):
    """sp_job *."""


ProgressFunction = ctypes.CFUNCTYPE(c_int32, POINTER(Progress), c_void_p)
"""sp_progress_fn. `ProgressFunction()` is the null pointer."""

STRUCTS: Final[dict[str, type[ctypes.Structure]]] = {
    "sp_error": Error,
    "sp_view": View,
    "sp_tensor_info": TensorInfo,
    "sp_job_options": JobOptions,
    "sp_progress": Progress,
}

HANDLES: Final[dict[str, type[c_void_p]]] = {
    "sp_method": Method,
    "sp_checkpoint": Checkpoint,
    "sp_statistics": Statistics,
    "sp_job": Job,
}

DTYPES: Final[dict[str, int]] = {
    "SP_DTYPE_F32": 1,
    "SP_DTYPE_F64": 2,
    "SP_DTYPE_F16": 3,
    "SP_DTYPE_BF16": 4,
    "SP_DTYPE_F8_E4M3FN": 5,
    "SP_DTYPE_F8_E5M2": 6,
    "SP_DTYPE_BOOL": 20,
    "SP_DTYPE_U8": 21,
    "SP_DTYPE_I8": 22,
    "SP_DTYPE_U16": 23,
    "SP_DTYPE_I16": 24,
    "SP_DTYPE_U32": 25,
    "SP_DTYPE_I32": 26,
    "SP_DTYPE_U64": 27,
    "SP_DTYPE_I64": 28,
    "SP_DTYPE_F8_E8M0": 29,
    "SP_DTYPE_C64": 30,
}

_STATUS = c_int32
_VIEW = POINTER(View)
_ERROR = POINTER(Error)
_DOUBLES = POINTER(c_double)
_LONG_TEXT = c_void_p
_INT32 = POINTER(c_int32)
_UINT64 = POINTER(c_uint64)
_SIZE = POINTER(c_size_t)

FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    # version
    "sp_version_string": (c_char_p, ()),
    "sp_abi_version": (c_int32, ()),
    "sp_struct_size": (c_size_t, (c_char_p,)),
    "sp_build_json": (c_char_p, ()),
    # status and element types
    "sp_status_name": (c_char_p, (_STATUS,)),
    "sp_dtype_name": (c_char_p, (c_int32,)),
    "sp_dtype_size": (c_size_t, (c_int32,)),
    # kernels
    "sp_cast": (_STATUS, (_VIEW, _VIEW, _ERROR)),
    "sp_combine": (_STATUS, (_VIEW, c_size_t, _DOUBLES, c_int32, _VIEW, _ERROR)),
    "sp_gram": (_STATUS, (_VIEW, c_size_t, _VIEW, c_int32, _DOUBLES, _ERROR)),
    "sp_geometric_median_weights": (
        _STATUS,
        (_DOUBLES, c_size_t, _DOUBLES, c_double, c_int32, c_double, _DOUBLES, _INT32, _DOUBLES, _ERROR),
    ),
    # task vectors
    "sp_magnitude_threshold": (_STATUS, (_VIEW, _VIEW, c_uint64, c_int32, _DOUBLES, _UINT64, _UINT64, _ERROR)),
    "sp_elect_signs": (_STATUS, (_VIEW, c_size_t, _VIEW, c_char_p, c_char_p, c_int32, _VIEW, _ERROR)),
    "sp_tall_masks": (_STATUS, (_VIEW, c_size_t, _VIEW, c_char_p, c_char_p, c_int32, _VIEW, _ERROR)),
    "sp_random_mask": (
        _STATUS,
        (c_uint64, c_char_p, c_uint32, c_double, c_uint64, c_size_t, POINTER(c_uint8), _ERROR),
    ),
    # linear algebra
    "sp_polar_factor": (_STATUS, (_VIEW, c_uint32, c_double, _VIEW, _ERROR)),
    "sp_truncated_svd": (_STATUS, (_VIEW, c_size_t, _VIEW, _VIEW, _VIEW, _ERROR)),
    "sp_low_rank_plus_sparse_rank": (_STATUS, (c_size_t, c_size_t, c_char_p, _SIZE, _ERROR)),
    "sp_low_rank_plus_sparse": (_STATUS, (_VIEW, _VIEW, c_char_p, _VIEW, _VIEW, _VIEW, _ERROR)),
    # methods
    "sp_method_count": (c_size_t, ()),
    "sp_method_name": (c_char_p, (c_size_t,)),
    "sp_method_schema": (c_char_p, (c_char_p,)),
    "sp_method_create": (_STATUS, (c_char_p, c_char_p, POINTER(Method), _ERROR)),
    "sp_method_merge": (_STATUS, (Method, _VIEW, c_size_t, _VIEW, c_char_p, c_int32, _VIEW, _ERROR)),
    "sp_method_report_json": (c_char_p, (Method,)),
    "sp_method_free": (None, (Method,)),
    # checkpoints
    "sp_checkpoint_open": (_STATUS, (c_char_p, POINTER(Checkpoint), _ERROR)),
    "sp_checkpoint_tensor_count": (c_size_t, (Checkpoint,)),
    "sp_checkpoint_tensor_info": (_STATUS, (Checkpoint, c_size_t, POINTER(TensorInfo), _ERROR)),
    "sp_checkpoint_find": (_STATUS, (Checkpoint, c_char_p, _SIZE, _ERROR)),
    "sp_checkpoint_read": (_STATUS, (Checkpoint, c_size_t, c_void_p, c_size_t, _ERROR)),
    "sp_checkpoint_metadata_json": (c_char_p, (Checkpoint,)),
    "sp_checkpoint_free": (None, (Checkpoint,)),
    "sp_checkpoint_save": (
        _STATUS,
        (c_char_p, POINTER(c_char_p), _VIEW, c_size_t, c_char_p, c_uint64, c_uint32, _ERROR),
    ),
    # layer statistics
    "sp_statistics_create": (_STATUS, (c_char_p, POINTER(Statistics), _ERROR)),
    "sp_statistics_update": (_STATUS, (Statistics, c_char_p, _VIEW, c_int32, _ERROR)),
    "sp_statistics_merge": (_STATUS, (Statistics, Statistics, _ERROR)),
    "sp_statistics_count": (c_size_t, (Statistics,)),
    "sp_statistics_name": (c_char_p, (Statistics, c_size_t)),
    "sp_statistics_layer": (_STATUS, (Statistics, c_size_t, _SIZE, _UINT64, _ERROR)),
    "sp_statistics_read": (_STATUS, (Statistics, c_size_t, _VIEW, _ERROR)),
    "sp_statistics_state": (_STATUS, (Statistics, c_size_t, _DOUBLES, _DOUBLES, c_size_t, _ERROR)),
    "sp_statistics_add_state": (_STATUS, (Statistics, c_char_p, c_uint64, _DOUBLES, _DOUBLES, c_size_t, _ERROR)),
    "sp_statistics_save": (_STATUS, (Statistics, c_char_p, c_uint32, _ERROR)),
    "sp_statistics_free": (None, (Statistics,)),
    # jobs
    "sp_job_create": (_STATUS, (c_char_p, c_char_p, POINTER(JobOptions), POINTER(Job), _ERROR)),
    "sp_job_create_reconstruction": (
        _STATUS,
        (c_char_p, c_char_p, c_char_p, c_char_p, POINTER(JobOptions), POINTER(Job), _ERROR),
    ),
    "sp_job_create_lora_extraction": (
        _STATUS,
        (c_char_p, c_char_p, c_char_p, c_char_p, POINTER(JobOptions), POINTER(Job), _ERROR),
    ),
    "sp_job_plan_json": (_LONG_TEXT, (Job,)),
    "sp_job_run": (_STATUS, (Job, ProgressFunction, c_void_p, _ERROR)),
    "sp_job_progress": (_STATUS, (Job, POINTER(Progress))),
    "sp_job_cancel": (None, (Job,)),
    "sp_job_report_json": (_LONG_TEXT, (Job,)),
    "sp_job_free": (None, (Job,)),
}
"""Result and parameters of every function of the header. A null `Error` pointer is None, as any other pointer's."""

LONG_TEXTS = frozenset(name for name, (result, _) in FUNCTIONS.items() if result is _LONG_TEXT)
"""Functions whose text may have tens of megabytes: they give its address, for `_lib.long_text`."""
