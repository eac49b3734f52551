"""Methods that trim, drop or mask task vectors, as other repositories than mergekit say them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .rules import FUSION_BENCH, SD_MECHA, Names, Parameters, Rule, Table

TIES = "prateeky2806/ties-merging"
TALL_MASKS = "nik-dim/tall_masks"
MERGE_LM = "yule-BUAA/MergeLM"


def _threshold(value: Any) -> Parameters:
    """The share kept: numbers above 1 are percent; "none" keeps everything."""
    if value == "none":
        return {"density": 1.0}
    return {"density": value / 100 if value > 1 else float(value)}


def _trimmed(value: Any) -> Parameters:
    """The same of what random dropping has left."""
    return {"trim_density": _threshold(value)["density"]}


def _percent(value: Any) -> Parameters:
    """tall_masks reads 1 as one percent."""
    return {"density": value / 100 if value >= 1 else float(value)}


def _dropped(value: Any) -> Parameters:
    """The share kept, such that 1 - it is no less than the share dropped: the peers count floor(D * dropped)."""
    density = 1.0 - value
    return {"density": density if 1.0 - density >= value else math.nextafter(density, 0.0)}


def _aggregate(value: Any) -> Parameters:
    kind = str(value).removeprefix("dis-")
    choices: dict[str, Parameters] = {
        "mean": {"normalize": True},
        "sum": {"normalize": False},
        "max": {"merge": "max"},
    }
    return choices[kind]


def _inverse(value: Any) -> Parameters:
    return {"rescale": "inverse" if value else False}


def _vote(value: Any) -> Parameters:
    return {"elect": "mass" if value else "count"}


def _untrimmed(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters.get("k", 100) >= 100)


_OFFICIAL: Parameters = {"trim": "inclusive", "zero_sign": "majority"}
_WHOLE_MODEL: Parameters = {**_OFFICIAL, "scope": "model"}
_TIES_REPOSITORY: Names = {
    "reset_type": None,
    "reset_thresh": _threshold,
    "resolve_method": "elect",
    "merge_func": _aggregate,
}
_TALL: Names = {"use_ties": "use_ties", "prun_thre_k": "k", "lambda_per_task": "tall_mask_lambda"}
_DROP: Names = {
    "mask_rate": _dropped,
    "density": None,
    "use_rescale": _inverse,
    "rescale": None,
    "mask_strategy": None,
}

RULES: Table = {
    ("ties", TIES): (Rule("ties", _TIES_REPOSITORY, _OFFICIAL, compat="ties_merging"),),
    ("ties", FUSION_BENCH): (
        Rule(
            "ties",
            {"reset_thresh": _threshold, "merge_func": _aggregate},
            _OFFICIAL,
            compat="fusion_bench",
            function=r"ties_merging_utils",
        ),
        Rule(
            "ties",
            {"threshold": _threshold, "merge_func": _aggregate, "scaling_factor": "lambda"},
            _WHOLE_MODEL,
            compat="fusion_bench",
            function=r"Algorithm\.run$",
        ),
    ),
    ("ties", SD_MECHA): (
        Rule(
            "ties",
            {"k": "density", "vote_sgn": _vote, "alpha": "lambda"},
            {"trim": "inclusive", "zero_sign": "drop"},
            compat="sd_mecha",
        ),
    ),
    ("ties", TALL_MASKS): (Rule("ties", {"name": None, "k": _percent}, _WHOLE_MODEL),),
    ("ties", MERGE_LM): (
        Rule(
            "ties",
            {"param_value_mask_rate": _dropped, "scaling_coefficient": "lambda"},
            _WHOLE_MODEL,
            compat="merge_lm",
        ),
    ),
    ("task_arithmetic", TALL_MASKS): (
        Rule("task_arithmetic", {"name": None, "k": None}, when=_untrimmed),
        Rule(
            "ties",
            {"name": None, "k": _percent},
            {**_WHOLE_MODEL, "elect": "none", "normalize": False},
        ),
    ),
    ("dare_linear", FUSION_BENCH): (
        Rule(
            "dare_linear",
            {"scaling_factor": "lambda", "sparsity_ratio": _dropped, "rescale": _inverse},
        ),
    ),
    ("dare_ties", FUSION_BENCH): (
        Rule(
            "dare_ties",
            {
                "scaling_factor": "lambda",
                "sparsity_ratio": _dropped,
                "threshold": _trimmed,
                "merge_func": _aggregate,
            },
            {**_WHOLE_MODEL, "rescale": "inverse"},
            compat="fusion_bench",
        ),
    ),
    ("dare_linear", MERGE_LM): (Rule("dare_linear", _DROP),),
    ("magnitude_prune", MERGE_LM): (Rule("magnitude_prune", _DROP, compat="merge_lm"),),
    ("consensus_ta", TALL_MASKS): (Rule("consensus_ta", _TALL),),
    ("consensus_ties", TALL_MASKS): (Rule("consensus_ties", _TALL),),
    ("tall_mask", TALL_MASKS): (
        Rule(
            "tall_mask",
            {
                "use_ties": "use_ties",
                "lambdas": None,  # a grid: every mask's value stands in the name of its output
                "tall_mask_lambda": "tall_mask_lambda",
                "multi_task_vector": None,
            },
        ),
    ),
    ("tall_mask", FUSION_BENCH): (Rule("tall_mask", {"tall_mask_lambda": "tall_mask_lambda"}),),
}
