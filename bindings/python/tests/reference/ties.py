"""TIES (arXiv:2306.01708): trim every task vector, elect a sign per element, merge what has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import (
    Options,
    Parts,
    PerModel,
    agreement,
    merge_rule,
    merged,
    per_model,
    pipeline,
    prepared,
    rescale_rule,
    rescaling,
    task_vectors,
)

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
    rescale: str | bool = "none",
    elect: str = "mass",
    zero_sign: str | None = None,
    normalize: bool | None = None,
    merge: str | None = None,
    lambda_: float = 1.0,
    compat: str | None = None,
    parts: Parts | None = None,
    int8_mask: bool = False,
) -> Array:
    """lambda * tau. A rescale makes up for what the trim takes, tensor by tensor."""
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
    if rescale_rule(rescale) == "none":
        return lambda_ * pipeline(models, base, options, parts)
    assert parts is None or len(parts) == 1, "a rescale of joined tensors"
    e = prepared(models, base, options, parts)
    for index, whole in enumerate(task_vectors(models, base)):
        share = float(per_model(density, len(models))[index])
        kept = np.where(e[index] != 0.0, whole, 0.0)
        e[index] *= rescaling(rescale_rule(rescale), whole, kept, share)
    return lambda_ * merged(e, agreement(e, options), weight, options.merge).reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
