"""Methods that decompose the task matrices."""

from __future__ import annotations

from typing import Any

from .rules import FUSION_BENCH, Names, Parameters, Rule, Table

TSV = "AntoAndGar/task_singular_vectors"
ISO = "danielm1405/iso-merging"
AWRANK = "ArkNightmaster/AwRank-Merging"
OATS = "stephenqz/OATS"

TEXT_PROJECTION = {"exclude_keys": ["*text_projection*"]}
COMPLETE = {"null_space": "complete"}


def _alpha(value: Any) -> Parameters:
    """A list scales the task vectors before they are decomposed, a number the result."""
    return {"weight": value} if isinstance(value, list) else {"lambda": value}


def _then(value: Any) -> Parameters:
    return {"then": {"TSVM": "tsvm"}.get(value, value)}


def _tsvm(variant: str = "standard") -> Rule:
    return Rule("tsvm", {"K": None}, {"variant": variant, **TEXT_PROJECTION}, compat="fusion_bench")


_ISO: Names = {"K": None, "key": "tensor_name"}
_FRACTION: Names = {"common_space_fraction": "common_space_fraction"}
_COMPRESSION: Names = {
    "sparsity": "sparsity",
    "rank_ratio": "rank_ratio",
    "num_iters": "num_iters",
    "mask_strategy": "mask_strategy",
}
_OATS: Names = {
    "target_rank": "target_rank",
    "num_iters": "num_iters",
    "unstruct_sparse": "unstruct_sparse",
    "prune_n": "prune_n",
    "prune_m": "prune_m",
}
_STATISTICS = {"scaler_row": "statistics"}

RULES: Table = {
    ("tsvm", TSV): (_tsvm(),),
    ("tsvm", ISO): (_tsvm(),),
    ("tsvm", FUSION_BENCH): (Rule("tsvm", {"alpha": _alpha, "exclude_keys": "exclude_keys"}, compat="fusion_bench"),),
    ("tsvm_eigen", TSV): (_tsvm("eigen"),),
    ("tsvm_lossless", TSV): (_tsvm("lossless"),),
    ("tsvm_lossless_eigen", TSV): (
        Rule("tsvm", {"K": None}, {"variant": "lossless"}, pending="the lossless eigen variant, which divides by zero"),
    ),
    ("iso_c", ISO): (Rule("iso_c", _ISO, COMPLETE | TEXT_PROJECTION),),
    ("iso_c", FUSION_BENCH): (Rule("iso_c", constants=COMPLETE),),
    ("iso_cts", ISO): (Rule("iso_cts", {**_ISO, **_FRACTION}, COMPLETE | TEXT_PROJECTION),),
    ("iso_cts", FUSION_BENCH): (Rule("iso_cts", _FRACTION, COMPLETE),),
    ("scale_svd", AWRANK): (
        Rule("scale_svd", _COMPRESSION, {"refit": True}, function="iso_iasad", inputs=_STATISTICS),
        Rule("scale_svd", _COMPRESSION, inputs=_STATISTICS),
    ),
    ("scale_svd_pipeline", AWRANK): (
        Rule("scale_svd", {**_COMPRESSION, **_FRACTION, "then": _then}, TEXT_PROJECTION, compat="awrank"),
    ),
    ("oats", OATS): (
        Rule("scale_svd", _OATS, inputs={"weight": "w", "diag_approx": "scale"}, call="low_rank_plus_sparse"),
    ),
}
