"""The Karcher mean of directions on the sphere, iterated on whole vectors, with the mean length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, flatten, widen


def merge(
    models: Sequence[AnyArray], *, max_iter: int = 10, tol: float = 1e-5, compat: str | None = None
) -> tuple[Array, int]:
    """The merged tensor, and how many steps were looked at.

    compat mergekit: norms up to tol count as zero, angles below tol as 0, and nothing but zeros gives zeros.
    """
    if len(models) == 1:
        return widen(models[0]), 0
    points = flatten(models)
    norms = np.sqrt(np.sum(points * points, axis=1))
    used = norms > (tol if compat == "mergekit" else 0.0)
    if not used.any():
        return (np.zeros(models[0].shape) if compat == "mergekit" else widen(models[0])), 0
    units = points[used] / norms[used][:, None]
    share = 1.0 / len(units)
    mean = share * units.sum(axis=0)
    length = float(np.linalg.norm(mean))
    mean = units[0] if length < tol or length == 0.0 else mean / length
    steps = 0
    while steps < max_iter:
        steps += 1
        tangent = np.zeros_like(mean)
        for unit in units:
            cosine = float(np.clip(unit @ mean, -1.0, 1.0))
            angle = float(np.arccos(cosine))
            if compat == "mergekit" and angle < tol:
                continue
            if np.pi - angle < 1e-6:
                continue
            stretch = angle / np.sin(angle) if angle > 1e-6 else 1.0
            tangent += share * stretch * (unit - cosine * mean)
        size = float(np.linalg.norm(tangent))
        if size < tol or size == 0.0:
            break
        mean = np.cos(size) * mean + np.sin(size) * tangent / size
        mean = mean / np.linalg.norm(mean)
    return (norms.mean() * mean).reshape(models[0].shape), steps
