"""TIES-SOUP (6DammK9): no trimming, signs elected by count, the mean of what agrees; an even vote gives the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import AnyArray, Array, widen
from .task_vectors import Options, PerModel, pipeline


def task_vector(models: Sequence[AnyArray], base: AnyArray, *, weight: PerModel = 1.0, lambda_: float = 1.0) -> Array:
    """lambda * tau."""
    return lambda_ * pipeline(models, base, Options(weight=weight, elect="count", zero_sign="drop"))


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
