"""Shared by references, method tests and golden runner: element types, files, and what rounding allows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)
F16 = np.dtype(np.float16)
BF16 = np.dtype(ml_dtypes.bfloat16)
F8_E4M3FN = np.dtype(ml_dtypes.float8_e4m3fn)
F8_E5M2 = np.dtype(ml_dtypes.float8_e5m2)
FLOAT_TYPES = (F32, F64, F16, BF16, F8_E4M3FN, F8_E5M2)

SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {
    "F64": F64,
    "F32": F32,
    "F16": F16,
    "BF16": BF16,
    "F8_E4M3": F8_E4M3FN,
    "F8_E5M2": F8_E5M2,
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}


def read_safetensors(path: Path) -> dict[str, AnyArray]:
    """Read one .safetensors file without the library under test."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    tensors: dict[str, AnyArray] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        tensors[name] = np.frombuffer(raw, SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_checkpoint(path: Path) -> dict[str, AnyArray]:
    """Read all tensors of a .safetensors file, or of every such file of a folder."""
    if path.is_file():
        return read_safetensors(path)
    tensors: dict[str, AnyArray] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors.update(read_safetensors(file))
    return tensors


def unpack_bits(packed: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """A mask from its bytes: bit j of byte b is element 8 b + j."""
    count = math.prod(shape)
    assert packed.dtype == np.uint8
    assert packed.shape == (-(-count // 8),)
    return np.unpackbits(packed, count=count, bitorder="little").astype(np.bool_).reshape(shape)


def widen(array: AnyArray) -> Array:
    """The exact float64 value of every element."""
    return np.asarray(array).astype(np.float64)


def flatten(arrays: Sequence[AnyArray]) -> Array:
    """K tensors of one shape as the rows of a K x D float64 matrix."""
    return np.stack([widen(array).reshape(-1) for array in arrays])


def precision(dtype: np.dtype[Any]) -> int:
    """Bits of the significand, the hidden one included."""
    return int(_info(dtype).nmant) + 1


def _info(dtype: np.dtype[Any]) -> Any:
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def ulp(values: Array, dtype: np.dtype[Any]) -> Array:
    """Distance between neighbours of `dtype` at each value (of the subnormals below the normal range)."""
    info = _info(dtype)
    minimum = math.frexp(float(info.smallest_normal))[1] - 1
    exponent = np.maximum(np.frexp(np.abs(values))[1] - 1, minimum)
    result: Array = np.ldexp(1.0, exponent - info.nmant)
    return result


def assert_one_rounding(actual: AnyArray, expected: Array, slack: float | Array = 0.0) -> None:
    """`actual` is `expected` rounded once to the type of `actual`, where `expected` may be wrong by `slack`.

    Rounding to nearest moves a value by at most half the distance of the neighbours; at a power of two the
    distance of the larger side counts, as the unrounded value may lie on either.
    """
    assert actual.shape == expected.shape, f"shape {actual.shape} instead of {expected.shape}"
    got = widen(actual)
    assert np.isfinite(got).all(), "non-finite output"
    reach = np.maximum(ulp(expected, actual.dtype), ulp(got, actual.dtype))
    error = np.abs(got - expected)
    excess = error - (0.5 * reach + slack)
    if excess.size and float(excess.max()) > 0.0:
        worst = int(np.argmax(excess))
        raise AssertionError(
            f"{actual.dtype}: element {worst} is {got.flat[worst]!r}, expected {expected.flat[worst]!r}; "
            f"error {error.flat[worst]:.3e}, half a ulp {0.5 * reach.flat[worst]:.3e}, "
            f"slack {np.broadcast_to(np.asarray(slack), error.shape).flat[worst]:.3e}"
        )


def arithmetic(inputs: Sequence[AnyArray], output: np.dtype[Any]) -> float:
    """Unit roundoff of the library's arithmetic: binary64 if an F32 or F64 takes part, else binary32."""
    wide = any(array.dtype in (F32, F64) for array in inputs) or output in (F32, F64)
    return 2.0**-53 if wide else 2.0**-24


def same_bytes(left: AnyArray, right: AnyArray) -> bool:
    """Equal type, shape and bits (so -0.0 differs from 0.0)."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def random_models(
    rng: np.random.Generator,
    count: int,
    shape: int | tuple[int, ...],
    dtype: np.dtype[Any] = F32,
    *,
    spread: float = 0.1,
    common: float = 0.1,
) -> tuple[AnyArray, list[AnyArray]]:
    """A base of size 1, and fine-tunes: base + a shared step of size `common` + an own of size `spread`."""
    base = rng.standard_normal(shape)
    shared = common * rng.standard_normal(shape)
    models = [base + shared + spread * rng.standard_normal(shape) for _ in range(count)]
    return np.asarray(base).astype(dtype), [np.asarray(model).astype(dtype) for model in models]


def write_safetensors(path: Path, tensors: Mapping[str, AnyArray]) -> None:
    """Write one .safetensors file without the library under test (names in the order given)."""
    names = {dtype: name for name, dtype in SAFETENSORS_TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
