"""TSD v2 (6DammK9): TSD whose mean is shortened, per slice along the last axis, by Model Stock's ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import model_stock
from .arrays import AnyArray, Array, widen
from .task_vectors import merged
from .tsd import filtered


def ratios(f: Array, shape: tuple[int, ...], aggregate: str) -> Array:
    """t of every slice of the filtered task vectors (K x D). A scalar and a single model have no angle: t = 1."""
    number, length = model_stock.rows(shape, "row")
    if not shape or len(f) == 1:
        return np.ones(number)
    options = model_stock.Options(aggregate, "row", "none")
    slices = f.reshape(len(f), number, length)
    return np.array([model_stock.ratio(slices[:, row], options)[1] for row in range(number)])


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    aggregate: str = "adjacent",
    lambda_: float = 1.0,
    **parameters: Any,
) -> Array:
    """lambda * t * tau."""
    f, options = filtered(models, base, **parameters)
    mean = merged(f, f != 0.0, options.weight, "mean")
    t = ratios(f, base.shape, aggregate)
    return lambda_ * (t[:, None] * mean.reshape(len(t), -1)).reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * t * tau."""
    return widen(base) + task_vector(models, base, **parameters)
