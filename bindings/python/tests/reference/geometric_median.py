"""Geometric median argmin_y sum w_i |x_i - y| by Weiszfeld's iteration on the D-dimensional vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import AnyArray, Array, flatten


@dataclass(frozen=True)
class Median:
    """The point, its affine weights, the number of steps, and the weighted average distance."""

    point: Array
    weights: Array
    iterations: int
    objective: float


def _objective(points: Array, y: Array, weights: Array) -> float:
    return float(weights @ np.linalg.norm(points - y, axis=1) / weights.sum())


def _step(points: Array, y: Array, weights: Array, eps: float) -> tuple[Array, Array]:
    """One step: the affine weights of the next point, and the point."""
    distances = np.linalg.norm(points - y, axis=1)
    if eps > 0.0:
        raw = weights / np.maximum(distances, eps)
        share = raw / raw.sum()
        return share, share @ points
    near = distances <= 1e-12 * distances.max()
    if distances.max() == 0.0:
        share = weights / weights.sum()
        return share, y
    raw = np.where(near, 0.0, weights / np.where(near, 1.0, distances))
    share = raw / raw.sum()
    if not near.any():
        return share, share @ points
    # Vardi and Zhang: y is a data point of weight eta, and the optimum if the others pull with at most eta.
    pull = float(np.linalg.norm(raw @ (points - y)))
    eta = float(weights[near].sum())
    stay = min(1.0, eta / pull) if pull > 0.0 else 1.0
    here = np.where(near, weights, 0.0) / eta
    share = (1.0 - stay) * share + stay * here
    return share, share @ points


def weiszfeld(
    points: Array,
    *,
    weight: float | Sequence[float] | None = None,
    start: str = "mean",
    eps: float = 0.0,
    maxiter: int = 100,
    ftol: float = 1e-20,
) -> Median:
    """Median of the rows of `points`."""
    count = len(points)
    weights = np.broadcast_to(np.asarray(1.0 if weight is None else weight, np.float64), (count,))
    share = weights / weights.sum()
    y = np.median(points, axis=0) if start == "median" else share @ points
    objective = _objective(points, y, weights)
    iterations = 0
    for _ in range(maxiter):
        share, y = _step(points, y, weights, eps)
        iterations += 1
        previous, objective = objective, _objective(points, y, weights)
        if abs(previous - objective) <= ftol * objective:
            break
    return Median(y, share, iterations, objective)


def pull(points: Array, y: Array, weights: Array) -> float:
    """|sum w_i (x_i - y)/|x_i - y|| over the points off y, less the weight at y: at most 0 at the optimum."""
    distances = np.linalg.norm(points - y, axis=1)
    near = distances <= 1e-9 * distances.max()
    direction = (weights[~near] / distances[~near]) @ (points[~near] - y)
    return float(np.linalg.norm(direction) - weights[near].sum())


def merge(
    models: Sequence[AnyArray],
    *,
    weight: float | Sequence[float] | None = None,
    start: str = "mean",
    eps: float = 0.0,
    maxiter: int = 100,
    ftol: float = 1e-20,
) -> Median:
    """Median of tensors of one shape."""
    found = weiszfeld(flatten(models), weight=weight, start=start, eps=eps, maxiter=maxiter, ftol=ftol)
    return Median(found.point.reshape(models[0].shape), found.weights, found.iterations, found.objective)
