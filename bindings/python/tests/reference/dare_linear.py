"""DARE (arXiv:2311.03099) with a plain sum: elements of the task vectors are dropped at random, the rest rescaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import AnyArray, Array, widen
from .task_vectors import Options, Parts, PerModel, per_model, prepared


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    density: PerModel = 1.0,
    rescale: str | bool = "l1",
    normalize: bool = False,
    lambda_: float = 1.0,
    drop: str = "bernoulli",
    epsilon: float = 0.15,
    random_seed: int = 0,
    compat: str | None = None,
    parts: Parts | None = None,
    int8_mask: bool = False,
) -> Array:
    """lambda * sum e_i; with `normalize` divided by the sum of the weights, or by 1 where that is below 1e-8."""
    options = Options(density, drop, epsilon, random_seed, rescale, weight=weight, compat=compat)
    tau: Array = prepared(models, base, options, parts).sum(axis=0)
    if normalize:
        divisor = float(per_model(weight, len(models)).sum())
        tau = tau / (divisor if abs(divisor) >= 1e-8 else 1.0)
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
