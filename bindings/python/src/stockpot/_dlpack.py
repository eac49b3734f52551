"""Read a DLPack capsule without numpy: numpy refuses bfloat16 and float8, which are most of what is merged.

The structs are those of dlpack.h, version 0 (the capsule called "dltensor", which `__dlpack__()` without arguments
gives). The capsule is borrowed, not consumed: it keeps its name, so its own destructor frees the tensor when the
capsule is no longer referenced.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final, NamedTuple

from .dtypes import DType, resolve
from .errors import error_for

_CPU_DEVICES: Final = frozenset({1, 3, 11})  # kDLCPU, kDLCUDAHost and kDLROCMHost (pinned host memory)

_TYPE_NAMES: Final = {
    (0, 8): "int8",
    (0, 16): "int16",
    (0, 32): "int32",
    (0, 64): "int64",
    (1, 8): "uint8",
    (1, 16): "uint16",
    (1, 32): "uint32",
    (1, 64): "uint64",
    (2, 16): "float16",
    (2, 32): "float32",
    (2, 64): "float64",
    (4, 16): "bfloat16",
    (5, 64): "complex64",
    (6, 8): "bool",
    (10, 8): "float8_e4m3fn",
    (12, 8): "float8_e5m2",
    (14, 8): "float8_e8m0fnu",
}


class _Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    # DLManagedTensor begins with its DLTensor, and the rest is not needed.
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Imported(NamedTuple):
    """A tensor of another library, in place.

    Attributes:
        address: of its first element.
        shape: dimensions.
        strides: in elements; None for row-major without gaps.
        dtype: element type.
        owner: the capsule; the memory is valid while it lives.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: DType
    owner: Any


def from_dlpack(array: Any, what: str) -> Imported:
    """Borrow the memory of an object that offers `__dlpack__`.

    Args:
        array: the object; its device must be the CPU or pinned host memory.
        what: what to call it in errors.

    Raises:
        ArgumentError: it lives on another device, or does not export itself.
        DTypeError: the library lacks its element type.
    """
    device = _device(array)
    if device not in _CPU_DEVICES:
        raise error_for("SP_E_ARGUMENT", f"{what} is not in the memory of the CPU; copy it there first")
    try:
        capsule = array.__dlpack__()
        pointer = _capsule_pointer(capsule, b"dltensor")
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise error_for("SP_E_ARGUMENT", f"{what} does not export itself through DLPack: {error}") from error
    tensor = _Tensor.from_address(pointer)
    kind = tensor.dtype
    name = _TYPE_NAMES.get((kind.code, kind.bits)) if kind.lanes == 1 else None
    dtype = resolve(name or f"DLPack ({kind.code}, {kind.bits}, {kind.lanes})", f"the element type of {what}")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    return Imported((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, capsule)


def _device(array: Any) -> int:
    report = getattr(array, "__dlpack_device__", None)
    return 1 if report is None else int(report()[0])


def _capsule_pointer(capsule: Any, name: bytes) -> int:
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    return int(prototype(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name))
