"""Iso-CTS (arXiv:2502.04959): a common subspace and one of every task, with one singular value for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import iso_c
from .arrays import AnyArray, Array, widen
from .matrices import Shape, Triplets, by_matrix, leading, polar, weighted
from .task_vectors import PerModel


def sizes(rank: int, count: int, fraction: float) -> tuple[int, int]:
    """Directions in common, and of every task: a multiple of the count near what the fraction leaves, within rank."""
    specific = round((rank - int(rank * fraction)) / count) * count
    specific = min(specific, rank // count * count)
    return rank - specific, specific // count


def combine(
    deltas: Sequence[Array],
    common_space_fraction: float = 0.8,
    null_space: str = "drop",
    tolerance: float = 1e-6,
) -> Array:
    """mean(sigma) * polar(left) polar(right) over the leading directions of the sum and of each task off it."""
    rank = min(deltas[0].shape)
    common, own = sizes(rank, len(deltas), common_space_fraction)
    if own == 0:
        return iso_c.combine(deltas, null_space, tolerance)
    total = np.sum(np.stack(deltas), axis=0)
    largest = float(np.linalg.norm(total, 2))
    shared = _kept(leading(total, common), largest, null_space, tolerance)
    parts = []
    for delta in deltas:
        rest = delta - shared.left @ (shared.left.T @ delta)
        scale = float(np.linalg.norm(delta, 2))
        parts.append(_kept(leading(rest, own), scale, null_space, tolerance))
    parts.append(shared)
    left = np.concatenate([part.left for part in parts], axis=1)
    sigma = np.concatenate([part.sigma for part in parts])
    right = np.concatenate([part.right for part in parts], axis=0)
    result: Array = float(sigma.sum()) / rank * (polar(left) @ polar(right))
    return result


def _kept(triplets: Triplets, largest: float, null_space: str, tolerance: float) -> Triplets:
    """Without the directions that the matrix itself does not have."""
    if null_space != "drop":
        return triplets
    left, sigma, right = triplets
    kept = sigma > tolerance * largest
    return Triplets(left[:, kept], sigma[kept], right[kept])


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = "",
    weight: PerModel = 1.0,
    lambda_: float = 1.0,
    common_space_fraction: float = 0.8,
    null_space: str = "drop",
    tolerance: float = 1e-6,
    exclude_keys: Sequence[str] = (),
    reshape_conv: bool = False,
) -> Array:
    """lambda * tau."""
    shape = Shape(exclude_keys, reshape_conv)
    deltas = weighted(models, base, weight)

    def combined(matrices: list[Array]) -> Array:
        return combine(matrices, common_space_fraction, null_space, tolerance)

    return lambda_ * by_matrix(deltas, shape, name, combined)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
