"""Weighted average: sum w_i x_i, divided by sum w_i when normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen


def merge(models: Sequence[AnyArray], *, weight: float | Sequence[float] = 1.0, normalize: bool = True) -> Array:
    """Raises ZeroDivisionError where normalisation would divide by a sum of zero."""
    weights = np.broadcast_to(np.asarray(weight, np.float64), (len(models),))
    total = np.zeros(models[0].shape)
    for w, model in zip(weights, models, strict=True):
        total = total + w * widen(model)
    if not normalize:
        return total
    divisor = float(weights.sum())
    if divisor == 0.0:
        raise ZeroDivisionError("the weights sum to zero")
    return total / divisor
