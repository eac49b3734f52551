"""Methods that decompose the task matrices."""

from __future__ import annotations

from typing import Any

from .rules import FUSION_BENCH, Names, Parameters, Rule, Table

TSV = "AntoAndGar/task_singular_vectors"
ISO = "danielm1405/iso-merging"
AWRANK = "ArkNightmaster/AwRank-Merging"
OATS = "stephenqz/OATS"


def _alpha(value: Any) -> Parameters:
    """A list scales the task vectors before they are decomposed, a number the result."""
    return {"weight": value} if isinstance(value, list) else {"lambda": value}


def _then(value: Any) -> Parameters:
    return {"then": {"TSVM": "tsvm"}.get(value, value)}


def _tsvm(variant: str | None = None, function: str = "", *, method: str = "tsvm") -> Rule:
    constants = {"variant": variant} if variant else {}
    return Rule(method, {"K": None}, constants, function=function)


_ISO_TEXT: Names = {"K": None, "key": "tensor_name"}
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
_STATISTIC = "an input that is neither base nor model (the activation statistics)"

RULES: Table = {
    ("tsvm", TSV): (_tsvm(),),
    ("tsvm", ISO): (_tsvm(),),
    ("tsvm", FUSION_BENCH): (Rule("tsvm", {"alpha": _alpha, "exclude_keys": "exclude_keys"}, compat="fusion_bench"),),
    ("tsvm_eigen", TSV): (_tsvm("eigen"),),
    ("tsvm_lossless", TSV): (_tsvm("lossless"),),
    ("tsvm_lossless_eigen", TSV): (_tsvm("lossless_eigen"),),
    ("iso_c", ISO): (Rule("iso_c", _ISO_TEXT),),
    ("iso_c", FUSION_BENCH): (Rule("iso_c", compat="fusion_bench"),),
    ("iso_cts", ISO): (Rule("iso_cts", {**_ISO_TEXT, "common_space_fraction": "common_space_fraction"}),),
    ("iso_cts", FUSION_BENCH): (
        Rule("iso_cts", {"common_space_fraction": "common_space_fraction"}, compat="fusion_bench"),
    ),
    ("scale_svd", AWRANK): (Rule("scale_svd", _COMPRESSION, compat="awrank", pending=_STATISTIC),),
    ("scale_svd_pipeline", AWRANK): (
        Rule(
            "scale_svd",
            {**_COMPRESSION, "then": _then, "common_space_fraction": "common_space_fraction"},
            compat="awrank",
        ),
    ),
    ("oats", OATS): (Rule("scale_svd", _OATS, pending=_STATISTIC),),
}
