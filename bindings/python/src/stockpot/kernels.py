"""The library's kernels, for those who build their own methods: cast, combine, gram, geometric median, angles."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ._lib import call
from ._values import check_int32
from .dtypes import resolve
from .errors import error_for
from .views import Borrowed, allocate, borrow, borrow_all, view_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, Any]
"""Arrays by tensor name: a dict, or what `stockpot.open` returns."""


def cast(array: Any, dtype: Any) -> Any:
    """Convert elements, each rounded once to nearest-even.

    Args:
        array: any shape of up to 8 dimensions; any float type, or any type at all if `dtype` is the same.
        dtype: of the result: a name ("bfloat16", "F8_E4M3"), or a numpy, ml_dtypes or torch type.

    Returns:
        A new array of the same shape and kind. NaN becomes the quiet NaN of the type with its sign kept; -0.0 and
        subnormals are kept; what is above the largest finite value becomes infinity (NaN in float8_e4m3fn).

    Raises:
        DTypeError: integers cannot be converted, or an unknown type. ArgumentError: not an array in CPU memory.
    """
    source = borrow(array)
    result, out = allocate(source.shape, resolve(dtype), as_torch=source.is_torch)
    call("sp_cast", ctypes.byref(source.view()), ctypes.byref(out.view()))
    return result


def combine(inputs: Iterable[Any], coefficients: Iterable[float], *, dtype: Any = None, threads: int = 0) -> Any:
    """Linear combination: sum over i of coefficients[i] * inputs[i].

    It is computed about the first input, so equal inputs whose coefficients sum to 1 give those inputs bit for bit.

    Args:
        inputs: K >= 1 arrays of one shape and of float type; types may differ.
        coefficients: K finite numbers.
        dtype: element type of the result; default: the first input's.
        threads: 0 for the usable CPUs; the result is the same, bit for bit, for any number.

    Returns:
        A new array of the inputs' shape, of the kind of the first one. Where an input is NaN or infinite, so is it.

    Raises:
        ArgumentError: no input, another number of coefficients than inputs, or one that is not finite.
        ShapeError: shapes differ. DTypeError: a type that is not float.
    """
    arrays = _same_shape(borrow_all(inputs, "inputs"), "inputs")
    weights = [float(coefficient) for coefficient in coefficients]
    if len(weights) != len(arrays):
        raise error_for("SP_E_ARGUMENT", f"there are {len(arrays)} inputs and {len(weights)} coefficients")
    first = arrays[0]
    result, out = allocate(first.shape, first.dtype if dtype is None else resolve(dtype), as_torch=first.is_torch)
    call(
        "sp_combine",
        view_table(arrays),
        len(arrays),
        (ctypes.c_double * len(weights))(*weights),
        check_int32(threads, "threads"),
        ctypes.byref(out.view()),
    )
    return result


def gram(inputs: Iterable[Any], reference: Any = None, *, threads: int = 0) -> NDArray[np.float64]:
    """Gram matrix of differences: element (i, j) is the scalar product of inputs[i] - r and inputs[j] - r.

    Args:
        inputs: K arrays of one shape and of float type, 1 <= K <= 1024; types may differ.
        reference: the array r, of the same shape; None for r = 0, which loses digits when the inputs are close to one
            another.
        threads: 0 for the usable CPUs; the result is the same, bit for bit, for any number.

    Returns:
        [K, K] float64, symmetric. NaN or infinity in an input makes its row and column so.

    Raises:
        ArgumentError: no input, or too many. ShapeError: shapes differ. DTypeError: a type that is not float.
    """
    arrays = _same_shape(borrow_all(inputs, "inputs"), "inputs")
    origin = None if reference is None else borrow(reference, "reference")
    if origin is not None and origin.shape != arrays[0].shape:
        raise error_for("SP_E_SHAPE", f"reference has shape {origin.shape} and inputs[0] has {arrays[0].shape}")
    return _gram(arrays, origin, threads)


class GeometricMedian(NamedTuple):
    """What `geometric_median_weights` found.

    Attributes:
        weights: [K] float64, summing to 1: the median is the sum of weights[i] * x_i.
        iterations: Weiszfeld steps taken.
        objective: weighted average of the distances from the median to the points.
    """

    weights: NDArray[np.float64]
    iterations: int
    objective: float


def geometric_median_weights(
    gram: Any,
    point_weights: Sequence[float] | None = None,
    *,
    eps: float = 0.0,
    maxiter: int = 1000,
    ftol: float = 1e-20,
) -> GeometricMedian:
    """Weights of the geometric median of K points, from their Gram matrix about any common reference (see `gram`).

    Args:
        gram: [K, K] float64, symmetric, finite; 1 <= K <= 1024.
        point_weights: K numbers > 0; None for all 1.
        eps: distances are floored at it. 0: no floor, and an iterate that meets a point takes the step of Vardi and
            Zhang, so that the result does not depend on the scale of the data.
        maxiter: most steps; 0 returns the weighted mean.
        ftol: stop when the objective changes by at most ftol times itself. The default stops when it no longer
            changes in float64.

    Raises:
        ArgumentError: not a square matrix, or numbers out of range. NonFiniteError: NaN or infinity in `gram`.

    Source: Weiszfeld, Tohoku Mathematical Journal 43, 1937; Vardi and Zhang, PNAS 97(4), 2000.
    """
    import numpy as np

    matrix = np.ascontiguousarray(gram, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise error_for("SP_E_ARGUMENT", f"gram has shape {matrix.shape}; give a square matrix")
    count = matrix.shape[0]
    doubles = ctypes.POINTER(ctypes.c_double)
    given = None if point_weights is None else np.ascontiguousarray(point_weights, np.float64)
    if given is not None and given.shape != (count,):
        raise error_for("SP_E_ARGUMENT", f"point_weights has shape {given.shape}; give {count} numbers")
    weights = np.empty(count, np.float64)
    iterations, objective = ctypes.c_int32(), ctypes.c_double()
    call(
        "sp_geometric_median_weights",
        matrix.ctypes.data_as(doubles),
        count,
        None if given is None else given.ctypes.data_as(doubles),
        float(eps),
        check_int32(maxiter, "maxiter"),
        float(ftol),
        weights.ctypes.data_as(doubles),
        ctypes.byref(iterations),
        ctypes.byref(objective),
    )
    return GeometricMedian(weights, iterations.value, objective.value)


def angles(
    models: Iterable[Tensors | str | os.PathLike[str]],
    base: Tensors | str | os.PathLike[str],
    *,
    threads: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Angles between the models' differences from the base, tensor by tensor: the geometry behind Model Stock.

    Args:
        models: K >= 1 mappings of tensor name to array, or paths of checkpoints.
        base: the same of the base model. Its float tensors are those compared; others are left out.
        threads: 0 for the usable CPUs.

    Returns:
        For each float tensor of the base a [K, K] float64 array of angles in radians, 0 to pi, with a zero diagonal.
        Where a model equals the base its difference has no direction: the cosine counts as 0 and the angle is pi/2, as
        everywhere in stockpot. Angles below about 1e-8 are not resolved, since they come from an arccosine.

    Raises:
        MissingTensorError: a model lacks a tensor of the base. ShapeError: a shape differs from the base's.
        NotFoundError, FormatError: a path that is not a checkpoint.

    Source: Jang, Yun and Han, Model Stock, arXiv:2403.19522.
    """
    from contextlib import ExitStack

    import numpy as np

    from .checkpoints import as_tensors

    with ExitStack() as stack:
        origin = stack.enter_context(as_tensors(base, "base"))
        others = [stack.enter_context(as_tensors(model, f"models[{i}]")) for i, model in enumerate(models)]
        if not others:
            raise error_for("SP_E_ARGUMENT", "angles needs at least one model, and models is empty")
        result = {}
        for name in origin:
            reference = borrow(origin[name], f"{name} of the base")
            if reference.dtype.is_float:
                arrays = [_like(reference, model, name, f"models[{index}]") for index, model in enumerate(others)]
                matrix = np.arccos(cosines(_gram(arrays, reference, threads)))
                np.fill_diagonal(matrix, 0.0)
                result[name] = matrix
        return result


