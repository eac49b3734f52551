"""TALL masks (arXiv:2405.07813): which elements of the multi-task vector belong to a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import ties
from .arrays import AnyArray, Array, widen
from .task_vectors import Mask, Parts, PerModel, per_model, task_vectors


def multi_task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    use_ties: bool = False,
    density: PerModel = 0.2,
    trim: str = "inclusive",
    elect: str = "mass",
    zero_sign: str = "majority",
    parts: Parts | None = None,
) -> Array:
    """tau: the weighted sum of the task vectors, or what TIES makes of them (the sum of what agrees)."""
    if not use_ties:
        weights = per_model(weight, len(models))
        total: Array = (weights[:, None] * task_vectors(models, base)).sum(axis=0).reshape(base.shape)
        return total
    return ties.task_vector(
        models,
        base,
        weight=weight,
        density=density,
        trim=trim,
        elect=elect,
        zero_sign=zero_sign,
        merge="sum",
        parts=parts,
    )


def masks(models: Sequence[AnyArray], base: AnyArray, *, tall_mask_lambda: PerModel = 0.4, **parameters: Any) -> Mask:
    """[K, ...]: |delta_i| > lambda_i |tau - delta_i|, so an element that a task does not change is not its own."""
    deltas = task_vectors(models, base)
    tau = multi_task_vector(models, base, **parameters).reshape(-1)
    scale = per_model(tall_mask_lambda, len(models))[:, None]
    result: Mask = (np.abs(deltas) > scale * np.abs(tau - deltas)).reshape(len(models), *base.shape)
    return result


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    tall_mask_lambda: PerModel = 0.4,
    lambda_: float = 1.0,
    **parameters: Any,
) -> Array:
    """lambda * tau; the masks are not in it."""
    del tall_mask_lambda
    return lambda_ * multi_task_vector(models, base, **parameters)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
