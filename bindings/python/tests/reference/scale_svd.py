"""Scale-SVD (AwRank-Merging, after OATS, arXiv:2409.13652): task matrices as low rank plus sparse, then merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import iso_c, iso_cts, ties, tsvm
from .arrays import AnyArray, Array, widen
from .matrices import Shape, leading, mean, weighted
from .task_vectors import PerModel


@dataclass(frozen=True)
class Compression:
    """How much is kept, and as what. `target_rank` and `unstruct_sparse` are OATS' own words for both shares."""

    sparsity: float = 0.1
    rank_ratio: float = 0.75
    num_iters: int = 10
    mask_strategy: str = "row"
    prune_n: int = 0
    prune_m: int = 0
    target_rank: int | None = None
    unstruct_sparse: float | None = None
    refit: bool = False

    def rank(self, rows: int, columns: int) -> int:
        """Of the low-rank part."""
        if self.target_rank is not None:
            return min(self.target_rank, rows, columns)
        budget = int(self.rank_ratio * (1.0 - self.sparsity) * rows * columns / (rows + columns))
        return min(max(1, budget), rows, columns)

    def dropped(self) -> float:
        """Share of the entries that the sparse part does not have."""
        if self.unstruct_sparse is not None:
            return self.unstruct_sparse
        return 1.0 - (1.0 - self.rank_ratio) * (1.0 - self.sparsity)

    def sparse(self, matrix: Array) -> Array:
        """Only the large entries: of every row, of the matrix, or prune_n of every prune_m columns."""
        rows, columns = matrix.shape
        if self.prune_n > 0 or self.mask_strategy == "n:m":
            result = matrix.copy()
            for start in range(0, columns, self.prune_m):
                group = result[:, start : start + self.prune_m]
                _zero_smallest(group, max(group.shape[1] - self.prune_n, 0))
            return result
        if self.mask_strategy == "row":
            result = matrix.copy()
            _zero_smallest(result, int(columns * self.dropped()))
            return result
        assert self.mask_strategy == "global", self.mask_strategy
        flat = matrix.reshape(1, -1).copy()
        _zero_smallest(flat, int(rows * columns * self.dropped()))
        return flat.reshape(rows, columns)


def _zero_smallest(matrix: Array, count: int) -> None:
    """In place, the `count` smallest magnitudes of every row, of equals the first."""
    order = np.argsort(np.abs(matrix), axis=1, kind="stable")[:, :count]
    np.put_along_axis(matrix, order, 0.0, axis=1)


def low_rank_plus_sparse(
    matrix: Array, statistic: Array | None = None, compression: Compression | None = None, **changes: Any
) -> tuple[Array, Array]:
    """Low-rank and sparse part of an m x n matrix; `statistic` (n) weighs its columns by their second moments.

    The low-rank part is the last iteration's, unless it is fitted once more to the last sparse part.
    """
    compression = compression or Compression(**changes)
    rank = compression.rank(*matrix.shape)
    d = np.ones(matrix.shape[1])
    if statistic is not None and len(statistic) == matrix.shape[1]:
        d = np.asarray(statistic, np.float64)
    root = np.sqrt(np.maximum(np.maximum(d, 1e-12 * d.max()), 1e-30))
    scaled = matrix * root
    low, sparse = np.zeros_like(scaled), np.zeros_like(scaled)
    for _ in range(compression.num_iters):
        low = _truncated(scaled - sparse, rank)
        sparse = compression.sparse(scaled - low)
    if compression.refit:
        low = _truncated(scaled - sparse, rank)
    return low / root, sparse / root


def _truncated(matrix: Array, rank: int) -> Array:
    left, sigma, right = leading(matrix, rank)
    result: Array = left @ (sigma[:, None] * right)
    return result


def compressed(
    deltas: Sequence[Array], shape: Shape, name: str, statistic: Array | None, compression: Compression
) -> list[Array]:
    """Every matrix as the sum of its two parts; what is not a matrix as it is."""
    size = shape.matrix(deltas[0].shape, name)
    if size is None:
        return list(deltas)
    parts = [low_rank_plus_sparse(delta.reshape(size), statistic, compression) for delta in deltas]
    return [(low + sparse).reshape(deltas[0].shape) for low, sparse in parts]


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = "",
    weight: PerModel = 1.0,
    lambda_: float = 1.0,
    then: str = "sum",
    density: PerModel = 0.2,
    common_space_fraction: float = 0.8,
    statistics: Array | None = None,
    exclude_keys: Sequence[str] = (),
    reshape_conv: bool = False,
    **changes: Any,
) -> Array:
    """lambda * tau."""
    shape = Shape(exclude_keys, reshape_conv)
    processed = compressed(weighted(models, base, weight), shape, name, statistics, Compression(**changes))
    if then == "sum":
        tau: Array = np.sum(np.stack(processed), axis=0)
    elif then == "mean":
        tau = mean(processed)
    else:
        zero = np.zeros_like(processed[0])
        spectral: dict[str, Any] = {
            "name": name,
            "exclude_keys": exclude_keys,
            "reshape_conv": reshape_conv,
        }
        if then == "tsvm":
            tau = tsvm.task_vector(processed, zero, **spectral)
        elif then == "iso_c":
            tau = iso_c.task_vector(processed, zero, **spectral)
        elif then == "iso_cts":
            tau = iso_cts.task_vector(processed, zero, common_space_fraction=common_space_fraction, **spectral)
        else:
            assert then == "ties", then
            tau = ties.task_vector(processed, zero, density=density)
    return lambda_ * tau


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
