"""Iso-C (arXiv:2502.04959): the sum of the task matrices with all singular values replaced by their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .matrices import Shape, by_matrix, weighted
from .task_vectors import PerModel


def combine(deltas: Sequence[Array], null_space: str = "drop", tolerance: float = 1e-6) -> Array:
    """mean(sigma) * U V'. Dropped: directions with at most `tolerance` of the largest singular value.

    The mean is over all min(m, n) singular values either way.
    """
    total = np.sum(np.stack(deltas), axis=0)
    left, sigma, right = np.linalg.svd(total, full_matrices=False)
    if sigma[0] == 0.0:
        return np.zeros_like(total)
    kept = sigma > tolerance * sigma[0] if null_space == "drop" else np.ones(len(sigma), np.bool_)
    result: Array = sigma.mean() * (left[:, kept] @ right[kept])
    return result


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = "",
    weight: PerModel = 1.0,
    lambda_: float = 1.0,
    null_space: str = "drop",
    tolerance: float = 1e-6,
    exclude_keys: Sequence[str] = (),
    reshape_conv: bool = False,
) -> Array:
    """lambda * tau."""
    shape = Shape(exclude_keys, reshape_conv)
    deltas = weighted(models, base, weight)
    return lambda_ * by_matrix(deltas, shape, name, lambda matrices: combine(matrices, null_space, tolerance))


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