def _like(reference: Borrowed, model: Tensors, name: str, what: str) -> Borrowed:
    if name not in model:
        raise error_for("SP_E_MISSING_TENSOR", f"{what} has no tensor {name!r}, which the base has")
    array = borrow(model[name], f"{name} of {what}")
    if array.shape != reference.shape:
        raise error_for("SP_E_SHAPE", f"{name} has shape {array.shape} in {what} and {reference.shape} in the base")
    return array


def cosines(gram: NDArray[np.float64], eps: float = 0.0) -> NDArray[np.float64]:
    """Cosines between vectors from their Gram matrix, clipped to [-1, 1]; 0 where a vector is zero.

    Args:
        gram: [K, K] float64.
        eps: added to each product of two norms.
    """
    import numpy as np

    norms = np.sqrt(np.diagonal(gram))
    scale = np.multiply.outer(norms, norms) + eps
    result: NDArray[np.float64] = np.divide(gram, scale, out=np.zeros_like(gram), where=scale != 0)
    return np.clip(result, -1.0, 1.0)


def _gram(arrays: Sequence[Borrowed], reference: Borrowed | None, threads: int) -> NDArray[np.float64]:
    import numpy as np

    result = np.empty((len(arrays), len(arrays)), np.float64)
    call(
        "sp_gram",
        view_table(arrays),
        len(arrays),
        None if reference is None else ctypes.byref(reference.view()),
        check_int32(threads, "threads"),
        result.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
    )
    return result


def _same_shape(arrays: Sequence[Borrowed], what: str) -> Sequence[Borrowed]:
    if not arrays:
        raise error_for("SP_E_ARGUMENT", f"{what} is empty; give at least one array")
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise error_for(
                "SP_E_SHAPE", f"{what}[{index}] has shape {array.shape} and {what}[0] has {arrays[0].shape}"
            )
    return arrays
