"""Merge methods on arrays in memory: `merge_tensors`, and one function per method made from what it says of itself."""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _abi
from ._lib import c_text, call, lib, text
from ._values import check_int32, to_json
from .dtypes import resolve
from .errors import error_for
from .views import allocate, borrow, borrow_all, view_table

if TYPE_CHECKING:
    from ._signatures import Schema

_KEYWORD = "lambda"  # a Python keyword: spelled lambda_ here


def methods() -> list[str]:
    """Names of the merge methods, in the order of the documentation.

    Raises:
        LibraryError: the shared library cannot be loaded.
    """
    library = lib()
    return [text(library.sp_method_name(index)) for index in range(library.sp_method_count())]


def method_schema(name: str) -> Schema:
    """What a method is and takes.

    Args:
        name: one of `methods()`.

    Returns:
        A dict with name, title, summary, family, citation, inputs (base, min_models, max_models), parameters (a list of
        dicts with name, type, default, choices, minimum, maximum, per_model, summary, source) and reports (names of
        the entries of its report).

    Raises:
        MethodError: no such method.
    """
    described = lib().sp_method_schema(c_text(name, "the method's name")) if isinstance(name, str) else None
    if described is None:
        raise error_for("SP_E_METHOD", _unknown_method(name))
    schema: Schema = json.loads(described)
    return schema


def merge_tensors(
    method: str,
    models: Iterable[Any],
    base: Any = None,
    *,
    name: str = "",
    return_report: bool = False,
    dtype: Any = None,
    threads: int = 0,
    **parameters: Any,
) -> Any:
    """Merge one tensor of several models.

    Args:
        method: one of `methods()`.
        models: K arrays of one shape: numpy (also ml_dtypes' bfloat16 and float8), torch on the CPU, DLPack or buffers.
            Element types may differ. Read in place when contiguous; never changed.
        base: the array of the base model, of the same shape; None if the method takes none.
        name: name of the tensor, for messages, `ignore_keys` and random masks.
        return_report: also return what was decided.
        dtype: element type of the result, by any name or class; default: the base's, else the first model's.
        threads: 0 for the usable CPUs. The result is the same, bit for bit, for any number.
        parameters: the method's, as `stockpot methods NAME` lists them; `lambda` is spelled `lambda_`. A parameter of
            each model takes one number or a list of K. None means the default.

    Returns:
        The merged array, of the models' shape: a torch tensor if the base (else the first model) is one, otherwise a
        numpy array. With `return_report`, a pair of it and a dict of the entries that the method's schema lists under
        "reports", and "warnings". Integer and boolean tensors are not merged: the base's (else the first model's) is
        copied.

    Raises:
        MethodError: unknown method, a number of models it cannot take, or a base missing or not wanted.
        ParameterError: unknown parameter, a value out of range, or a list whose length is not K.
        ShapeError: shapes differ. DTypeError: an element type the library lacks.
        NonFiniteError: NaN or infinity in an input. ArgumentError: something that is not an array in CPU memory.
        StockpotMemoryError: not enough memory.

    Sources: each method's function and `stockpot methods NAME` name its paper.
    """
    model_arrays = borrow_all(models, "models")
    base_array = None if base is None else borrow(base, "base")
    if not model_arrays:
        raise error_for("SP_E_METHOD", f"{method} needs at least one model, and models is empty")
    first = model_arrays[0] if base_array is None else base_array
    out_dtype = first.dtype if dtype is None or not first.dtype.is_float else resolve(dtype)
    with _method(method, parameters) as handle:
        result, out = allocate(first.shape, out_dtype, as_torch=first.is_torch)
        call(
            "sp_method_merge",
            handle,
            view_table(model_arrays),
            len(model_arrays),
            None if base_array is None else ctypes.byref(base_array.view()),
            c_text(name, "name"),
            check_int32(threads, "threads"),
            ctypes.byref(out.view()),
        )
        if not return_report:
            return result
        return result, json.loads(text(lib().sp_method_report_json(handle)) or "{}")


@functools.cache
def method_function(name: str) -> Callable[..., Any]:
    """The function of a method: `merge_tensors` with a signature and a docstring made from the method's schema.

    Raises:
        MethodError: no such method.
    """
    from ._signatures import make_function

    return make_function(method_schema(name), merge_tensors)


def _unknown_method(name: Any) -> str:
    import difflib

    if not isinstance(name, str):
        return f"the method is a {type(name).__name__}; give its name, such as 'model_stock'"
    near = difflib.get_close_matches(name, methods(), n=1)
    advice = f"did you mean {near[0]!r}?" if near else "stockpot.methods() lists them"
    return f"there is no merge method {name!r}; {advice}"


@contextmanager
def _method(name: str, parameters: dict[str, Any]) -> Iterator[_abi.Method]:
    if not isinstance(name, str):
        raise error_for("SP_E_METHOD", _unknown_method(name))
    given = {key: value for key, value in parameters.items() if value is not None}
    if _KEYWORD + "_" in given:
        if _KEYWORD in given:
            raise error_for("SP_E_PARAMETER", "lambda_ and lambda are the same parameter; give one of them")
        given[_KEYWORD] = given.pop(_KEYWORD + "_")
    handle = _abi.Method()
    encoded = to_json(given, "", "SP_E_PARAMETER")
    call("sp_method_create", c_text(name, "the method's name"), encoded, ctypes.byref(handle))
    try:
        yield handle
    finally:
        lib().sp_method_free(handle)
