"""TIES (arXiv:2306.01708): trim every task vector, elect a sign per element, merge what has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import AnyArray, Array, widen
from .task_vectors import Options, Parts, PerModel, merge_rule, pipeline

PRESETS: dict[str, dict[str, str]] = {
    "ties_merging": {"trim": "inclusive", "zero_sign": "majority", "scope": "model"},
    "fusion_bench": {"trim": "inclusive", "zero_sign": "majority", "scope": "model"},
    "merge_lm": {"trim": "inclusive", "zero_sign": "majority", "scope": "model"},
    "sd_mecha": {"trim": "inclusive", "zero_sign": "drop"},
}
"""What a `compat` says about parameters that are not given."""


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    density: PerModel = 1.0,
    trim: str | None = None,
    elect: str = "mass",
    zero_sign: str | None = None,
    normalize: bool | None = None,
    merge: str | None = None,
    lambda_: float = 1.0,
    compat: str | None = None,
    parts: Parts | None = None,
) -> Array:
    """lambda * tau."""
    preset = PRESETS.get(compat or "", {})
    options = Options(
        trim_density=density,
        trim=trim or preset.get("trim", "exact"),
        weight=weight,
        elect=elect,
        zero_sign=zero_sign or preset.get("zero_sign", "plus"),
        merge=merge_rule(normalize, merge, "mean"),
        compat=compat,
    )
    return lambda_ * pipeline(models, base, options, parts)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
