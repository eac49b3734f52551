"""RAM (arXiv:2601.13572): what one model alone changed in full, what several changed averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import task_vectors


def combined(changes: Array, epsilon: float, factors: Array) -> Array:
    """tau of K x D task vectors; `factors` multiply what is a model's alone."""
    active = np.abs(changes) > epsilon
    count = active.sum(axis=0)
    kept = np.where(active, changes, 0.0)
    alone = (factors[:, None] * kept).sum(axis=0)
    result: Array = np.where(count > 1, kept.sum(axis=0) / np.maximum(count, 1), alone)
    return result


def task_vector(models: Sequence[AnyArray], base: AnyArray, *, epsilon: float = 1e-5, lambda_: float = 1.0) -> Array:
    """lambda * tau."""
    tau = combined(task_vectors(models, base), epsilon, np.ones(len(models)))
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: float) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
