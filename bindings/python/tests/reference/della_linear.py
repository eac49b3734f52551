"""DELLA (arXiv:2406.11617) with a plain sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import AnyArray, Array, widen
from .della import prepared
from .task_vectors import PerModel, per_model


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    normalize: bool = False,
    lambda_: float = 1.0,
    int8_mask: bool = False,
    **dropping: Any,
) -> Array:
    """lambda * sum e_i; with `normalize` divided by the sum of the weights, or by 1 where that is below 1e-8."""
    tau: Array = prepared(models, base, weight=weight, **dropping).sum(axis=0)
    if normalize:
        divisor = float(per_model(weight, len(models)).sum())
        tau = tau / (divisor if abs(divisor) >= 1e-8 else 1.0)
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
