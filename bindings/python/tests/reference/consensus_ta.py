"""Consensus Task Arithmetic (arXiv:2405.07813): the multi-task vector where at least k TALL masks are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import tall_mask
from .arrays import AnyArray, Array, widen
from .task_vectors import PerModel


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    k: int = 2,
    tall_mask_lambda: PerModel = 0.4,
    lambda_: float = 1.0,
    use_ties: bool = False,
    **parameters: Any,
) -> Array:
    """lambda * tau * [sum m_i >= k]."""
    tau = tall_mask.multi_task_vector(models, base, use_ties=use_ties, **parameters)
    on = tall_mask.masks(models, base, tall_mask_lambda=tall_mask_lambda, use_ties=use_ties, **parameters)
    return lambda_ * np.where(on.sum(axis=0) >= k, tau, 0.0)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
