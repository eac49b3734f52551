"""Magnitude pruning of task vectors (the comparison of arXiv:2311.03099): keep the largest, rescale, add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import PerModel, is_wide, magnitudes, per_model, rescale_rule, rescaling, task_vectors, trim_mask


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    density: PerModel = 0.9,
    trim: str = "exact",
    rescale: str | bool = "none",
    normalize: bool = False,
    lambda_: float = 1.0,
    compat: str | None = None,
) -> Array:
    """lambda * sum of the pruned; with `normalize` divided by the sum of the weights (by 1 below 1e-8)."""
    deltas = task_vectors(models, base)
    sizes = magnitudes(deltas, wide=is_wide(models, base))
    weights, densities = per_model(weight, len(models)), per_model(density, len(models))
    rule = rescale_rule(rescale)
    chosen = "strict" if compat == "merge_lm" else trim
    tau = np.zeros(base.size)
    for own, delta, size, share in zip(weights, deltas, sizes, densities, strict=True):
        kept = np.where(trim_mask(size, float(share), chosen, compat), delta, 0.0)
        tau = tau + own * kept * rescaling(rule, delta, kept, float(share))
    if normalize:
        divisor = float(weights.sum())
        tau = tau / (divisor if abs(divisor) >= 1e-8 else 1.0)
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
