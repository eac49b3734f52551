"""TSVM, task singular vectors (arXiv:2412.00081): an equal share of the rank for every task, made orthogonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .matrices import ZERO_TRIPLET, Shape, above, by_matrix, leading, mean, polar, weighted
from .task_vectors import PerModel


def combine(deltas: Sequence[Array], variant: str = "standard", compat: str | None = None) -> Array:
    """U' diag(S) V' over the leading triplets of every task, both factors made orthogonal.

    standard and eigen (the same by another algorithm) keep r div N triplets of a task, lossless all r. With more
    tasks than rank there is no share to keep: the mean. Triplets of singular value 0 are left out. compat fusion_bench:
    as the public codes, with the vectors that LAPACK gives for them (the identity's for a zero matrix), and zero where
    there is no share.
    """
    rank = min(deltas[0].shape)
    share = rank // len(deltas) if compat is None else int(rank * (1 / len(deltas)))
    if variant == "lossless":
        share = rank
    if share == 0:
        return mean(deltas) if compat is None else np.zeros_like(deltas[0])
    tasks = [leading(delta, share) for delta in deltas]
    if compat is None:
        tasks = [above(task, ZERO_TRIPLET) for task in tasks]
    left = np.concatenate([task.left for task in tasks], axis=1)
    sigma = np.concatenate([task.sigma for task in tasks])
    right = np.concatenate([task.right for task in tasks], axis=0)
    result: Array = polar(left) @ (sigma[:, None] * polar(right))
    return result


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = "",
    weight: PerModel = 1.0,
    lambda_: float = 1.0,
    variant: str = "standard",
    compat: str | None = None,
    exclude_keys: Sequence[str] = (),
    reshape_conv: bool = False,
) -> Array:
    """lambda * tau."""
    shape = Shape(exclude_keys, reshape_conv)
    deltas = weighted(models, base, weight)
    return lambda_ * by_matrix(deltas, shape, name, lambda matrices: combine(matrices, variant, compat))


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
