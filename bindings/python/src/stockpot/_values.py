"""Values on their way to and from the library: JSON out of Python objects, and sizes out of text."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from .errors import error_for

_UNITS: Final = {"": 1, **{unit: 1000 ** (power + 1) for power, unit in enumerate("kmgtp")}}
_BINARY_UNITS: Final = {f"{unit}i": 1024 ** (power + 1) for power, unit in enumerate("kmgtp")}
_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([kmgtp]?i?)(b?)\s*", re.IGNORECASE)
_NOTHING_DEEPER_THAN: Final = 100


def plain(value: Any, where: str, status: str) -> Any:
    """Rebuild a value of dicts, lists, texts, finite numbers, booleans and None, which is all that JSON has.

    Args:
        value: may also hold tuples, paths, numpy scalars and numpy arrays.
        where: what the value is, for the error ("parameters.t").
        status: status of the error ("SP_E_RECIPE").

    Raises:
        StockpotError: of that status; the value holds something else, NaN, an infinity, or itself.
    """
    return _plain(value, where, status, 0)


def _plain(value: Any, where: str, status: str, depth: int) -> Any:
    if depth > _NOTHING_DEEPER_THAN:
        raise error_for(status, f"{where} is nested more than {_NOTHING_DEEPER_THAN} deep, or holds itself")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise error_for(status, f"{where} is {value}; give a finite number")
        return float(value)
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise error_for(status, f"{where} has the key {key!r}, which is not text; write it in quotes")
            result[key] = _plain(item, f"{where}.{key}" if where else key, status, depth + 1)
        return result
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]", status, depth + 1) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if hasattr(value, "tolist"):
        listed = value.tolist()
        if isinstance(listed, (bool, int, float, str, list)):
            return _plain(listed, where, status, depth + 1)
    raise error_for(status, f"{where or 'the value'} is a {type(value).__name__}, which JSON cannot hold")


def to_json(value: Any, where: str, status: str) -> bytes:
    """Write a value as JSON for the library; see `plain`."""
    return json.dumps(plain(value, where, status), allow_nan=False).encode("utf-8")


def parse_size(value: int | str | None, what: str) -> int:
    """Read a number of bytes.

    Args:
        value: a count, or text such as "2GiB" (1024 ** 3), "5GB" or "5G" (1000 ** 3), "300 MB". None is 0, the default.
        what: its name, for the error.

    Raises:
        ArgumentError: the text is not a size, or the number is negative or above 2 ** 63 - 1.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise error_for("SP_E_ARGUMENT", f"{what} is {value!r}; write a size such as 2GiB, 500MB or 1000000")
        number, unit, byte = match.group(1), match.group(2).lower(), match.group(3)
        if unit in ("", "i") and (unit or byte):
            raise error_for("SP_E_ARGUMENT", f"{what} is {value!r}; write {number}GB for thousand millions of bytes")
        scale = {**_UNITS, **_BINARY_UNITS}[unit]
        size = int(number) * scale if number.isdigit() else int(float(number) * scale)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise error_for("SP_E_ARGUMENT", f"{what} is a {type(value).__name__}; give a number of bytes, or text as 2GiB")
    if not 0 <= size < 2**63:
        raise error_for("SP_E_ARGUMENT", f"{what} is {value!r}; give a size from 0 to 2**63 - 1 bytes")
    return size


def check_int32(value: int, what: str) -> int:
    """Check a count that the library takes as int32.

    Raises:
        ArgumentError: not an integer, or out of range. (A negative count is refused by the library itself.)
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise error_for("SP_E_ARGUMENT", f"{what} is {value!r}; give an integer")
    number = int(value)
    if not -(2**31) <= number < 2**31:
        raise error_for("SP_E_ARGUMENT", f"{what} is {number}, which is out of range")
    return number
