"""Arcee Fusion: the changes whose importance, size times divergence of the row's softmax, stands out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import is_wide


def softmax(rows: Array) -> Array:
    """Along the last axis, with 1e-8 added to every probability."""
    weights = np.exp(rows - rows.max(axis=-1, keepdims=True))
    result: Array = weights / weights.sum(axis=-1, keepdims=True) + 1e-8
    return result


def divergence(model: Array, base: Array) -> Array:
    """KL of every row, in extended precision, as its first-order terms cancel."""
    p, q = softmax(model.astype(np.longdouble)), softmax(base.astype(np.longdouble))
    return np.maximum(np.sum(p * np.log(p / q), axis=-1), 0.0).astype(np.float64)


def importances(model: AnyArray, base: AnyArray) -> Array:
    """|delta| * KL of the row; a scalar is a row of one."""
    w, w0 = np.atleast_1d(widen(model)), np.atleast_1d(widen(base))
    result: Array = np.abs(w - w0) * divergence(w, w0)[..., None]
    return result.reshape(model.shape)


def threshold(scores: Array) -> float:
    """median + 1.5 (third - first quartile), each at floor(q (n - 1)) in ascending order."""
    ordered = np.sort(scores.reshape(-1))
    first, median, third = (float(ordered[int(q * (ordered.size - 1))]) for q in (0.25, 0.5, 0.75))
    return median + 1.5 * (third - first)


def mask(model: AnyArray, base: AnyArray) -> AnyArray:
    """What is kept. Importances are compared in float32 unless an input is float64, as multiples of a power of two."""
    scores = importances(model, base)
    if scores.size == 0:
        return np.ones(scores.shape, np.bool_)
    if not is_wide([model], base):
        w, w0 = np.atleast_1d(widen(model)), np.atleast_1d(widen(base))
        largest = float(divergence(w, w0).max())
        scale = 2.0 ** -np.floor(np.log2(largest)) if largest > 0.0 else 1.0
        scores = (scores * scale).astype(np.float32).astype(np.float64)
    return np.asarray(scores >= threshold(scores))


def task_vector(models: Sequence[AnyArray], base: AnyArray, *, lambda_: float = 1.0) -> Array:
    """lambda * (delta where it is kept)."""
    (model,) = models
    return lambda_ * np.where(mask(model, base), widen(model) - widen(base), 0.0)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: float) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
