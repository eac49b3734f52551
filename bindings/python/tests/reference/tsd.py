"""TSD (6DammK9): TIES-SOUP with dropping. Drop, trim, elect by count, the mean of what agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import Options, PerModel, agreement, merge_rule, merged, prepared


def filtered(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = "",
    weight: PerModel = 1.0,
    density: PerModel = 0.9,
    rescale: str | bool = "none",
    trim_density: PerModel = 1.0,
    trim: str = "exact",
    elect: str = "count",
    zero_sign: str = "drop",
    drop: str = "bernoulli",
    epsilon: float = 0.15,
    random_seed: int = 0,
) -> tuple[Array, Options]:
    """f_i = e_i where its sign is the elected one, else 0 (K x D), and the options for what follows."""
    options = Options(
        density, drop, epsilon, random_seed, rescale, trim_density, trim, weight, elect, zero_sign, "mean"
    )
    e = prepared(models, base, options, [(name, base.size)])
    return np.where(agreement(e, options), e, 0.0), options


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    normalize: bool | None = None,
    merge: str | None = None,
    lambda_: float = 1.0,
    **parameters: Any,
) -> Array:
    """lambda * tau."""
    f, options = filtered(models, base, **parameters)
    tau = merged(f, f != 0.0, options.weight, merge_rule(normalize, merge, "mean"))
    return lambda_ * tau.reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
