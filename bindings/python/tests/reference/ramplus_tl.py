"""RAM+ (arXiv:2601.13572), tensor by tensor: a model's own changes grow with the share it has in common with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen
from .ram import combined
from .task_vectors import task_vectors


def factors(changes: Array, epsilon: float, r: float, alpha: float) -> Array:
    """1 + r * min(alpha, shared / unique) of every model."""
    active = np.abs(changes) > epsilon
    count = active.sum(axis=0)
    unique = (active & (count == 1)).sum(axis=1)
    shared = (active & (count > 1)).sum(axis=1)
    ratio = np.where(unique > 0, shared / np.maximum(unique, 1), 0.0)
    result: Array = 1.0 + r * np.minimum(alpha, ratio)
    return result


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    epsilon: float = 1e-5,
    r: float = 0.1,
    alpha: float = 0.2,
    lambda_: float = 1.0,
) -> Array:
    """lambda * tau."""
    changes = task_vectors(models, base)
    tau = combined(changes, epsilon, factors(changes, epsilon, r, alpha))
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: float) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
