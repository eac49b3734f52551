"""Spherical interpolation of two tensors, each taken as one vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import AnyArray, Array, widen


@dataclass(frozen=True)
class Decision:
    """What was found: the cosine of the two vectors, and whether plain interpolation was used."""

    cosine: float
    linear: bool


def merge(
    first: AnyArray,
    second: AnyArray,
    *,
    t: float,
    dot_threshold: float = 0.9995,
    compat: str | None = None,
) -> tuple[Array, Decision]:
    """From `first` (t = 0) to `second` (t = 1).

    compat None: vectors that are nearly parallel or antiparallel, or zero, are interpolated linearly.
    compat mergekit, fusion_bench: a vector of norm <= 1e-8 keeps its length in the scalar product.
    compat sd_mecha: unit vectors are interpolated, and the result has the interpolated norm.
    """
    a, b = widen(first), widen(second)
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    plain = (1.0 - t) * a + t * b
    if compat == "sd_mecha":
        return _unit_vectors(a, b, norm_a, norm_b, t, plain)
    if compat is None and (norm_a == 0.0 or norm_b == 0.0):
        return plain, Decision(0.0, True)
    unit_a = a / norm_a if norm_a > 1e-8 or compat is None else a
    unit_b = b / norm_b if norm_b > 1e-8 or compat is None else b
    cosine = float(np.clip(np.sum(unit_a * unit_b), -1.0, 1.0))
    if abs(cosine) > dot_threshold:
        return plain, Decision(cosine, True)
    angle = np.arccos(cosine)
    merged = (np.sin((1.0 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return merged, Decision(cosine, False)


def _unit_vectors(a: Array, b: Array, norm_a: float, norm_b: float, t: float, plain: Array) -> tuple[Array, Decision]:
    """sd-mecha's form, which falls back to plain interpolation only where a division by zero occurs."""
    if norm_a == 0.0 or norm_b == 0.0:
        return plain, Decision(0.0, True)
    cosine = float(np.clip(np.sum((a / norm_a) * (b / norm_b)), -1.0, 1.0))
    angle = np.arccos(cosine)
    if np.sin(angle) == 0.0:
        return plain, Decision(cosine, True)
    unit = (np.sin((1.0 - t) * angle) * a / norm_a + np.sin(t * angle) * b / norm_b) / np.sin(angle)
    return unit * ((1.0 - t) * norm_a + t * norm_b), Decision(cosine, False)
