"""MagMax (arXiv:2407.06322): of every element the task vector of largest magnitude, of equals the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import is_wide, magnitudes, task_vectors


def task_vector(models: Sequence[AnyArray], base: AnyArray, *, lambda_: float = 1.0) -> Array:
    """lambda * tau."""
    deltas = task_vectors(models, base)
    size = magnitudes(deltas, wide=is_wide(models, base))
    last = len(models) - 1 - size[::-1].argmax(axis=0)
    tau: Array = np.take_along_axis(deltas, last[None], axis=0)[0]
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
