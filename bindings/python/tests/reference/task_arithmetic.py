"""Task arithmetic: base + lambda * sum w_i (x_i - base)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen


def merge(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: float | Sequence[float] = 1.0,
    lambda_: float = 1.0,
    normalize: bool = False,
) -> Array:
    """With `normalize` the sum is divided by the sum of the weights, or by 1 where that is below 1e-8."""
    weights = np.broadcast_to(np.asarray(weight, np.float64), (len(models),))
    origin = widen(base)
    vector = np.zeros(base.shape)
    for w, model in zip(weights, models, strict=True):
        vector = vector + w * (widen(model) - origin)
    if normalize:
        divisor = float(weights.sum())
        vector = vector / (divisor if abs(divisor) >= 1e-8 else 1.0)
    return origin + lambda_ * vector
