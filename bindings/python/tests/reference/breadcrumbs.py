"""Model Breadcrumbs (arXiv:2312.06795): task vectors without their largest and their smallest entries, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import Mask, PerModel, is_wide, magnitudes, per_model, rescale_rule, rescaling, task_vectors


def mask(size: Array, density: float, gamma: float, compat: str | None = None) -> Mask:
    """What of a row of magnitudes stays: in descending order, of equals the first, outliers go and `kept` stay."""
    count = size.size
    if density >= 1.0:
        return np.ones(count, np.bool_)
    stays = np.zeros(count, np.bool_)
    if density <= 0.0 or count == 0:
        return stays
    kept = int(density * count)
    if compat != "mergekit":
        kept = max(1, kept)
    outliers = min(int(gamma * count), count - kept)
    stays[np.argsort(-size, kind="stable")[outliers : outliers + kept]] = True
    return stays


def prepared(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    density: PerModel = 1.0,
    gamma: PerModel = 0.01,
    rescale: str | bool = "none",
    compat: str | None = None,
) -> Array:
    """weight * rescale(trim(delta)), K x D."""
    rows = task_vectors(models, base)
    wide = is_wide(models, base)
    densities, gammas = per_model(density, len(rows)), per_model(gamma, len(rows))
    for index, row in enumerate(rows):
        share = float(densities[index])
        kept = np.where(mask(magnitudes(row, wide=wide), share, float(gammas[index]), compat), row, 0.0)
        rows[index] = kept * rescaling(rescale_rule(rescale), row, kept, share)
    return per_model(weight, len(rows))[:, None] * rows


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    normalize: bool = False,
    lambda_: float = 1.0,
    density: PerModel = 1.0,
    gamma: PerModel = 0.01,
    rescale: str | bool = "none",
    compat: str | None = None,
    int8_mask: bool = False,
) -> Array:
    """lambda * sum e_i; with `normalize` divided by the sum of the weights, or by 1 where that is below 1e-8."""
    e = prepared(models, base, weight=weight, density=density, gamma=gamma, rescale=rescale, compat=compat)
    tau: Array = e.sum(axis=0)
    if normalize:
        divisor = float(per_model(weight, len(models)).sum())
        tau = tau / (divisor if abs(divisor) >= 1e-8 else 1.0)
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
