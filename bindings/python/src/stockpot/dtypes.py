"""Element types: one row per type of the library, with its names in safetensors, numpy (with ml_dtypes) and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import _abi
from .errors import error_for

if TYPE_CHECKING:
    import numpy as np


class DType(NamedTuple):
    """An element type.

    Attributes:
        code: SP_DTYPE_... of the header.
        name: as safetensors spells it ("BF16").
        array: as numpy or ml_dtypes spells it ("bfloat16"); torch uses the same word.
        size: bytes per element.
        is_float: whether tensors of this type are merged; the others are copied.
    """

    code: int
    name: str
    array: str
    size: int
    is_float: bool


_TABLE: Final = (
    DType(_abi.DTYPES["SP_DTYPE_F32"], "F32", "float32", 4, True),
    DType(_abi.DTYPES["SP_DTYPE_F64"], "F64", "float64", 8, True),
    DType(_abi.DTYPES["SP_DTYPE_F16"], "F16", "float16", 2, True),
    DType(_abi.DTYPES["SP_DTYPE_BF16"], "BF16", "bfloat16", 2, True),
    DType(_abi.DTYPES["SP_DTYPE_F8_E4M3FN"], "F8_E4M3", "float8_e4m3fn", 1, True),
    DType(_abi.DTYPES["SP_DTYPE_F8_E5M2"], "F8_E5M2", "float8_e5m2", 1, True),
    DType(_abi.DTYPES["SP_DTYPE_BOOL"], "BOOL", "bool", 1, False),
    DType(_abi.DTYPES["SP_DTYPE_U8"], "U8", "uint8", 1, False),
    DType(_abi.DTYPES["SP_DTYPE_I8"], "I8", "int8", 1, False),
    DType(_abi.DTYPES["SP_DTYPE_U16"], "U16", "uint16", 2, False),
    DType(_abi.DTYPES["SP_DTYPE_I16"], "I16", "int16", 2, False),
    DType(_abi.DTYPES["SP_DTYPE_U32"], "U32", "uint32", 4, False),
    DType(_abi.DTYPES["SP_DTYPE_I32"], "I32", "int32", 4, False),
    DType(_abi.DTYPES["SP_DTYPE_U64"], "U64", "uint64", 8, False),
    DType(_abi.DTYPES["SP_DTYPE_I64"], "I64", "int64", 8, False),
    DType(_abi.DTYPES["SP_DTYPE_F8_E8M0"], "F8_E8M0", "float8_e8m0fnu", 1, False),
    DType(_abi.DTYPES["SP_DTYPE_C64"], "C64", "complex64", 8, False),
)

_BY_CODE: Final = {row.code: row for row in _TABLE}
_BY_NAME: Final = {
    **{row.name.lower(): row for row in _TABLE},
    **{row.array: row for row in _TABLE},
    "half": _BY_CODE[3],
    "fp16": _BY_CODE[3],
    "fp32": _BY_CODE[1],
    "fp64": _BY_CODE[2],
    "float": _BY_CODE[1],
    "double": _BY_CODE[2],
    "f8_e4m3fn": _BY_CODE[5],
}


def from_code(code: int) -> DType:
    """The type of a code of the library.

    Raises:
        DTypeError: this package does not know it.
    """
    try:
        return _BY_CODE[code]
    except KeyError:
        raise error_for("SP_E_DTYPE", f"element type {code} is not known to this package") from None


def resolve(dtype: Any, what: str = "dtype") -> DType:
    """The type that a caller means.

    Args:
        dtype: a name ("bfloat16", "BF16", "torch.bfloat16"), a numpy dtype or scalar class, an ml_dtypes class, or a
            torch dtype. torch need not be importable.
        what: what to call it in the error.

    Raises:
        DTypeError: there is no such type in the library.
    """
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.")
    elif str(dtype).startswith("torch."):
        name = str(dtype).removeprefix("torch.")
    else:
        name = _array_name(dtype)
    found = _BY_NAME.get(name.lower())
    if found is None:
        known = ", ".join(row.array for row in _TABLE)
        raise error_for("SP_E_DTYPE", f"{what} is {name!r}, which is not an element type of stockpot; they are {known}")
    return found


def array_dtype(dtype: DType) -> np.dtype[Any]:
    """The numpy dtype of a type; those that numpy lacks are ml_dtypes'."""
    import numpy as np

    if dtype.array.startswith(("bfloat", "float8")):
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype.array))
        return extended
    return np.dtype(dtype.array)


def _array_name(dtype: Any) -> str:
    import numpy as np

    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype)
