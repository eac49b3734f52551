"""What the spectral methods share: which tensors are matrices, leading singular triplets, polar factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import PerModel, per_model

GRAM_CUTOFF = 1e-12
"""Eigenvalues of a Gram matrix below this share of the largest belong to directions that are not there."""
ZERO_TRIPLET = 1e-12


class Triplets(NamedTuple):
    """Singular triplets in descending order: m x k, k, k x n."""

    left: Array
    sigma: Array
    right: Array


@dataclass(frozen=True)
class Shape:
    """Which tensors are decomposed: two dimensions (four or more flattened on request), and not excluded by name."""

    exclude_keys: Sequence[str] = ()
    reshape_conv: bool = False

    def matrix(self, shape: tuple[int, ...], name: str) -> tuple[int, int] | None:
        """Rows and columns, or None for what is averaged."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude_keys) or 0 in shape:
            return None
        if len(shape) == 2:
            return shape[0], shape[1]
        if self.reshape_conv and len(shape) > 2:
            return shape[0], int(np.prod(shape[1:]))
        return None


def leading(matrix: Array, count: int) -> Triplets:
    """The `count` largest singular triplets."""
    left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
    return Triplets(left[:, :count], sigma[:count], right[:count])


def above(triplets: Triplets, share: float) -> Triplets:
    """Without the triplets whose singular value is at most `share` of the largest."""
    left, sigma, right = triplets
    kept = sigma > share * sigma.max(initial=0.0)
    return Triplets(left[:, kept], sigma[kept], right[kept])


def polar(matrix: Array) -> Array:
    """U V' over the directions that are there: matrix * pinv(sqrt(matrix' matrix))."""
    if 0 in matrix.shape:
        return matrix
    left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
    kept = sigma**2 > GRAM_CUTOFF * sigma.max(initial=0.0) ** 2
    result: Array = left[:, kept] @ right[kept]
    return result


def weighted(models: Sequence[AnyArray], base: AnyArray, weight: PerModel) -> list[Array]:
    """weight_i * (w_i - w0)."""
    weights = per_model(weight, len(models))
    return [own * (widen(model) - widen(base)) for own, model in zip(weights, models, strict=True)]


def mean(deltas: Sequence[Array]) -> Array:
    """What becomes of tensors that are not matrices."""
    total: Array = np.mean(np.stack(deltas), axis=0)
    return total


def by_matrix(deltas: Sequence[Array], shape: Shape, name: str, combine: Callable[[list[Array]], Array]) -> Array:
    """`combine` for a matrix, the mean for everything else."""
    size = shape.matrix(deltas[0].shape, name)
    if size is None:
        return mean(deltas)
    return combine([delta.reshape(size) for delta in deltas]).reshape(deltas[0].shape)
