"""Kernels over task vectors: exact thresholds, elected signs, TALL masks and random masks."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._lib import c_text, call
from ._values import check_int32, to_json
from .dtypes import resolve
from .errors import error_for
from .views import Borrowed, allocate, borrow, borrow_all, view_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MagnitudeThreshold(NamedTuple):
    """What `magnitude_threshold` found.

    Attributes:
        threshold: the magnitude; exactly a float32 unless an input is float64.
        above: how many elements are greater.
        equal: how many are equal to it.
    """

    threshold: float
    above: int
    equal: int


def magnitude_threshold(array: Any, reference: Any = None, *, rank: int, threads: int = 0) -> MagnitudeThreshold:
    """The rank-th largest magnitude of array - reference: exact, without a sort.

    Args:
        array: float array of any shape.
        reference: float array of as many elements; None for zeros.
        rank: 1 for the largest, up to the number of elements.
        threads: 0 for the usable CPUs; the result is the same for any number.

    Magnitudes are rounded to float32 before they are ranked, unless an input is float64.

    Raises:
        ArgumentError: the rank. ShapeError: another number of elements. DTypeError: a type that is not float.
        NonFiniteError: NaN or infinity.
    """
    source = borrow(array, "array")
    origin = None if reference is None else borrow(reference, "reference")
    threshold, above, equal = ctypes.c_double(), ctypes.c_uint64(), ctypes.c_uint64()
    if not isinstance(rank, int) or rank < 1:
        raise error_for("SP_E_ARGUMENT", f"rank is {rank!r}; give 1 for the largest, up to the number of elements")
    call(
        "sp_magnitude_threshold",
        ctypes.byref(source.view()),
        None if origin is None else ctypes.byref(origin.view()),
        rank,
        check_int32(threads, "threads"),
        ctypes.byref(threshold),
        ctypes.byref(above),
        ctypes.byref(equal),
    )
    return MagnitudeThreshold(threshold.value, above.value, equal.value)


def elect_signs(
    models: Iterable[Any], base: Any, *, rule: str = "mass", zero_sign: str = "plus", threads: int = 0
) -> NDArray[np.int8]:
    """The sign that TIES elects for every element of the task vectors models[i] - base.

    Args:
        models: K >= 1 float arrays of one shape.
        base: float array of that shape.
        rule: "mass", "count", "normfrac" or "normmass", as the parameter `elect` of `ties`.
        zero_sign: what a vote of 0 becomes: "plus", "majority" or "drop" (0).
        threads: 0 for the usable CPUs; the result is the same for any number.

    Returns:
        int8 array of the models' shape with -1, 0 and 1.

    Raises:
        ParameterError: an unknown rule or zero_sign. ShapeError, DTypeError, NonFiniteError: the arrays.

    Source: Yadav et al., TIES-Merging, arXiv:2306.01708.
    """
    arrays, origin = _models(models, base)
    result, out = allocate(origin.shape, resolve("int8"))
    call(
        "sp_elect_signs",
        view_table(arrays),
        len(arrays),
        ctypes.byref(origin.view()),
        c_text(rule, "rule"),
        c_text(zero_sign, "zero_sign"),
        check_int32(threads, "threads"),
        ctypes.byref(out.view()),
    )
    signs: NDArray[np.int8] = result
    return signs


def tall_masks(
    models: Iterable[Any],
    base: Any,
    tall_mask_lambda: float | Iterable[float] | None = None,
    *,
    name: str = "",
    threads: int = 0,
    **parameters: Any,
) -> NDArray[np.bool_]:
    """TALL masks: where |d_i| > l_i |tau - d_i|, for d_i = models[i] - base and their multi-task vector tau.

    Args:
        models: K >= 1 float arrays of one shape.
        base: float array of that shape.
        tall_mask_lambda: the l_i, one number or one per model; None for 0.4.
        name: name of the tensor, for messages.
        threads: 0 for the usable CPUs; the result is the same for any number.
        parameters: further ones of the method `tall_mask`: use_ties, density, weight, ...

    Returns:
        bool array [K, ...]: model i is base + mask[i] * tau.

    Raises:
        ParameterError, ShapeError, DTypeError, NonFiniteError: as for `merge_tensors`.

    Source: Wang et al., arXiv:2405.07813.
    """
    import numpy as np

    arrays, origin = _models(models, base)
    result: NDArray[np.bool_] = np.empty((len(arrays), *origin.shape), np.bool_)
    rows = [borrow(result[index, ...], "the masks") for index in range(len(arrays))]
    if isinstance(tall_mask_lambda, Iterable):
        tall_mask_lambda = list(tall_mask_lambda)
    given = {key: value for key, value in parameters.items() if value is not None}
    if tall_mask_lambda is not None:
        given["tall_mask_lambda"] = tall_mask_lambda
    if "lambda_" in given:
        given["lambda"] = given.pop("lambda_")
    call(
        "sp_tall_masks",
        view_table(arrays),
        len(arrays),
        ctypes.byref(origin.view()),
        to_json(given, "", "SP_E_PARAMETER"),
        c_text(name, "name"),
        check_int32(threads, "threads"),
        view_table(rows),
    )
    return result


def random_mask(
    shape: int | tuple[int, ...], *, keep: float, seed: int = 0, name: str = "", model: int = 0, start: int = 0
) -> NDArray[np.bool_]:
    """The random mask that `dare_linear` and its kin apply to a tensor (docs/masks.md describes the stream).

    Args:
        shape: of the mask.
        keep: probability with which an element is kept, 0 to 1.
        seed: the parameter random_seed.
        name: of the tensor.
        model: index of the model, from 0.
        start: index of the first element in the tensor, so that a part can be made alone.

    Raises:
        ArgumentError: a number out of range.

    Source: Philox4x32-10; Salmon et al., SC 2011.
    """
    import numpy as np

    sides = (shape,) if isinstance(shape, int) else tuple(shape)
    for what, value, most in (("seed", seed, 2**64), ("model", model, 2**32), ("start", start, 2**63)):
        if not isinstance(value, int) or not 0 <= value < most:
            raise error_for("SP_E_ARGUMENT", f"{what} is {value!r}, which is not a whole number from 0 to {most - 1}")
    mask: NDArray[np.uint8] = np.empty(sides, np.uint8)
    call(
        "sp_random_mask",
        seed,
        c_text(name, "name"),
        model,
        float(keep),
        start,
        math.prod(sides),
        mask.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)),
    )
    return mask.view(np.bool_)


def _models(models: Iterable[Any], base: Any) -> tuple[list[Borrowed], Borrowed]:
    arrays = borrow_all(models, "models")
    if not arrays:
        raise error_for("SP_E_ARGUMENT", "there are no models; give one or more arrays")
    return arrays, borrow(base, "base")
