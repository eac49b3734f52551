"""TGMD, or TSD v2.1 (6DammK9): the geometric median of the filtered task vectors, the zeros in them as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .geometric_median import weiszfeld
from .tsd import filtered


def coordwise(f: Array) -> Array:
    """Per element the standard median of the entries that agree; 0 where none does."""
    ordered = np.sort(np.where(f != 0.0, f, np.inf), axis=0)
    count = np.sum(f != 0.0, axis=0)
    lower, upper = (np.maximum(count, 1) - 1) // 2, count // 2
    middle = [np.take_along_axis(ordered, np.minimum(at, len(f) - 1)[None], axis=0)[0] for at in (lower, upper)]
    result: Array = np.where(count > 0, 0.5 * (middle[0] + middle[1]), 0.0)
    return result


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    reading: str = "tensor",
    eps: float = 0.0,
    maxiter: int = 100,
    ftol: float = 1e-20,
    lambda_: float = 1.0,
    **parameters: Any,
) -> Array:
    """lambda * tau."""
    f, _ = filtered(models, base, **parameters)
    if reading == "coordwise":
        return lambda_ * coordwise(f).reshape(base.shape)
    assert reading == "tensor", reading
    return lambda_ * weiszfeld(f, eps=eps, maxiter=maxiter, ftol=ftol).point.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
