"""DELLA (arXiv:2406.11617): the chance to stay grows with the rank within the row; then election and disjoint merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import philox
from .arrays import AnyArray, Array, widen
from .task_vectors import (
    Options,
    PerModel,
    agreement,
    is_wide,
    magnitudes,
    merge_rule,
    merged,
    per_model,
    rescale_rule,
    task_vectors,
)


def rows_of(shape: tuple[int, ...], compat: str | None = None) -> Array:
    """Indices of the elements, a row of them per row: all of one first index; with mergekit along the second axis."""
    index = np.arange(math.prod(shape)).reshape(shape)
    if len(shape) < 2:
        return index.reshape(1, -1)
    if compat == "mergekit":
        return np.moveaxis(index, 1, -1).reshape(-1, shape[1])
    return index.reshape(shape[0], -1)


def chances(delta: Array, rows: Array, density: float, epsilon: float, *, wide: bool) -> Array:
    """Of every element to stay: from density - epsilon to density + epsilon by rank in its row, ties by the first."""
    size = magnitudes(delta, wide=wide)
    result = np.empty(delta.size)
    for row in rows:
        order = row[np.argsort(size[row], kind="stable")]
        step = np.linspace(-1.0, 1.0, row.size) if row.size > 1 else np.zeros(row.size)
        result[order] = density + epsilon * step
    return result


def prepared(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = "",
    weight: PerModel = 1.0,
    density: PerModel = 1.0,
    epsilon: PerModel = 0.15,
    rescale: str | bool = "l1",
    random_seed: int = 0,
    compat: str | None = None,
) -> Array:
    """weight * rescale(drop(delta)), K x D."""
    rows = task_vectors(models, base)
    rule = rescale_rule(rescale)
    densities, epsilons = per_model(density, len(rows)), per_model(epsilon, len(rows))
    for index, delta in enumerate(rows):
        share = float(densities[index])
        if share >= 1.0:
            continue
        kept = np.zeros_like(delta)
        if share > 0.0:
            chance = chances(
                delta, rows_of(base.shape, compat), share, float(epsilons[index]), wide=is_wide(models, base)
            )
            kept = np.where(philox.kept(name, delta.size, index, random_seed, chance), delta, 0.0)
        factor = 1.0
        if rule == "inverse" and share > 0.0:
            factor = 1.0 / share
        elif rule == "l1" and kept.any():
            factor = float(np.abs(delta).sum() / np.abs(kept).sum())
        rows[index] = factor * kept
    return per_model(weight, len(rows))[:, None] * rows


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    rescale: str | bool | None = None,
    elect: str = "mass",
    zero_sign: str = "plus",
    normalize: bool | None = None,
    merge: str | None = None,
    lambda_: float = 1.0,
    compat: str | None = None,
    int8_mask: bool = False,
    **dropping: Any,
) -> Array:
    """lambda * tau. A mean is not rescaled unless it is asked for, or the tool's numbers are."""
    rule = merge_rule(normalize, merge, "mean")
    if rescale is None:
        rescale = "none" if rule == "mean" and compat != "mergekit" else "l1"
    e = prepared(models, base, weight=weight, rescale=rescale, compat=compat, **dropping)
    options = Options(weight=weight, elect=elect, zero_sign=zero_sign, merge=rule)
    return lambda_ * merged(e, agreement(e, options), weight, rule).reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
