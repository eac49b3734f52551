"""NearSwap: the model's weights where they are near the base's, a bounded step towards them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen


def merge(models: Sequence[AnyArray], base: AnyArray, *, t: float, compat: str | None = None) -> Array:
    """share * w1 + (1 - share) * w0, the share being t over the distance, at most 1."""
    (model,) = models
    a, b = widen(base), widen(model)
    distance = np.abs(a - b)
    if compat == "mergekit":
        distance = np.maximum(distance, 1e-6)
    share = np.where(distance <= t, 1.0, t / np.where(distance > 0.0, distance, 1.0))
    merged: Array = share * b + (1.0 - share) * a
    return merged
