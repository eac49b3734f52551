"""Model Breadcrumbs before TIES: task vectors without both ends, then election and the merge of what agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import AnyArray, Array, widen
from .breadcrumbs import prepared
from .task_vectors import Options, PerModel, agreement, merge_rule, merged


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    elect: str = "mass",
    zero_sign: str = "plus",
    normalize: bool | None = None,
    merge: str | None = None,
    lambda_: float = 1.0,
    int8_mask: bool = False,
    **trimming: Any,
) -> Array:
    """lambda * tau."""
    e = prepared(models, base, weight=weight, **trimming)
    options = Options(weight=weight, elect=elect, zero_sign=zero_sign, merge=merge_rule(normalize, merge, "sum"))
    return lambda_ * merged(e, agreement(e, options), weight, options.merge).reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
