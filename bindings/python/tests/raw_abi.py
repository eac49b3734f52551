"""What the programs that call the library with impossible arguments share: views, and a call that must refuse."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_double
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
        caller = sys._getframe(1)
        place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
        failures.append(f"{place}: {function} gave {status}: {own.message.decode()}")


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


def matrix(rows: int = 2, columns: int = 4, **changes: Any) -> _abi.View:
    return view(rows * columns, rank=2, shape=shape(rows, columns), **changes)


def nan_matrix(value: float) -> _abi.View:
    made = matrix(dtype=2)
    made.memory[3] = value
    return made
