"""DARE before TIES: random dropping and rescaling, then trimming, election and the merge of what agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import AnyArray, Array, widen
from .task_vectors import Options, Parts, PerModel, merge_rule, pipeline

PRESETS: dict[str, dict[str, str]] = {
    "fusion_bench": {"trim": "inclusive", "zero_sign": "majority", "scope": "model", "rescale": "inverse"},
}
"""What a `compat` says about parameters that are not given."""


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    weight: PerModel = 1.0,
    density: PerModel = 1.0,
    rescale: str | bool | None = None,
    trim_density: PerModel = 1.0,
    trim: str | None = None,
    elect: str = "mass",
    zero_sign: str | None = None,
    normalize: bool | None = None,
    merge: str | None = None,
    lambda_: float = 1.0,
    drop: str = "bernoulli",
    epsilon: float = 0.15,
    random_seed: int = 0,
    compat: str | None = None,
    parts: Parts | None = None,
    int8_mask: bool = False,
) -> Array:
    """lambda * tau. A mean is not rescaled unless it is asked for, or a tool's numbers are."""
    preset = PRESETS.get(compat or "", {})
    rule = merge_rule(normalize, merge, "sum")
    if rescale is None:
        unscaled = rule == "mean" and compat != "mergekit"
        rescale = preset.get("rescale", "none" if unscaled else "l1")
    options = Options(
        density,
        drop,
        epsilon,
        random_seed,
        rescale,
        trim_density,
        trim or preset.get("trim", "exact"),
        weight,
        elect,
        zero_sign or preset.get("zero_sign", "plus"),
        rule,
        compat,
    )
    return lambda_ * pipeline(models, base, options, parts)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
