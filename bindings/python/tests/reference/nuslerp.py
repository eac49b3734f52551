"""NuSLERP: spherical interpolation by weights, of whole tensors or of every slice along an axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen


def position(weight: float | Sequence[float]) -> float:
    """The second model's share of the weights; the middle where they cancel."""
    first, second = np.broadcast_to(np.asarray(weight, np.float64), (2,))
    total = float(first + second)
    return 0.5 if abs(total) < 1e-6 else float(second) / total


def arc(a: Array, b: Array, t: float, axis: int | None, compat: str | None) -> tuple[Array, Array, Array]:
    """Interpolated vectors, with cosine and whether a line was taken, per vector along `axis` (None: one in all)."""
    norm_a = np.sqrt(np.sum(a * a, axis=axis, keepdims=True))
    norm_b = np.sqrt(np.sum(b * b, axis=axis, keepdims=True))
    zero = (norm_a == 0.0) | (norm_b == 0.0)
    if compat == "mergekit":
        zero = np.zeros_like(zero)
        norm_a, norm_b = np.maximum(norm_a, 1e-7), np.maximum(norm_b, 1e-7)
    product = np.sum(a * b, axis=axis, keepdims=True)
    cosine = np.clip(product / np.where(zero, 1.0, norm_a * norm_b), -1.0, 1.0)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    alone = (a.size if axis is None else a.shape[axis]) == 1  # parallel or opposite, whatever rounding says
    linear = zero | (sine < np.where(cosine < 0.0, 1e-6, 1e-8)) | alone
    divisor = np.where(linear, 1.0, sine)
    first = np.where(linear, 1.0 - t, np.sin((1.0 - t) * angle) / divisor)
    second = np.where(linear, t, np.sin(t * angle) / divisor)
    return first * a + second * b, cosine, linear


def merge(
    models: Sequence[AnyArray],
    base: AnyArray | None = None,
    *,
    weight: float | Sequence[float] = 1.0,
    nuslerp_flatten: bool = True,
    nuslerp_row_wise: bool = False,
    compat: str | None = None,
) -> tuple[Array, Array, Array]:
    """The merged tensor, and cosine and use of a line of every vector; with a base, of the differences from it."""
    origin = np.zeros(models[0].shape) if base is None else widen(base)
    a, b = (widen(model) - origin for model in models)
    axis = None
    if not nuslerp_flatten and a.ndim > 1:
        axis = 0 if nuslerp_row_wise else -1
    merged, cosine, linear = arc(a, b, position(weight), axis, compat)
    return origin + merged, cosine, linear
