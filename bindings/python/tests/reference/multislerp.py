"""Multi-SLERP as its author wrote it: to the tangent space at the mean direction, the mean there, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, flatten, widen


def merge(
    models: Sequence[AnyArray],
    base: AnyArray | None = None,
    *,
    weight: float | Sequence[float] = 1.0,
    normalize_weights: bool = True,
    eps: float = 1e-8,
    compat: str | None = None,
) -> tuple[Array, float]:
    """The merged tensor, and the length of the mean of the unit vectors.

    compat mergekit adds eps to every norm that is divided by; otherwise units are units, and a zero vector is left out.
    """
    shape = models[0].shape
    origin = np.zeros(shape) if base is None else widen(base)
    if len(models) == 1:
        return widen(models[0]), 1.0
    points = flatten(models) - origin.reshape(1, -1)
    weights = np.broadcast_to(np.asarray(weight, np.float64), (len(points),))
    if normalize_weights:
        weights = weights / weights.sum()
    norms = np.sqrt(np.sum(points * points, axis=1))
    if compat == "mergekit":
        units = points / (norms + eps)[:, None]
    else:
        units = points / np.where(norms > 0.0, norms, 1.0)[:, None]
    mean = weights @ units
    length = float(np.linalg.norm(mean))
    if length < eps or length == 0.0:
        if compat == "mergekit" and len(points) > 2:
            raise ValueError("no mean direction")
        return origin + (weights @ points).reshape(shape), length
    mean = mean / length
    tangents = units - np.outer(units @ mean, mean)
    tangent = weights @ tangents
    size = float(np.linalg.norm(tangent)) + (eps if compat == "mergekit" else 0.0)
    moved = mean if size == 0.0 else mean * np.cos(size) + tangent * (np.sin(size) / size)
    return origin + (float(weights @ norms) * moved).reshape(shape), length
