"""YOYO Scale (andehury/YOYO-Scale): the combination of task vectors closest to what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from .arrays import AnyArray, Array, flatten, widen


def system(deltas: Array) -> tuple[Array, Array]:
    """G_ij = <d_i, d_j> and b_j, the mean of column j without its diagonal."""
    gram = deltas @ deltas.T
    return gram, target(gram)


def target(gram: Array) -> Array:
    """b_j = (sum_i G_ij - G_jj) / (N - 1)."""
    off = gram - np.diag(np.diag(gram))
    result: Array = off.sum(axis=0) / (len(gram) - 1)
    return result


def coefficients(gram: Array, solver: str = "clamp", eps: float = 1e-12, compat: str | None = None) -> Array:
    """Lambda of N >= 1 task vectors with Gram matrix `gram`.

    The newest public revision (compat "yoyo", solver "qp") gives up with zeros when its first solution has no
    positive coefficient, although a model on its own may still improve on the base.
    """
    if len(gram) == 1:
        return np.ones(1)
    system_matrix = gram + eps * np.eye(len(gram))
    b = target(gram)
    if not np.any(gram):
        return np.zeros(len(gram))
    if solver == "qp":
        if compat == "yoyo" and np.linalg.lstsq(system_matrix, b, rcond=1e-13)[0].max() <= 1e-12:
            return np.zeros(len(gram))
        return constrained(system_matrix, b)
    return clamped(system_matrix, b)


def clamped(matrix: Array, b: Array) -> Array:
    """The seed's solver: solve (least norm where singular), clamp at 0, divide by the sum where it exceeds 1."""
    solution = np.asarray(np.linalg.lstsq(matrix, b, rcond=1e-13)[0], np.float64)
    positive: Array = np.maximum(solution, 0.0)
    total = float(positive.sum())
    return positive / total if total > 1.0 else positive


def constrained(matrix: Array, b: Array) -> Array:
    """argmin x'Hx/2 - b'x over x >= 0, sum x <= 1: the best of all stationary points, by enumeration."""
    count = len(b)
    best, best_value = np.zeros(count), 0.0
    for size in range(1, count + 1):
        for active in combinations(range(count), size):
            for candidate in _stationary(matrix, b, list(active)):
                if candidate.min() < -1e-12 or candidate.sum() > 1.0 + 1e-12:
                    continue
                value = float(0.5 * candidate @ matrix @ candidate - b @ candidate)
                if value < best_value:
                    best, best_value = candidate, value
    return best


def _stationary(matrix: Array, b: Array, active: list[int]) -> list[Array]:
    """Stationary points with only `active` non-zero: with the sum free, and with the sum equal to 1."""
    size = len(active)
    block = matrix[np.ix_(active, active)]
    bordered = np.zeros((size + 1, size + 1))
    bordered[:size, :size] = block
    bordered[size, :size] = bordered[:size, size] = 1.0
    points = []
    for system_matrix, right in ((block, b[active]), (bordered, np.append(b[active], 1.0))):
        solution = np.linalg.lstsq(system_matrix, right, rcond=None)[0]
        point = np.zeros(len(b))
        point[active] = solution[:size]
        points.append(point)
    return points


def kkt_residual(matrix: Array, b: Array, solution: Array) -> float:
    """How far a solution of the constrained problem is from optimal, relative to the largest b."""
    gradient = matrix @ solution - b
    at_bound = float(solution.sum()) >= 1.0 - 1e-9
    used = solution > 1e-9
    price = float(-gradient[used].mean()) if at_bound and used.any() else 0.0
    reduced = gradient + max(price, 0.0)
    wrong = np.where(used, np.abs(reduced), np.maximum(-reduced, 0.0))
    return float(wrong.max() / max(float(np.abs(b).max()), 1e-300))


def merge(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    solver: str = "clamp",
    eps: float = 1e-12,
    compat: str | None = None,
) -> tuple[Array, Array]:
    """Merged tensor and lambda. One model is returned as it is."""
    if len(models) == 1:
        return widen(models[0]), np.ones(1)
    origin = widen(base)
    deltas = flatten(models) - origin.reshape(1, -1)
    lambdas = coefficients(deltas @ deltas.T, solver, eps, compat)
    return origin + (lambdas @ deltas).reshape(base.shape), lambdas
